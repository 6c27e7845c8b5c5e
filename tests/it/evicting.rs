//! What goes while it is read, fetched, or fetched again; and that there is never more than may be.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use cistern::api;
use cistern::cache::integrity::{Piece, Verdict};
use cistern::cache::open::OpenFiles;
use cistern::database::Database;
use cistern::digest::{Claim, Digest, Expected};
use cistern::disk::{Disk as _, OsDisk};
use cistern::ledger::change::Change;
use cistern::store::Store;
use cistern::store::blob::Blob;
use cistern::store::layout::Layout;
use futures_util::future::join_all;

use crate::managing::{done, typed};
use crate::support::disk::CountingDisk;
use crate::support::faulty::{Call, Fault, FaultyDisk};
use crate::support::mirror::{Builder, Mirror, free_port, wait_for};
use crate::support::origin::{Act, Origin};
use crate::support::server::Server;
use crate::support::stream::{Stream, Version, noise};

const MIB: usize = 1 << 20;

/// So many images `0`, `1` and so on for this machine, with roots of so many bytes.
fn images(count: usize, size: usize) -> Stream {
    let arch = if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" };
    (0..count).fold(Stream::default(), |stream, number| {
        let version = Version::new(&format!("i/{number}"))
            .file("squashfs", &noise(size, number as u64))
            .metadata("lxd.tar.xz", format!("metadata {number}").as_bytes());
        stream.add(&format!("busy:{number}:{arch}"), &format!("a{number}"), "20260101", version)
    })
}

fn root(number: usize) -> String {
    format!("lab/i/{number}/squashfs")
}

async fn mirror(stream: &Stream, builder: Builder) -> (Origin, Mirror) {
    let origin = Origin::start().await;
    origin.put(stream.tree());
    let mirror = builder.remote("lab", &[origin.url()], "").start().await;
    (origin, mirror)
}

/// Downloads an image as a host does, and waits until it is recorded.
async fn hold(mirror: &Mirror, number: usize) {
    mirror.body(&root(number)).await;
    mirror.body(&format!("lab/i/{number}/metadata.tar.xz")).await;
    let alias = format!("a{number}");
    let path = "/1.0/images?held";
    wait_for(async || {
        let held: Vec<api::Image> = cistern::cli::admin::ask(&mirror.socket(), hyper::Method::GET, path, Vec::new()).await.unwrap();
        held.iter().any(|image| image.aliases.contains(&alias))
    })
    .await;
}

async fn info(mirror: &Mirror) -> serde_json::Value {
    cistern::cli::admin::ask(&mirror.socket(), hyper::Method::GET, "/1.0/cache", Vec::new()).await.unwrap()
}

/// Bytes of all files below a folder, and of those that are open and have no name there any more.
fn used(store: &Path) -> u64 {
    fn walk(folder: &Path, files: &mut HashMap<u64, u64>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => walk(&entry.path(), files),
                Ok(metadata) => drop(files.insert(metadata.ino(), metadata.len())),
                // It went meanwhile.
                Err(_) => {}
            }
        }
    }
    let mut files = HashMap::new();
    ["blobs", "partials", "trash"].iter().for_each(|folder| walk(&store.join(folder), &mut files));
    for file in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let is_ours = std::fs::read_link(file.path())
            .is_ok_and(|target: PathBuf| target.starts_with(store) && !target.to_string_lossy().contains("ledger"));
        if let (true, Ok(metadata)) = (is_ours, std::fs::metadata(file.path())) {
            files.insert(metadata.ino(), metadata.len());
        }
    }
    files.values().sum()
}

/// T23: 200 downloads at once into a store that holds a tenth of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn there_is_never_more_than_may_be_also_when_very_many_arrive_at_once() {
    const SIZE: usize = 100_000;
    let capacity = 20 * SIZE as u64;
    let limits = "[limits]\nclient_fetches = 200\nfetches = 200\nunbuffered_fetches = 200\nring_size = \"128KiB\"";
    let disk = CountingDisk::default();
    let builder = Builder::default().disk(disk.clone()).storage(&format!("capacity = \"{capacity}B\"\nmin_free = \"0%\"")).section(limits);
    let (_origin, mirror) = mirror(&images(200, SIZE), builder).await;
    disk.count_below(&mirror.store());
    let bodies = join_all((0..200).map(|number| mirror.get_whole(root(number)))).await;
    for (number, body) in bodies.into_iter().enumerate() {
        assert_eq!(body.as_deref(), Some(noise(SIZE, number as u64).as_slice()), "{number} is served, stored or not");
    }
    let most = disk.most();
    assert!(most <= capacity && most > capacity / 2, "{most} of {capacity}");
    // Those that are held are all there, and counted.
    wait_for(async || info(&mirror).await["size"] == used(&mirror.store())).await;
}

/// T24: what is read does not go, and its space is free when its last reader has gone.
#[tokio::test]
async fn an_image_that_is_read_stays_until_nobody_reads_it() {
    let size = 8 * MIB;
    let builder = Builder::default().section("[images]\nremote_cache_expiry = \"3s\"");
    let (_origin, mirror) = mirror(&images(1, size), builder).await;
    hold(&mirror, 0).await;
    let mut slow = mirror.get(&root(0)).await;
    let mut read = slow.chunk().await.unwrap().unwrap().to_vec();
    assert_eq!(typed(&mirror, &["image", "delete", "lab:a0"], "").await.0, 75, "try again later");
    tokio::time::sleep(Duration::from_millis(3500)).await;
    done(&mirror, &["cache", "prune"]).await;
    assert_eq!(mirror.files("blobs").len(), 2, "it is read");
    while let Some(chunk) = slow.chunk().await.unwrap() {
        read.extend_from_slice(&chunk);
    }
    assert_eq!(read, noise(size, 0));
    drop(slow);
    wait_for(async || mirror.files("blobs").is_empty() && used(&mirror.store()) == 0).await;
    assert_eq!(info(&mirror).await["size"], 0);
}

/// T24: what is being fetched cannot be taken for room, and the files of an image do not go one without the other.
#[tokio::test]
async fn what_is_on_its_way_stays_while_others_need_room() {
    let size = 300_000;
    let builder = Builder::default().storage("capacity = \"700000B\"\nmin_free = \"0%\"");
    let (origin, mirror) = mirror(&images(4, size), builder).await;
    origin.act("i/0/squashfs", [Act::Dribble(30_000, Duration::from_millis(60))]);
    let slow = mirror.get(&root(0)).await;
    for number in 1..4 {
        assert_eq!(mirror.body(&root(number)).await, noise(size, number as u64), "{number} has room, or goes through memory");
    }
    assert_eq!(slow.bytes().await.unwrap(), noise(size, 0));
    wait_for(async || mirror.files("blobs").iter().any(|blob| blob.ends_with(&Digest::of(&noise(size, 0)).to_string()))).await;
}

/// A file takes room until it is gone, also if nobody wants it any more.
#[tokio::test]
async fn what_is_given_up_has_its_room_until_it_is_removed() {
    let size = 300_000;
    for act in [Act::WrongBytes, Act::Endless] {
        let disk = FaultyDisk::over(OsDisk);
        let builder = Builder::default().storage("capacity = \"500000B\"\nmin_free = \"0%\"").disk(disk.clone());
        let (origin, mirror) = mirror(&images(2, size), builder).await;
        origin.act("i/0/squashfs", [act.clone()]);
        disk.hang(Call::Remove);
        let wrong = mirror.get(&root(0)).await;
        wait_for(async || disk.hung() > 0).await;
        let another = async {
            // It gives its file up as well, for want of room, and goes through memory.
            wait_for(async || disk.hung() > 1).await;
            disk.heal();
        };
        let path = root(1);
        assert!(tokio::join!(mirror.body(&path), another).0 == noise(size, 1), "{act:?}");
        assert!(wrong.bytes().await.is_err());
        wait_for(async || used(&mirror.store()) == 0).await;
        wait_for(async || mirror.body(&root(1)).await == noise(size, 1) && mirror.files("blobs").len() == 1).await;
        assert_eq!(info(&mirror).await["size"], size, "{act:?}");
    }
}

/// T25: the disk takes its time to remove a file, and it is fetched again meanwhile.
#[tokio::test]
async fn a_late_removal_does_not_remove_what_came_again() {
    let disk = FaultyDisk::over(OsDisk);
    let (origin, mirror) = mirror(&images(1, 50_000), Builder::default().disk(disk.clone())).await;
    hold(&mirror, 0).await;
    disk.delay(Call::Remove, Duration::from_millis(600));
    let delete = done(&mirror, &["image", "delete", "lab:a0"]);
    let again = async {
        wait_for(async || mirror.files("blobs").is_empty()).await;
        assert!(!mirror.files("trash").is_empty(), "it is on its way out");
        assert_eq!(mirror.body(&root(0)).await, noise(50_000, 0));
        assert!(!mirror.files("trash").is_empty(), "and was while it came again");
    };
    tokio::join!(delete, again);
    disk.heal();
    wait_for(async || mirror.files("trash").is_empty()).await;
    assert_eq!(mirror.files("blobs").len(), 1);
    assert_eq!(mirror.body(&root(0)).await, noise(50_000, 0));
    assert_eq!(origin.requests("i/0/squashfs").len(), 2, "a hit");
    wait_for(async || info(&mirror).await["size"] == 50_000).await;
}

/// T27: whatever a killed process left does not get in the way.
#[tokio::test]
async fn what_was_left_of_downloads_blocks_nothing() {
    let size = 100_000;
    let (_origin, mirror) = mirror(&images(6, size), Builder::default()).await;
    let bytes = |number: usize| noise(size, number as u64);
    let partial = |number: usize| Expected { claim: Claim::Sha256(Digest::of(&bytes(number))), size: Some(size as u64) }.to_string();
    let mirror = mirror
        .restart_after_in_store(|store| {
            let path = |number: usize| store.join("partials").join(partial(number));
            std::fs::write(path(0), &bytes(0)[..size / 2]).unwrap();
            std::fs::write(path(1), bytes(1)).unwrap();
            std::fs::write(path(2), b"other bytes").unwrap();
            std::fs::write(path(3), noise(2 * size, 9)).unwrap();
            std::fs::create_dir(path(4)).unwrap();
            std::fs::write(store.join("partials/garbage"), b"garbage").unwrap();
        })
        .await;
    for number in [0, 1, 3, 4, 5] {
        assert_eq!(mirror.get_whole(root(number)).await, Some(bytes(number)), "{number}");
    }
    // What was damaged is found out at the end only, and is not taken for upstream's fault.
    assert_eq!(mirror.get_whole(root(2)).await, None);
    assert_eq!(mirror.get_whole(root(2)).await, Some(bytes(2)));
}

/// T27: room is made of what was left of downloads, but not of one that goes on.
#[tokio::test]
async fn room_is_not_made_of_a_download_that_goes_on() {
    let size = 300_000;
    let builder = Builder::default().storage("capacity = \"750000B\"\nmin_free = \"0%\"");
    let (origin, mirror) = mirror(&images(3, size), builder).await;
    let mirror = mirror.restart_after_in_store(|store| std::fs::write(store.join("partials/old"), vec![7; 400_000]).unwrap()).await;
    origin.act("i/0/squashfs", [Act::StallAt(200_000, Duration::from_millis(700))]);
    let slow = mirror.get(&root(0)).await;
    assert_eq!(mirror.body(&root(1)).await.len(), size);
    wait_for(async || mirror.files("blobs").len() == 1).await;
    let partials = mirror.files("partials");
    assert!(partials.len() == 1 && partials[0] != "old", "what was left is gone, what goes on is not: {partials:?}");
    assert_eq!(slow.bytes().await.unwrap(), noise(size, 0));
    assert_eq!(origin.requests("i/0/squashfs").len(), 1);
}

/// T28: a store that holds much more than it may serves at once, and gets smaller meanwhile.
#[tokio::test]
async fn a_store_that_is_far_too_large_serves_while_it_gets_smaller() {
    let (count, size) = (60, 50_000);
    let (_origin, mirror) = mirror(&images(count, size), Builder::default()).await;
    join_all((0..count).map(|number| hold(&mirror, number))).await;
    let disk = FaultyDisk::over(OsDisk);
    disk.delay(Call::Remove, Duration::from_millis(20));
    let smaller = |text: &str| text.replace("min_free = \"0%\"", "min_free = \"0%\"\ncapacity = \"500000B\"");
    let started = Instant::now();
    let mirror = mirror.restart_with(disk, smaller).await;
    assert!(mirror.get_whole(root(count - 1)).await.is_some());
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    assert!(mirror.files("blobs").len() > count, "most is still there");
    wait_for(async || used(&mirror.store()) <= 500_000).await;
    assert!(info(&mirror).await["size"].as_u64().unwrap() <= 500_000);
}

/// T28: two hundred thousand files, of which ten thousand have to go. This build is some five times slower than the one that people run,
/// of which `cargo bench --bench figures -- ledger` says how long it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_two_hundred_thousand_files_is_served_at_once_and_gets_smaller_meanwhile() {
    const FILES: u64 = 200_000;
    const TOO_MANY: u64 = 10_000;
    let origin = Origin::start().await;
    origin.put(images(1, 100).tree());
    let config = format!(
        "capacity = \"{}B\"\n[server]\nlisten = [\"127.0.0.1:0\"]\nmetrics = \"127.0.0.1:{}\"\nadmin_socket = \"{{folder}}/admin.sock\"\n\
         [images]\ngrace = \"2s\"\n[remotes.site]\nurl = [\"{}\"]\n",
        FILES - TOO_MANY,
        free_port(),
        origin.url()
    );
    // To make so many files on a disk would be most of the time.
    let has_room = rustix::fs::statvfs("/dev/shm").is_ok_and(|stat| stat.f_bavail * stat.f_frsize > 2 << 30);
    let memory = if has_room { tempfile::tempdir_in("/dev/shm") } else { tempfile::tempdir() }.unwrap();
    let fill = |folder: &Path| {
        std::os::unix::fs::symlink(memory.path(), folder.join("store")).unwrap();
        let layout = Layout::new(memory.path());
        layout.create(&OsDisk).unwrap();
        let digest = |number: u64| Digest::of(&number.to_le_bytes());
        (0..FILES).for_each(|number| std::fs::write(layout.blob(digest(number)), b"x").unwrap());
        let (database, _) = Database::open(&OsDisk, &layout.database()).unwrap();
        let used = |number: u64| jiff::Timestamp::from_second(1_767_225_600 + i64::try_from(number).unwrap()).unwrap();
        let rows = (0..FILES).map(|number| Change::Blob(digest(number), 1, used(number))).collect();
        let written = async {
            database.write(rows).await.unwrap();
            database.close().await;
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(written));
    };
    let filled = Arc::new(Mutex::new(None));
    let server = Server::start_with(&config, |folder| {
        fill(folder);
        *filled.lock().unwrap() = Some(Instant::now());
    });
    let listening = filled.lock().unwrap().unwrap().elapsed();
    assert!(listening < Duration::from_secs(5), "{listening:?}");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let metric = async |name: &str| -> f64 {
        let text = client.get(server.metrics()).send().await.unwrap().text().await.unwrap();
        text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap().parse().unwrap()
    };
    // It answers all the while.
    let started = Instant::now();
    while metric("cistern_cache_blobs").await > 190_000.0 {
        let asked = Instant::now();
        let page = server.client().get(format!("https://{}/", server.addresses()[0])).send().await.unwrap();
        assert!(page.status() == 200 && asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert!(started.elapsed() < Duration::from_mins(2), "it gets smaller");
    }
}

/// What is not there any more, or is shorter than it was, frees what it took when it goes.
#[tokio::test]
async fn what_was_damaged_by_hand_is_counted_right_when_it_goes() {
    let (_origin, mirror) = mirror(&images(3, 40_000), Builder::default()).await;
    for number in 0..3 {
        hold(&mirror, number).await;
    }
    let blob = |number: usize| {
        let digest = Digest::of(&noise(40_000, number as u64)).to_string();
        mirror.store().join("blobs/sha256").join(&digest[..2]).join(digest)
    };
    std::fs::remove_file(blob(0)).unwrap();
    std::fs::OpenOptions::new().write(true).open(blob(1)).unwrap().set_len(1000).unwrap();
    for number in 0..3 {
        done(&mirror, &["image", "delete", &format!("lab:a{number}")]).await;
    }
    wait_for(async || mirror.files("blobs").is_empty() && used(&mirror.store()) == 0).await;
    assert_eq!(info(&mirror).await["size"], 0);
}

/// T25: twice, while the first one is still on its way out.
#[tokio::test]
async fn what_goes_twice_is_counted_twice() {
    let disk = FaultyDisk::over(OsDisk);
    let (_origin, mirror) = mirror(&images(1, 50_000), Builder::default().disk(disk.clone())).await;
    hold(&mirror, 0).await;
    disk.fail_all(Call::Remove, Fault::Broken);
    for _ in 0..2 {
        drop(typed(&mirror, &["image", "delete", "lab:a0"], "").await);
        wait_for(async || mirror.files("blobs").is_empty()).await;
        hold(&mirror, 0).await;
    }
    assert_eq!(info(&mirror).await["size"], used(&mirror.store()), "what cannot be removed takes room");
    assert_eq!(mirror.files("trash").len(), 4);
    disk.heal();
    done(&mirror, &["image", "delete", "lab:a0"]).await;
    wait_for(async || used(&mirror.store()) == 0 && info(&mirror).await["size"] == 0).await;
}

/// The scrub takes hours for a file where there is little: one that goes meanwhile takes no room that nobody counts.
#[tokio::test]
async fn what_is_read_again_is_open_for_no_longer_than_a_piece() {
    let folder = tempfile::tempdir().unwrap();
    let cache = crate::queueing::cache(&folder);
    let digest = Digest::of(&noise(MIB, 1));
    let blob = cache.store().layout().blob(digest);
    std::fs::write(&blob, noise(MIB, 1)).unwrap();
    let is_open = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        links.into_iter().any(|path| path.starts_with(&blob))
    };
    let held = std::fs::File::open(&blob).unwrap();
    assert!(is_open());
    drop(held);
    let reading = cache.reread(digest).unwrap().expect("it is there");
    let Ok(Piece::Read(_, reading)) = reading.advance() else { panic!("it has more than one piece") };
    assert!(!is_open());
    std::fs::remove_file(&blob).unwrap();
    assert!(matches!(reading.advance(), Ok(Piece::Over(Verdict::Gone))), "and of one that went nothing is known");
}

/// Whether this process has a file open whose name has this in it.
fn is_open(name: &str) -> bool {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|path| path.to_string_lossy().contains(name))
}

#[test]
fn what_leaves_is_closed_at_once_whatever_others_do() {
    let folder = tempfile::tempdir().unwrap();
    let (files, is_over) = (Arc::new(OpenFiles::new(16, Duration::from_mins(1))), Arc::new(AtomicBool::new(false)));
    let open = |digest, name: &str| Blob::new(digest, 0, OsDisk.create(&folder.path().join(name)).unwrap()).unwrap();
    files.insert(open(Digest::of(b"busy"), "busy"));
    let busy: Vec<_> = (0..3)
        .map(|_| {
            let (files, is_over) = (Arc::clone(&files), Arc::clone(&is_over));
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    assert!(files.get(Digest::of(b"busy")).is_some());
                }
            })
        })
        .collect();
    for round in 0..300_u32 {
        let digest = Digest::of((round % 8).to_string().as_bytes());
        let name = format!("file{round}.");
        files.insert(open(digest, &name));
        assert!(is_open(&name), "{round}");
        match round % 3 {
            // Another one takes its place, or it is closed.
            0 => files.insert(open(digest, "other")),
            _ => files.close(digest),
        }
        assert!(!is_open(&name), "{round}");
    }
    is_over.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Nothing happens: then nobody asks either, and what was removed from outside takes room for as long as it is open.
#[test]
fn what_nobody_asks_for_is_closed_although_nothing_happens() {
    let folder = tempfile::tempdir().unwrap();
    let files = OpenFiles::new(16, Duration::from_millis(100));
    let name = format!("idle-{}", fastrand::u64(..));
    files.insert(Blob::new(Digest::of(b"idle"), 0, OsDisk.create(&folder.path().join(&name)).unwrap()).unwrap());
    files.close_idle();
    assert!(is_open(&name));
    std::thread::sleep(Duration::from_millis(150));
    files.close_idle();
    assert!(!is_open(&name));
}

/// One document says how large a file is and another does not, so that it is fetched twice at once: the first one has no name
/// when the second one has it.
#[test]
fn a_file_that_lost_its_name_to_another_counts_for_as_long_as_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let cache = crate::queueing::cache(&folder);
    let bytes = noise(MIB, 1);
    let commit = || {
        let mut room = cache.books().promise(MIB as u64, u64::MAX).unwrap();
        room.becomes(MIB as u64, 0);
        crate::queueing::commit(&cache, &bytes)
    };
    let held = || cache.books().read(|ledger| ledger.account.held()) / MIB as u64;
    let first = commit();
    assert_eq!(held(), 1);
    let (other, second) = (first.clone(), commit());
    assert_eq!(held(), 2);
    drop((second, first));
    assert_eq!(held(), 2, "somebody reads it");
    drop(other);
    assert_eq!(held(), 1);
}

/// It was set aside for the rest of a download that was killed.
#[test]
fn what_was_set_aside_is_given_back_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(Arc::new(OsDisk), folder.path()).unwrap());
    let path = folder.path().join("partials/sha256-1-1");
    let file = std::fs::File::create(&path).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, 8 * MIB as u64).unwrap();
    drop(file);
    let (other, outside) = (folder.path().join("partials/sha256-2-2"), folder.path().join("outside"));
    std::fs::write(&other, b"of yesterday").unwrap();
    let yesterday = SystemTime::now() - Duration::from_hours(24);
    std::fs::File::options().write(true).open(&other).unwrap().set_modified(yesterday).unwrap();
    std::fs::write(&outside, noise(MIB, 1)).unwrap();
    std::os::unix::fs::symlink(&outside, folder.path().join("partials/link")).unwrap();
    let blocks = || path.metadata().unwrap().blocks();
    assert!(blocks() > 0);
    drop(Store::open(Arc::new(OsDisk), folder.path()).unwrap());
    assert_eq!(blocks(), 0);
    assert_eq!(other.metadata().unwrap().modified().unwrap(), yesterday, "by which it is swept away");
    assert_eq!(outside.metadata().unwrap().len(), MIB as u64, "nothing of ours leads elsewhere");
}
