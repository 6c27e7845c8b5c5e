//! The store is looked through while hosts are served: what its database did not know of, and what is not there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cistern::digest::{Claim, Digest, Expected};
use cistern::disk::OsDisk;
use cistern::store::layout::Layout;

use crate::deeds::{held, is_counted};
use crate::managing::{done, failed, typed};
use crate::support::faulty::{Call, Fault, FaultyDisk};
use crate::support::mirror::{Builder, Mirror, wait_for};
use crate::support::origin::Origin;
use crate::support::stream::{Stream, Version, noise};

const SIZE: usize = 200_000;

fn stream() -> Stream {
    (0..3).fold(Stream::default(), |stream, number| {
        let folder = number.to_string();
        let version =
            Version::new(&folder).file("squashfs", &noise(SIZE, number)).metadata("lxd.tar.xz", format!("metadata {number}").as_bytes());
        stream.add(&format!("busy:{number}:amd64"), &format!("a{number}"), "20260101", version)
    })
}

/// A mirror that holds the images `0` and `1`, stopped, and started again on a disk that does not say which blobs there are.
async fn started_blind(capacity: usize, mode: &str, between: impl FnOnce(&Path)) -> (Origin, Mirror, FaultyDisk) {
    let origin = Origin::start().await;
    origin.put(stream().tree());
    let builder = Builder::default().storage(&format!("capacity = \"{capacity}B\"\nmin_free = \"0%\""));
    let mut mirror = builder.remote("lab", &[origin.url()], "mode = \"proxy\"").start().await;
    for file in ["0/squashfs", "0/metadata.tar.xz", "1/squashfs", "1/metadata.tar.xz"] {
        mirror.body(&format!("lab/{file}")).await;
    }
    wait_for(async || held(&mirror).await.len() == 2).await;
    mirror.reload(|config| config.replace("proxy", mode)).await;
    let disk = FaultyDisk::over(OsDisk);
    disk.hang(Call::BlobNames);
    (origin, mirror.restart_on(disk.clone(), between).await, disk)
}

/// Where a blob is in a store.
fn blob(store: &Path, bytes: &[u8]) -> PathBuf {
    let name = Digest::of(bytes).to_string();
    store.join("blobs/sha256").join(&name[..2]).join(name)
}

fn metadata(number: u64) -> Vec<u8> {
    format!("metadata {number}").into_bytes()
}

async fn products(mirror: &Mirror) -> Vec<String> {
    let document = mirror.json("lab/streams/v1/images.json").await;
    document["products"].as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn hosts_are_served_before_the_store_is_looked_through() {
    let (_origin, mirror, disk) = started_blind(1 << 30, "proxy", |_| ()).await;
    wait_for(async || disk.hung() > 0).await;
    assert_eq!(mirror.body("lab/0/squashfs").await, noise(SIZE, 0));
    assert!(mirror.is_hit("lab/1/squashfs").await);
    assert_eq!(held(&mirror).await.len(), 2);
    disk.heal();
}

/// A file that nobody counts yet takes room all the same.
#[tokio::test]
async fn nobody_is_promised_room_before_all_that_lies_there_is_counted() {
    let capacity = 3 * SIZE + 1000;
    let (_origin, mirror, disk) = started_blind(capacity, "proxy", |store| {
        std::fs::write(blob(store, &noise(SIZE, 9)), noise(SIZE, 9)).unwrap();
    })
    .await;
    let early = tokio::time::timeout(Duration::from_millis(500), mirror.get("lab/2/squashfs")).await;
    assert!(early.is_err(), "it waits for room, and upstream for it");
    assert_eq!(mirror.body("lab/2/squashfs").await, noise(SIZE, 2), "and not for ever");
    assert!(!blob(&mirror.store(), &noise(SIZE, 2)).exists(), "it went through memory");
    disk.heal();
    wait_for(async || is_counted(&mirror).await.is_ok()).await;
    assert_eq!(mirror.body("lab/2/squashfs").await, noise(SIZE, 2));
    wait_for(async || blob(&mirror.store(), &noise(SIZE, 2)).exists()).await;
    let stored: u64 = mirror.files("blobs").iter().map(|name| mirror.store().join("blobs").join(name).metadata().unwrap().len()).sum();
    assert!(stored <= capacity as u64, "{stored}");
}

/// What is lost because of the disk comes again, also if a folder cannot be seen.
#[tokio::test]
async fn what_is_not_there_is_held_no_more_and_is_fetched_again() {
    let (origin, mirror, disk) = started_blind(1 << 30, "proxy", |store| std::fs::remove_file(blob(store, &noise(SIZE, 1))).unwrap()).await;
    let asked = || origin.requests("1/squashfs").len();
    assert_eq!((held(&mirror).await.len(), asked()), (2, 1), "nobody has looked yet");
    assert!(!blob(Path::new(""), &noise(SIZE, 1)).starts_with("blobs/sha256/00"));
    disk.fail(Call::BlobNames, 0, Fault::Broken);
    wait_for(async || asked() == 2 && held(&mirror).await.len() == 2 && is_counted(&mirror).await.is_ok()).await;
    assert!(disk.has_failed());
    assert!(mirror.is_hit("lab/1/squashfs").await);
}

/// It left the store and its record went; then the program was killed before the database heard of it.
#[tokio::test]
async fn what_was_let_go_is_not_fetched_again() {
    let (origin, mirror, disk) = started_blind(1 << 30, "proxy", |store| {
        [noise(SIZE, 1), metadata(1)].iter().for_each(|bytes| std::fs::remove_file(blob(store, bytes)).unwrap());
        for record in std::fs::read_dir(store.join("records")).unwrap().map(|entry| entry.unwrap().path()) {
            if std::fs::read_to_string(&record).unwrap().contains("busy:1:amd64") {
                std::fs::remove_file(record).unwrap();
            }
        }
    })
    .await;
    disk.heal();
    wait_for(async || held(&mirror).await.len() == 1 && is_counted(&mirror).await.is_ok()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = ["1/squashfs", "1/metadata.tar.xz"].map(|file| origin.requests(file).len());
    assert_eq!((asked, held(&mirror).await.len()), ([1, 1], 1));
}

/// Nothing that was held went, and there is more.
#[tokio::test]
async fn an_offline_remote_lists_what_somebody_put_there() {
    let (_origin, mirror, disk) = started_blind(1 << 30, "offline", |store| {
        [noise(SIZE, 2), metadata(2)].iter().for_each(|bytes| std::fs::write(blob(store, bytes), bytes).unwrap());
    })
    .await;
    disk.heal();
    wait_for(async || products(&mirror).await == ["busy:0:amd64", "busy:1:amd64", "busy:2:amd64"]).await;
    wait_for(async || held(&mirror).await.len() == 3).await;
}

/// As many files as before, and others.
#[tokio::test]
async fn an_offline_remote_lists_what_is_there_when_all_was_looked_through() {
    let (_origin, mirror, disk) = started_blind(1 << 30, "offline", |store| {
        [noise(SIZE, 1), metadata(1)].iter().for_each(|bytes| std::fs::remove_file(blob(store, bytes)).unwrap());
        [noise(SIZE, 2), metadata(2)].iter().for_each(|bytes| std::fs::write(blob(store, bytes), bytes).unwrap());
    })
    .await;
    assert_eq!(products(&mirror).await, ["busy:0:amd64", "busy:1:amd64"], "nobody has looked yet");
    disk.heal();
    wait_for(async || products(&mirror).await == ["busy:0:amd64", "busy:2:amd64"]).await;
    assert_eq!(mirror.body("lab/2/squashfs").await, noise(SIZE, 2));
    wait_for(async || held(&mirror).await.len() == 2).await;
}

/// A person copied it, and neither its record nor all of its files are there.
#[tokio::test]
async fn what_a_person_copied_is_fetched_again_also_without_its_record() {
    let origin = Origin::start().await;
    origin.put(stream().tree());
    let mirror = Builder::default().storage("min_free = \"0%\"").remote("lab", &[origin.url()], "").start().await;
    done(&mirror, &["image", "copy", "lab:a1", "--arch", "amd64"]).await;
    let mirror = mirror
        .restart_after_in_store(|store| {
            std::fs::remove_dir_all(store.join("records")).unwrap();
            std::fs::remove_file(blob(store, &noise(SIZE, 1))).unwrap();
        })
        .await;
    wait_for(async || held(&mirror).await.len() == 1 && is_counted(&mirror).await.is_ok()).await;
    assert_eq!(origin.requests("1/squashfs").len(), 2);
}

/// What somebody put there is more than may be.
#[tokio::test]
async fn what_is_too_much_goes_soon_after_it_is_counted() {
    let capacity = 3 * SIZE;
    let (_origin, mirror, disk) = started_blind(capacity, "proxy", |store| {
        (10..14).for_each(|number| std::fs::write(blob(store, &noise(SIZE, number)), noise(SIZE, number)).unwrap());
    })
    .await;
    disk.heal();
    wait_for(async || is_counted(&mirror).await.is_ok() && mirror.files("blobs").len() < 7).await;
}

#[tokio::test]
async fn what_is_in_the_place_of_folders_does_not_keep_it_from_starting() {
    let (_origin, mirror, disk) = started_blind(1 << 30, "proxy", |store| {
        let folders = store.join("blobs/sha256");
        let mut empty =
            (0..=u8::MAX).map(|first| folders.join(format!("{first:02x}"))).filter(|folder| std::fs::remove_dir(folder).is_ok());
        let [_gone, file, link] = [(); 3].map(|()| empty.next().unwrap());
        std::fs::write(file, b"").unwrap();
        std::os::unix::fs::symlink("nowhere", link).unwrap();
    })
    .await;
    disk.heal();
    assert_eq!(mirror.body("lab/0/squashfs").await, noise(SIZE, 0));
    assert_eq!(mirror.body("lab/2/squashfs").await, noise(SIZE, 2));
}

/// What a download left is worth most while nobody can say whether there is room for the rest.
#[tokio::test]
async fn what_a_download_left_stays_while_nobody_knows_how_much_room_there_is() {
    let (origin, mirror, disk) = started_blind(1 << 30, "proxy", |store| {
        let expected = Expected { claim: Claim::Sha256(Digest::of(&noise(SIZE, 2))), size: Some(SIZE as u64) };
        std::fs::write(Layout::new(store).partial(expected), &noise(SIZE, 2)[..SIZE / 2]).unwrap();
    })
    .await;
    let is_range = |request: usize| origin.requests("2/squashfs")[request].head.to_lowercase().contains("\r\nrange: ");
    assert_eq!(mirror.body("lab/2/squashfs").await, noise(SIZE, 2), "it went through memory");
    assert!(is_range(0), "and the first half out of the file");
    assert_eq!(mirror.files("partials").len(), 1);
    disk.heal();
    wait_for(async || mirror.body("lab/2/squashfs").await == noise(SIZE, 2) && blob(&mirror.store(), &noise(SIZE, 2)).exists()).await;
    assert!(is_range(origin.requests("2/squashfs").len() - 1));
}

/// What is damaged is not gone on with for ever.
#[tokio::test]
async fn what_a_download_left_goes_if_it_is_wrong() {
    let (origin, mirror, disk) = started_blind(1 << 30, "proxy", |store| {
        let expected = Expected { claim: Claim::Sha256(Digest::of(&noise(SIZE, 2))), size: Some(SIZE as u64) };
        std::fs::write(Layout::new(store).partial(expected), noise(SIZE / 2, 7)).unwrap();
    })
    .await;
    assert!(mirror.get_whole("lab/2/squashfs".to_owned()).await.is_none_or(|bytes| bytes != noise(SIZE, 2)));
    wait_for(async || mirror.files("partials").is_empty()).await;
    assert_eq!(mirror.body("lab/2/squashfs").await, noise(SIZE, 2));
    assert_eq!(origin.requests("2/squashfs").len(), 2);
    disk.heal();
    wait_for(async || is_counted(&mirror).await.is_ok()).await;
}

/// A command is told that it is to come again, and is not kept waiting for as long as a disk may take.
#[tokio::test]
async fn an_import_is_told_that_all_is_still_being_counted() {
    let (_origin, mirror, disk) = started_blind(1 << 30, "proxy", |_| ()).await;
    let folder = tempfile::tempdir().unwrap();
    let (meta, root) = (folder.path().join("meta"), folder.path().join("root"));
    std::fs::write(&meta, crate::publishing::metadata_xz()).unwrap();
    std::fs::write(&root, crate::publishing::squashfs()).unwrap();
    let (code, said) = failed(&mirror, &["image", "import", meta.to_str().unwrap(), root.to_str().unwrap()]).await;
    assert!(code == 75 && said.contains("looked through"), "{code} {said}");
    disk.heal();
}

/// Nobody is in a hurry: there may be room, and nobody can say so yet.
#[tokio::test]
async fn what_no_host_waits_for_waits_until_all_is_counted() {
    let (origin, mirror, disk) = started_blind(1 << 30, "mirror", |_| ()).await;
    let copying = typed(&mirror, &["image", "copy", "lab:a2", "--arch", "amd64"], "");
    let ((code, _, said), ()) = tokio::join!(copying, async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(origin.requests("2/squashfs").len(), 0);
        disk.heal();
    });
    assert_eq!(code, 0, "{said}");
    wait_for(async || held(&mirror).await.len() == 3).await;
    assert_eq!(origin.requests("2/squashfs").len(), 1);
}
