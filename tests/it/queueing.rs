//! What waits in memory has a bound, and is found out here: whoever brings more waits, or is told no more than fits.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cistern::api::Step;
use cistern::cache::lease::Lent;
use cistern::cache::{self, Cache};
use cistern::clock::SystemClock;
use cistern::database::{Database, Found};
use cistern::digest::{Claim, Digest, Expected};
use cistern::disk::{Disk, OsDisk};
use cistern::ledger::Ledger;
use cistern::ledger::account::Limits;
use cistern::ledger::change::Change;
use cistern::metrics::Metrics;
use cistern::publish::Publisher;
use cistern::retention::Rules;
use cistern::store::Store;
use futures_util::future::join_all;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::support::faulty::{Call, FaultyDisk};
use crate::support::mirror::{Builder, wait_for};
use crate::support::origin::Origin;
use crate::support::script::{Play, Script};
use crate::support::stage::Stage;
use crate::support::stream::{Stream, Version, noise};

/// A step of the clock on a stage.
const STEP: Duration = Duration::from_millis(20);

/// A cache over an empty store.
pub fn cache(folder: &tempfile::TempDir) -> Arc<Cache> {
    cache_on(OsDisk, folder)
}

/// The same on another disk.
pub fn cache_on(disk: impl Disk, folder: &tempfile::TempDir) -> Arc<Cache> {
    let store = Arc::new(Store::open(Arc::new(disk), folder.path()).unwrap());
    let day = Duration::from_hours(24);
    let rules = Rules { auto_update: true, auto_update_cached: true, hold_back_max: day, idle: Some(10 * day), grace: day };
    let options = cache::Options {
        limits: Limits { capacity_bytes: 1 << 30, min_free_bytes: 0 },
        open_files: 16,
        retry_gone: day,
        retry_wrong: day,
        rules,
    };
    Arc::new(Cache::new(store, Ledger::default(), &options, Arc::new(SystemClock), Arc::new(Metrics::new())))
}

/// What a document claims of a file with these bytes.
pub fn expected(bytes: &[u8]) -> Expected {
    Expected { claim: Claim::Sha256(Digest::of(bytes)), size: Some(bytes.len() as u64) }
}

/// Brings a file into the store, as a download does.
pub fn commit(cache: &Cache, bytes: &[u8]) -> Lent {
    let mut partial = cache.store().partial(expected(bytes)).unwrap();
    partial.append(bytes).unwrap();
    cache.commit(&Arc::from("lab"), expected(bytes), partial.verify().unwrap()).unwrap()
}

/// Batches for a file: four of them, one that is written, one that waits to be the fifth, and one that is gathered.
#[tokio::test(start_paused = true)]
async fn upstream_is_read_no_faster_than_the_disk_writes() {
    const PIECE: usize = 64 << 10;
    const MOST: usize = 7 * (256 << 10);
    let root = noise(16 << 20, 1);
    let script = Script::new(1);
    let version = Version::new("images/noble").file("squashfs", &root).metadata("lxd.tar.xz", b"metadata");
    script.put(Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", version).tree());
    let disk = FaultyDisk::over(OsDisk);
    let stage = Stage::start_on(Arc::new(disk.clone()), &script, "", STEP).await;
    script.play(0, "images/noble/squashfs", [Play::InPieces(PIECE)]);
    disk.heal();
    let before = script.sent();
    disk.delay(Call::Write, Duration::from_millis(1));
    let ahead = || (script.sent() - before).saturating_sub(disk.counts().get(&Call::Write).copied().unwrap_or_default() * PIECE);
    let most_ahead = async {
        let mut most = 0;
        loop {
            most = most.max(ahead());
            tokio::task::yield_now().await;
            if script.sent() - before == root.len() {
                return most;
            }
        }
    };
    let (got, most_ahead) = tokio::join!(stage.get("far/images/noble/squashfs"), most_ahead);
    assert_eq!(got.body, root);
    assert!(most_ahead > 4 * (256 << 10) && most_ahead <= MOST, "{most_ahead} bytes waited");
}

/// Pieces of an import: a command sends no faster than the disk writes.
#[tokio::test]
async fn a_command_sends_no_faster_than_the_disk_writes() {
    let (origin, disk) = (Origin::start().await, FaultyDisk::over(OsDisk));
    let mirror = Builder::default().disk(disk.clone()).remote("lab", &[origin.url()], "").start_without_waiting().await;
    disk.delay(Call::Write, Duration::from_secs(1));
    let bytes = noise(64 << 20, 3);
    let mut socket = UnixStream::connect(mirror.socket()).await.unwrap();
    let head = format!(
        "POST /1.0/imports?file={}:{}:image&alias=x HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        Digest::of(&bytes),
        bytes.len(),
        bytes.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut sent = 0;
    // A piece is written each second, and what is sent beside that is what waits.
    while let Ok(Ok(count)) = tokio::time::timeout(Duration::from_millis(300), socket.write(&bytes[sent..])).await {
        sent += count;
    }
    assert!(sent > 0 && sent < 8 << 20, "{sent} bytes were taken");
}

/// Steps that people are told: what is repaired waits for whoever wants to hear of it.
#[tokio::test]
async fn a_command_that_does_not_listen_holds_up_its_own_work_and_nothing_grows() {
    const BROKEN: usize = 12_000;
    let origin = Origin::start().await;
    let mirror = Builder::default().remote("lab", &[origin.url()], "").start_without_waiting().await;
    for number in 0..BROKEN {
        let name = Digest::of(&number.to_le_bytes()).to_string();
        std::fs::write(mirror.store().join("blobs/sha256").join(&name[..2]).join(&name), b"x").unwrap();
    }
    let mut socket = UnixStream::connect(mirror.socket()).await.unwrap();
    let request = "POST /1.0/cache/verify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 15\r\n\r\n{\"repair\":true}";
    socket.write_all(request.as_bytes()).await.unwrap();
    // It stops: 64 steps wait, and what fits into the socket.
    wait_for(async || mirror.files("blobs").len() < BROKEN).await;
    let mut before = usize::MAX;
    while mirror.files("blobs").len() < before {
        before = mirror.files("blobs").len();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(before > 0 && before < BROKEN, "{before} of {BROKEN} are left");
    let (mut lines, mut told, mut last) = (BufReader::new(socket).lines(), 0, None);
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Step::Note { .. }) => told += 1,
            Ok(step @ Step::Done { .. }) => last = Some(step),
            _ => {}
        }
    }
    assert_eq!((told, last.is_some(), mirror.files("blobs").len()), (BROKEN, true, 0), "then it goes on, and says everything");
}

/// What the publisher is told: whoever brings more than 64 changes waits, and nobody is forgotten.
#[tokio::test]
async fn more_changes_than_the_publisher_can_be_told_wait_and_all_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder);
    let (publisher, task) = Publisher::new(Arc::clone(&cache), Arc::new(Metrics::new()), Vec::new());
    let reviews = tokio::spawn(join_all((0..300).map({
        let publisher = publisher.clone();
        move |_| {
            let publisher = publisher.clone();
            async move { publisher.review(Arc::from("lab")).await }
        }
    })));
    tokio::task::yield_now().await;
    assert!(!reviews.is_finished());
    let task = tokio::spawn(task);
    assert!(reviews.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(*publisher.generations().borrow(), 300);
    task.abort();
}

/// Batches for the database: whoever brings more than four waits, and all are written.
#[tokio::test]
async fn more_batches_than_the_database_takes_at_once_wait_and_all_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let (database, _) = Database::open(&OsDisk, &path).unwrap();
    // Somebody looks into the file meanwhile.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let blob = |number: u64| Digest::of(&number.to_le_bytes());
    let batches = join_all((0..50).map(|number| database.write(vec![Change::Blob(blob(number), number, now)])));
    let (written, ()) = tokio::join!(batches, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        other.execute_batch("COMMIT").unwrap();
    });
    assert_eq!(written.iter().filter(|batch| batch.is_err()).count(), 0, "{written:?}");
    database.close().await;
    let (database, found) = Database::open(&OsDisk, &path).unwrap();
    let Found::Ledger(ledger) = found else { panic!("{found:?}") };
    assert_eq!(ledger.blobs().map(|(_, held)| held.size).sum::<u64>(), (0..50).sum::<u64>());
    database.close().await;
}

/// What comes and goes, while nobody reads of it: no download waits, and whoever reads knows that there is more.
#[tokio::test]
async fn a_commit_waits_for_nobody_who_reads_of_it() {
    const FILES: usize = 4100;
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder);
    for number in 0..FILES as u64 {
        let bytes = number.to_le_bytes();
        drop(commit(&cache, &bytes));
        assert!(cache.find(expected(&bytes)).await.unwrap().is_some(), "{number}");
    }
    let unread = cache.news().read().await;
    assert_eq!((unread.files.len(), unread.is_more), (4096, true));
}

/// Files that turned out to be gone: a refresh that is under way is not told of each, and hosts do not wait for it.
#[tokio::test(start_paused = true)]
async fn very_many_files_that_are_gone_ask_for_one_refresh() {
    const FILES: usize = 200;
    let script = Script::new(1);
    let stream = (0..FILES).fold(Stream::default(), |stream, number| {
        let version = Version::new(&format!("i/{number}")).file("squashfs", &noise(100, number as u64)).metadata("lxd.tar.xz", b"m");
        stream.add(&format!("os:{number}:amd64"), &number.to_string(), "20260101", version)
    });
    script.put(stream.documents());
    let stage = Stage::start(&script, "[limits]\nclient_fetches = 200\nfetches = 200\n", STEP).await;
    let index = "streams/v1/index.json";
    let before = script.asked(index).len();
    tokio::time::sleep(Duration::from_mins(5)).await;
    script.play(0, index, [Play::Silent(Duration::from_secs(10))]);
    let paths: Vec<String> = (0..FILES).map(|number| format!("far/i/{number}/squashfs")).collect();
    for got in join_all(paths.iter().map(|path| stage.get(path))).await {
        assert_eq!(got.status(), 404);
        assert!(got.answered < Duration::from_secs(5), "{:?}", got.answered);
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(script.asked(index).len() - before, 1);
}

/// Lines of the access log: if nobody reads them they are lost, and no host waits.
#[tokio::test]
async fn an_access_log_that_nobody_reads_holds_nobody_up() {
    const REQUESTS: usize = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nplain_http = \"all\"\nmetrics = \"127.0.0.1:0\"\nadmin_socket = \"{path}/admin.sock\"\n\
         [storage]\npath = \"{path}/store\"\n[log]\naccess = \"combined\"\n[remotes.site]\nurl = []\nmode = \"offline\"\n"
    );
    std::fs::write(folder.path().join("cistern.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cistern"));
    command.args(["serve", "--config", &format!("{path}/cistern.toml")]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = Killed(command.spawn().unwrap());
    let mut log = std::io::BufReader::new(server.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"listening\"") {
        line.clear();
        std::io::BufRead::read_line(&mut log, &mut line).unwrap();
    }
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let mut stream = tokio::net::TcpStream::connect(line["fields"]["addresses"].as_str().unwrap()).await.unwrap();
    let started = Instant::now();
    let mut answer = vec![0; 64 << 10];
    for _ in 0..REQUESTS / 100 {
        stream.write_all("HEAD /nothing HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100).as_bytes()).await.unwrap();
        let mut answers = 0;
        while answers < 100 {
            let count = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer)).await.expect("it answers").unwrap();
            assert!(count > 0, "it goes on answering");
            answers += String::from_utf8_lossy(&answer[..count]).matches("HTTP/1.1 404").count();
        }
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    rustix::process::kill_process(rustix::process::Pid::from_child(&server.0), rustix::process::Signal::TERM).unwrap();
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    server.0.wait().unwrap();
    assert!(rest.contains("lines of the access log were lost"), "{rest}");
}

/// A program that is killed when its test ends, however that ends.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
