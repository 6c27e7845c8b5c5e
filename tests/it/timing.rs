//! When things happen: on a clock that the test turns, with scripted image servers and hosts at the ends of pipes.
//!
//! Files are written by threads that take real time, so a moment is asserted to be in a span and not on a point.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::support::script::{Play, Script};
use crate::support::stage::{Stage, request};
use crate::support::stream::{Stream, Version, noise};

/// The clock moves so much at a time.
const STEP: Duration = Duration::from_millis(20);
const PATH: &str = "images/noble/squashfs";
const FILE: &str = "far/images/noble/squashfs";

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Image servers that have an image whose root is of `len` bytes, and the root.
fn script(urls: usize, len: usize) -> (Arc<Script>, Vec<u8>) {
    let root = noise(len, 1);
    let version = Version::new("images/noble").file("squashfs", &root).metadata("lxd.tar.xz", b"metadata");
    let script = Script::new(urls);
    script.put(Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", version).tree());
    (script, root)
}

fn assert_between(actual: Duration, least: Duration, most: Duration) {
    assert!(actual >= least && actual <= most, "{actual:?} is not between {least:?} and {most:?}");
}

/// T11: a silent server costs its time-out once; the next one is asked, and after two failures it is asked last.
#[tokio::test(start_paused = true)]
async fn a_server_that_dies_in_the_middle_costs_its_silence_and_no_more() {
    let (script, root) = script(2, 1 << 20);
    script.play(0, PATH, [Play::SilentAt(300_000)]);
    let stage = Stage::start(&script, "", STEP).await;
    let got = stage.get(FILE).await;
    assert_eq!(got.body, root, "one body, of two halves");
    assert_between(got.answered, Duration::ZERO, seconds(2));
    assert_between(got.ended, seconds(15), seconds(18));
    let asked = script.asked(PATH);
    assert_eq!(asked.iter().map(|asked| (asked.url, asked.from)).collect::<Vec<_>>(), [(0, 0), (1, 300_000)]);
}

/// T11: when all are silent, the host is told in time; it gives up by itself after 30 s.
#[tokio::test(start_paused = true)]
async fn when_every_server_is_silent_a_host_hears_so_in_time() {
    let (script, _) = script(2, 1 << 10);
    let stage = Stage::start(&script, "", STEP).await;
    for url in 0..2 {
        script.play(url, PATH, [Play::Silent(seconds(15))]);
    }
    let got = stage.get(FILE).await;
    assert_eq!(got.status(), 504);
    assert_between(got.answered, seconds(20), seconds(22));
}

/// T12: what is silent in the middle is passed over, and gone back to when there is nobody else.
#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_again_and_again_is_asked_again_and_again() {
    let (script, root) = script(1, 1 << 20);
    script.play(0, PATH, [Play::SilentAt(300_000), Play::SilentAt(300_000), Play::SilentAt(300_000)]);
    let stage = Stage::start(&script, "", STEP).await;
    let got = stage.get(FILE).await;
    assert_eq!(got.body, root);
    assert_between(got.ended, seconds(45), seconds(52));
    assert_eq!(script.asked(PATH).iter().map(|asked| asked.from).collect::<Vec<_>>(), [0, 300_000, 600_000, 900_000]);
}

/// T13: five and a half hours, in and out. Nothing has an end but silence.
#[tokio::test(start_paused = true)]
async fn a_transfer_may_take_as_long_as_it_takes() {
    let (script, root) = script(1, 2_000_000);
    script.play(0, PATH, [Play::Slow(6000, seconds(60))]);
    let stage = Stage::start(&script, "[limits]\nsilence_timeout = \"5m\"", seconds(5)).await;
    let got = stage.get(FILE).await;
    assert_eq!(got.body, root);
    assert_between(got.ended, seconds(20_000), seconds(30_000));
    assert_eq!(script.asked(PATH).len(), 1, "in one piece");

    // Held by now, and read as slowly.
    let mut pipe = stage.connect();
    pipe.write_all(request(FILE).as_bytes()).await.unwrap();
    let (started, mut read, mut buffer) = (Instant::now(), Vec::new(), vec![0; 6000]);
    loop {
        match pipe.read(&mut buffer).await.unwrap() {
            0 => break,
            count => read.extend_from_slice(&buffer[..count]),
        }
        tokio::time::sleep(seconds(60)).await;
    }
    assert!(read.ends_with(&root) && started.elapsed() >= seconds(20_000));
}

/// T8, T9: a host that reads 10 kB a second slows neither the download nor anybody else, and whoever comes late has everything.
#[tokio::test(start_paused = true)]
async fn a_slow_host_slows_nobody() {
    let (script, root) = script(1, 4_000_000);
    script.play(0, PATH, [Play::Slow(40_000, Duration::from_millis(40))]);
    let stage = Stage::start(&script, "", STEP).await;
    let slow = async {
        let mut pipe = stage.connect();
        pipe.write_all(request(FILE).as_bytes()).await.unwrap();
        let (mut read, mut buffer) = (Vec::new(), vec![0; 10_000]);
        loop {
            match pipe.read(&mut buffer).await.unwrap() {
                0 => return read,
                count => read.extend_from_slice(&buffer[..count]),
            }
            tokio::time::sleep(seconds(1)).await;
        }
    };
    let quick = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        join_all((0..8).map(|_| stage.get(FILE))).await
    };
    let (slow, quick) = tokio::join!(slow, quick);
    for got in quick {
        assert_eq!(got.body, root);
        assert_between(got.answered, Duration::ZERO, seconds(1));
        // Upstream needs 4 s at this pace, and began half a second before.
        assert_between(got.ended, seconds(3), seconds(8));
    }
    assert!(slow.ends_with(&root), "and it gets everything");
    assert_eq!(script.asked(PATH).len(), 1);
}

/// T14, T17: what a server asks for is done; then one request tries it, and the others stay where they are.
#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_time_is_tried_by_one_when_the_time_is_over() {
    let names: Vec<String> = (0..8).map(|number| format!("images/{number}")).collect();
    let script = Script::new(2);
    let stream = names.iter().enumerate().fold(Stream::default(), |stream, (number, name)| {
        let version = Version::new(name).file("squashfs", &noise(1000, number as u64)).metadata("lxd.tar.xz", name.as_bytes());
        stream.add(&format!("ubuntu:{number}:amd64"), &number.to_string(), "20260101", version)
    });
    script.put(stream.tree());
    let stage = Stage::start(&script, "", STEP).await;
    let file = |number: usize| format!("{}/squashfs", names[number]);
    let url_of_first = |number: usize| script.asked(&file(number))[0].url;
    script.play(0, &file(0), [Play::status(429, Some(seconds(100)))]);
    assert_eq!(stage.get(&format!("far/{}", file(0))).await.status(), 200, "the other URL has it");
    let [first, second] =
        ["far\",url=\"script://0\"}", "far\",url=\"script://1\"}"].map(|series| format!("cistern_upstream_url_healthy{{remote=\"{series}"));
    assert!(stage.metric(&first) < 0.5 && stage.metric(&second) > 0.5);
    tokio::time::sleep(seconds(90)).await;
    stage.get(&format!("far/{}", file(1))).await;
    assert_eq!(url_of_first(1), 1, "it is left alone");
    tokio::time::sleep(seconds(20)).await;
    // It may be back; whoever tries it does not know for a while.
    for number in 2..8 {
        script.play(0, &file(number), [Play::Slow(10, seconds(1))]);
    }
    let paths: Vec<String> = (2..8).map(|number| format!("far/{}", file(number))).collect();
    join_all(paths.iter().map(|path| stage.get(path))).await;
    let tried = (2..8).filter(|number| url_of_first(*number) == 0).count();
    assert_eq!(tried, 1, "one request finds out");
    assert!(stage.metric(&first) > 0.5, "it is back");
}

/// T17: nobody asks a server that only stands in for another, and what is shown of it has to be true all the same.
#[tokio::test(start_paused = true)]
async fn a_server_that_failed_in_anothers_place_is_tried_although_nobody_needs_it() {
    let (script, _) = script(2, 1000);
    let stage = Stage::start(&script, "", STEP).await;
    let metadata = "images/noble/metadata.tar.xz";
    for path in [PATH, metadata] {
        script.play(0, path, [Play::status(404, None)]);
        script.play(1, path, [Play::status(500, None)]);
    }
    for path in [FILE, "far/images/noble/metadata.tar.xz"] {
        assert_eq!(stage.get(path).await.status(), 502);
    }
    let health = |url: usize| stage.metric(&format!("cistern_upstream_url_healthy{{remote=\"far\",url=\"script://{url}\"}}"));
    assert!(health(0) > 0.5 && health(1) < 0.5);
    tokio::time::sleep(seconds(70)).await;
    assert!(health(1) > 0.5, "it is back");
    let asked = script.asked("streams/v1/index.json");
    assert_eq!(asked.iter().filter(|asked| asked.url == 1).count(), 1, "it was asked once");
}

/// T17: one failure is no verdict.
#[tokio::test(start_paused = true)]
async fn a_server_that_failed_once_is_asked_first_again() {
    let (script, root) = script(2, 1000);
    script.play(0, PATH, [Play::CutAt(0)]);
    let stage = Stage::start(&script, "", STEP).await;
    assert_eq!(stage.get(FILE).await.body, root);
    assert_eq!(stage.get("far/images/noble/metadata.tar.xz").await.status(), 200);
    assert_eq!(script.asked("images/noble/metadata.tar.xz")[0].url, 0);
}

/// T16: that a file is gone is remembered for a minute; that a server is in trouble, never.
#[tokio::test(start_paused = true)]
async fn gone_is_remembered_for_a_minute_and_trouble_not_at_all() {
    let (script, root) = script(1, 1000);
    let stage = Stage::start(&script, "", STEP).await;
    script.play(0, PATH, [Play::status(503, None), Play::status(500, None), Play::Silent(seconds(15)), Play::status(404, None)]);
    assert_eq!(stage.get(FILE).await.status(), 502);
    assert_eq!(stage.get(FILE).await.status(), 502);
    assert_eq!(stage.get(FILE).await.status(), 504);
    assert_eq!(script.asked(PATH).len(), 3, "each of them asked");
    assert_eq!(stage.get(FILE).await.status(), 404);
    let asked = script.asked(PATH).len();
    tokio::time::sleep(seconds(50)).await;
    assert_eq!(stage.get(FILE).await.status(), 404);
    assert_eq!(script.asked(PATH).len(), asked, "that was said without asking");
    tokio::time::sleep(seconds(12)).await;
    assert_eq!(stage.get(FILE).await.body, root);
}

/// A download that broke off in the middle is tried again for a while, since its hosts cannot go on where they stopped.
#[tokio::test(start_paused = true)]
async fn a_broken_download_is_given_up_after_its_rounds() {
    let (script, root) = script(1, 1 << 20);
    let trouble = std::iter::repeat_n(Play::status(503, None), 20);
    script.play(0, PATH, [Play::CutAt(300_000)].into_iter().chain(trouble));
    let stage = Stage::start(&script, "", STEP).await;
    let got = stage.get(FILE).await;
    assert!(got.body == root[..got.body.len()] && !got.is_whole(), "cut, and nothing wrong in it");
    // 0 + 1/4 + 1/2 + 1 + 2 + 4 s
    assert_between(got.ended, Duration::from_millis(7750), seconds(9));
    assert_eq!(script.asked(PATH).len(), 7, "limits.resume_rounds is 5");
}

/// T6: hosts that leave before the first byte leave nothing behind.
#[tokio::test(start_paused = true)]
async fn ten_thousand_hosts_that_leave_while_they_wait_leave_nothing_behind() {
    let (script, root) = script(1, 1000);
    let stage = Stage::start(&script, "", STEP).await;
    script.play(0, PATH, [Play::Silent(seconds(15))]);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let mut first = stage.connect();
    first.write_all(request(FILE).as_bytes()).await.unwrap();
    stage.until(async || script.asked(PATH).len() == 1).await;
    drop(first);
    for _ in 0..100 {
        let pipes = join_all((0..100).map(async |_| {
            let mut pipe = stage.connect();
            pipe.write_all(request(FILE).as_bytes()).await.unwrap();
            pipe
        }));
        drop(pipes.await);
    }
    assert_eq!(script.asked(PATH).len(), 1, "for all of them together");
    stage.until(async || stage.metric("cistern_fetch_readers") == 0.0 && stage.metric("cistern_fetches_in_flight") == 0.0).await;
    stage.until(async || tasks() <= before).await;
    assert_eq!(stage.get(FILE).await.body, root, "and the next one is served");
}

/// A host that connects and says nothing, or too little, is let go.
#[tokio::test(start_paused = true)]
async fn a_host_that_says_nothing_is_let_go_after_the_header_timeout() {
    let (script, _) = script(1, 1000);
    let stage = Stage::start(&script, "", STEP).await;
    for beginning in ["", "G", "GET /far/images/noble/squashfs HTTP/1.1\r\nHost: x\r\n"] {
        let (mut pipe, started) = (stage.connect(), Instant::now());
        pipe.write_all(beginning.as_bytes()).await.unwrap();
        pipe.read_to_end(&mut Vec::new()).await.unwrap();
        assert_between(started.elapsed(), seconds(15), seconds(17));
    }
    let mut pipe = stage.connect();
    pipe.write_all(b"GET /far/images/noble/squashfs HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let (started, mut answer) = (Instant::now(), Vec::new());
    pipe.read_to_end(&mut answer).await.unwrap();
    assert_between(started.elapsed(), seconds(15), seconds(17));
    assert!(answer.starts_with(b"HTTP/1.1 200"), "kept open for another request until then");
}

/// T33: documents are asked for at the interval, less a tenth by chance; and sooner, ever later, while that fails.
#[tokio::test(start_paused = true)]
async fn documents_are_asked_for_at_the_interval_and_sooner_after_failures() {
    const INDEX: &str = "streams/v1/index.json";
    let (script, _) = script(1, 1000);
    let stage = Stage::start(&script, "interval = \"1h\"\n", seconds(1)).await;
    script.play(0, INDEX, [Play::Well, Play::status(503, None), Play::status(503, None), Play::Well]);
    stage.until(async || script.asked(INDEX).len() == 6).await;
    let times: Vec<Instant> = script.asked(INDEX).iter().map(|asked| asked.at).collect();
    let waits: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (wait, full) in waits.iter().zip([3600, 3600, 60, 120, 3600]) {
        assert_between(*wait, seconds(full * 9 / 10), seconds(full + 60));
    }
}

/// T14: where there is no other URL, nobody is asked before the time is over; hosts are told how long that is.
#[tokio::test(start_paused = true)]
async fn when_every_server_asks_for_time_hosts_are_told_and_nobody_is_asked() {
    let (script, root) = script(2, 1000);
    let stage = Stage::start(&script, "", STEP).await;
    for url in 0..2 {
        script.play(url, PATH, [Play::status(503, Some(seconds(100 + url as u64)))]);
    }
    assert_eq!(stage.get(FILE).await.status(), 503);
    tokio::time::sleep(seconds(50)).await;
    let got = stage.get(FILE).await;
    let wait: u64 = got.head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap().parse().unwrap();
    assert!(got.status() == 503 && (40..=50).contains(&wait), "{}", got.head);
    assert_eq!(script.asked(PATH).len(), 2);
    tokio::time::sleep(seconds(51)).await;
    assert_eq!(stage.get(FILE).await.body, root);
}
