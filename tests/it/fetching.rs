//! Files that are not held: one fetch for all, whatever upstream, the disk and the hosts do meanwhile.

use std::time::{Duration, Instant};

use cistern::disk::OsDisk;

use crate::support::disk::FullDisk;
use crate::support::faulty::{Call, FaultyDisk};
use crate::support::mirror::{Builder, Mirror, wait_for};
use crate::support::origin::{Act, Origin, header};
use crate::support::proxy::{Break, Proxy};
use crate::support::stream::{Stream, Version, noise};

const FILE: &str = "images/noble/squashfs";
const SIZE: usize = 900_000;
const QUICK: &str =
    "[limits]\nanswer_timeout = \"800ms\"\nsilence_timeout = \"400ms\"\nresume_rounds = 1\nretry_wrong = \"500ms\"\nretry_gone = \"500ms\"";

struct Setting {
    origins: Vec<Origin>,
    mirror: Mirror,
    file: Vec<u8>,
}

impl Setting {
    /// A mirror of so many equal servers, which gives up quickly.
    async fn with_urls(count: usize, builder: Builder) -> Self {
        let file = noise(SIZE, 5);
        let version = Version::new("images/noble").file("squashfs", &file).metadata("lxd.tar.xz", b"metadata");
        let tree = Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", version).tree();
        let mut origins = Vec::new();
        for _ in 0..count {
            let origin = Origin::start().await;
            origin.put(tree.clone());
            origins.push(origin);
        }
        let urls: Vec<String> = origins.iter().map(Origin::url).collect();
        let mirror = builder.section(QUICK).remote("ubuntu", &urls, "").start().await;
        Self { origins, mirror, file }
    }

    async fn one() -> Self {
        Self::with_urls(1, Builder::default()).await
    }

    async fn get(&self) -> reqwest::Response {
        self.mirror.get(&format!("ubuntu/{FILE}")).await
    }

    async fn whole(&self) -> bool {
        self.get().await.bytes().await.is_ok_and(|bytes| bytes == self.file)
    }

    fn requests(&self, origin: usize) -> usize {
        self.origins[origin].requests(FILE).len()
    }

    async fn is_held(&self) {
        wait_for(async || self.mirror.files("blobs").len() == 1).await;
    }
}

async fn received(mut response: reqwest::Response) -> (usize, bool) {
    let mut len = 0;
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => len += chunk.len(),
            Ok(None) => return (len, true),
            Err(_) => return (len, false),
        }
    }
}

/// T3, T8
#[tokio::test]
async fn a_herd_makes_one_request_and_nobody_waits_for_the_end() {
    let setting = Setting::one().await;
    setting.origins[0].act(FILE, [Act::Dribble(SIZE / 20, Duration::from_millis(50))]);
    let started = Instant::now();
    let hosts = (0..64).map(|_| async {
        let mut response = setting.get().await;
        let mut bytes = response.chunk().await.unwrap().unwrap().to_vec();
        let first = started.elapsed();
        while let Some(chunk) = response.chunk().await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        (first, bytes == setting.file)
    });
    let hosts = futures_util::future::join_all(hosts).await;
    let whole = started.elapsed();
    assert!(hosts.iter().all(|(_, is_right)| *is_right));
    assert!(whole > Duration::from_millis(900), "upstream took its time: {whole:?}");
    let slowest = hosts.iter().map(|(first, _)| *first).max().unwrap();
    assert!(slowest < whole / 2, "the last first byte came after {slowest:?} of {whole:?}");
    assert_eq!(setting.requests(0), 1);
}

/// T1, T4
#[tokio::test]
async fn when_upstream_dies_every_host_sees_an_error_and_nothing_is_kept_as_whole() {
    let setting = Setting::one().await;
    setting.origins[0].act(FILE, [Act::CutAt(SIZE * 6 / 10)].into_iter().chain(std::iter::repeat_n(Act::Status(503, ""), 50)));
    let hosts = (0..8).map(|_| async { received(setting.get().await).await });
    for (len, is_whole) in futures_util::future::join_all(hosts).await {
        assert!(!is_whole && len < SIZE, "{len}");
    }
    // A commit would come after the last host has left.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(setting.mirror.files("blobs"), [""; 0]);
    assert_eq!(setting.mirror.files("partials").len(), 1, "what came is there for the next one");
}

/// T5
#[tokio::test]
async fn what_came_before_upstream_died_is_gone_on_with() {
    let setting = Setting::one().await;
    let cut = SIZE * 6 / 10;
    setting.origins[0].act(FILE, [Act::CutAt(cut)].into_iter().chain(std::iter::repeat_n(Act::Status(503, ""), 2)));
    assert!(!setting.whole().await);
    assert_eq!(setting.mirror.files("partials").len(), 1);
    let setting = Setting { mirror: setting.mirror.restart().await, ..setting };
    assert!(setting.whole().await);
    let last = setting.origins[0].requests(FILE).pop().unwrap();
    let from: usize = header(&last.head, "range").unwrap().trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!(from > 0 && from <= cut, "{from}");
    setting.is_held().await;
    assert_eq!(setting.mirror.files("partials"), [""; 0]);
}

/// T12
#[tokio::test]
async fn a_cut_download_goes_on_where_it_stopped() {
    for (name, acts) in [
        ("a cut", vec![Act::CutAt(300_000)]),
        ("two cuts", vec![Act::CutAt(300_000), Act::CutAt(300_000)]),
        ("a silence", vec![Act::StallAt(300_000, Duration::from_secs(5))]),
        ("a server without ranges", vec![Act::CutAt(300_000), Act::NoRanges]),
        ("a server with wrong ranges", vec![Act::CutAt(300_000), Act::WrongRange]),
        ("a body that ends early", vec![Act::NoLength, Act::CutAt(300_000)]),
    ] {
        let setting = Setting::one().await;
        let count = acts.len();
        setting.origins[0].act(FILE, acts);
        assert!(setting.whole().await, "{name}");
        let requests = setting.origins[0].requests(FILE);
        if let Some(resumed) = requests.get(1) {
            assert!(header(&resumed.head, "range").is_some() && header(&resumed.head, "if-range").is_some(), "{name}: {}", resumed.head);
        }
        assert!(requests.len() <= count + 1, "{name}");
        setting.is_held().await;
    }
}

/// T11
#[tokio::test]
async fn the_next_url_is_asked_when_one_fails() {
    for (name, act) in [
        ("an error", Act::Status(500, "")),
        ("silence", Act::Silence(Duration::from_secs(5))),
        ("another file", Act::Short(1)),
        ("nothing there", Act::Status(404, "")),
        ("a stall in the middle", Act::StallAt(300_000, Duration::from_secs(5))),
    ] {
        let setting = Setting::with_urls(2, Builder::default()).await;
        setting.origins[0].act(FILE, std::iter::repeat_n(act, 3));
        assert!(setting.whole().await, "{name}");
        assert!(setting.requests(1) >= 1, "{name}");
    }
}

/// T18
#[tokio::test]
async fn a_miss_is_answered_truthfully() {
    for (act, status, retry_after) in [
        (Act::Status(404, ""), 404, false),
        (Act::Status(410, ""), 404, false),
        (Act::Status(403, ""), 502, false),
        (Act::Status(500, ""), 502, false),
        (Act::Status(503, "Retry-After: 7\r\n"), 503, true),
        (Act::Status(429, "Retry-After: 7\r\n"), 503, true),
        (Act::Status(304, ""), 502, false),
        (Act::CutAt(0), 502, false),
        (Act::Short(1), 502, true),
        (Act::Status(302, "Location: /images/noble/squashfs\r\n"), 502, false),
        (Act::Status(302, "Location: ftp://elsewhere/\r\n"), 502, false),
    ] {
        let setting = Setting::one().await;
        setting.origins[0].act(FILE, std::iter::repeat_n(act.clone(), 20));
        let response = setting.get().await;
        let is_cut_off = matches!(act, Act::CutAt(0));
        assert!(response.status() == status || is_cut_off, "{act:?}: {}", response.status());
        assert_eq!(response.headers().contains_key("retry-after"), retry_after, "{act:?}");
        assert!(is_cut_off || response.bytes().await.unwrap().len() < 100, "one short line");
    }
}

/// T11
#[tokio::test]
async fn a_silent_upstream_is_a_time_out() {
    let setting = Setting::one().await;
    setting.origins[0].act(FILE, std::iter::repeat_n(Act::Silence(Duration::from_secs(5)), 5));
    let started = Instant::now();
    let status = setting.get().await.status();
    assert_eq!(status, 504);
    assert!(started.elapsed() < Duration::from_secs(2));
}

/// T16: `timing` has the minute for which it is remembered; new documents and a restart end it at once.
#[tokio::test]
async fn that_a_file_is_missing_is_forgotten_with_new_documents_and_with_a_restart() {
    let (root, metadata) = (b"root".to_vec(), b"metadata".to_vec());
    let version = || Version::new("images/noble").file("squashfs", &root).metadata("lxd.tar.xz", &metadata);
    let stream = |updated: &str| Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", version()).updated(updated);
    let origin = Origin::start().await;
    origin.put(stream("Thu, 01 Jan 2026 00:00:00 +0000").tree());
    let mirror = Builder::default().remote("ubuntu", &[origin.url()], "").start().await;
    let asked = || origin.requests("images/noble/squashfs").len();
    let missing = async |mirror: &Mirror| {
        origin.act("images/noble/squashfs", [Act::Status(404, "")]);
        let before = asked();
        for _ in 0..3 {
            assert_eq!(mirror.get("ubuntu/images/noble/squashfs").await.status(), 404);
        }
        assert_eq!(asked(), before + 1, "that it is missing is remembered");
    };
    missing(&mirror).await;
    origin.put(stream("Fri, 02 Jan 2026 00:00:00 +0000").tree());
    mirror.refresh("ubuntu", false).await;
    missing(&mirror).await;
    let mirror = mirror.restart().await;
    assert_eq!(mirror.body("ubuntu/images/noble/squashfs").await, root);
}

/// T10
#[tokio::test]
async fn wrong_bytes_are_never_a_whole_file() {
    for act in [Act::WrongBytes, Act::Long(10)] {
        let setting = Setting::one().await;
        setting.origins[0].act(FILE, std::iter::repeat_n(act.clone(), 2));
        let (len, is_whole) = received(setting.get().await).await;
        assert!(!is_whole && len < SIZE, "{act:?}: {len} of {SIZE}");
        assert_eq!((setting.mirror.files("blobs"), setting.mirror.files("partials")), (vec![], vec![]), "{act:?}");
        let response = setting.get().await;
        assert_eq!((response.status().as_u16(), response.headers().contains_key("retry-after")), (502, true), "{act:?}");
        assert_eq!(setting.requests(0), 1, "a client's second try does not fetch it again: {act:?}");
        tokio::time::sleep(Duration::from_millis(700)).await;
        setting.origins[0].act(FILE, []);
        assert!(setting.whole().await, "{act:?}");
    }
}

/// T2, and invariant 6 for a range.
#[tokio::test]
async fn a_range_of_a_file_under_way_is_exact_and_its_last_byte_waits_too() {
    let setting = Setting::one().await;
    setting.origins[0].act(FILE, [Act::Dribble(SIZE / 10, Duration::from_millis(60))]);
    let url = format!("{}/ubuntu/{FILE}", setting.mirror.url());
    let first = setting.get().await;
    let ranges = [0..1, 10..300_000, SIZE / 2 - 1..SIZE / 2 + 1, SIZE - 5..SIZE];
    let hosts = ranges.into_iter().map(|range| {
        let request = setting.mirror.client().get(&url).header("range", format!("bytes={}-{}", range.start, range.end - 1));
        async move {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 206);
            (range, response.bytes().await.unwrap())
        }
    });
    for (range, bytes) in futures_util::future::join_all(hosts).await {
        assert!(bytes == setting.file[range]);
    }
    assert!(first.bytes().await.unwrap() == setting.file);
    assert_eq!(setting.requests(0), 1);

    let setting = Setting::one().await;
    setting.origins[0].act(FILE, [Act::WrongBytes]);
    let url = format!("{}/ubuntu/{FILE}", setting.mirror.url());
    let response = setting.mirror.client().get(&url).header("range", "bytes=0-999").send().await.unwrap();
    let (len, is_whole) = received(response).await;
    assert!(!is_whole && len < 1000, "the first bytes may be right, but nobody knows yet: {len}");
}

/// T5
#[tokio::test]
async fn a_reader_that_leaves_does_not_end_the_fetch() {
    let setting = Setting::one().await;
    setting.origins[0].act(FILE, [Act::Dribble(SIZE / 10, Duration::from_millis(40))]);
    let mut leader = setting.get().await;
    leader.chunk().await.unwrap();
    let follower = setting.get().await;
    assert_eq!(follower.headers()["cache-status"], "cistern; fwd=uri-miss; collapsed");
    drop(leader);
    assert!(follower.bytes().await.unwrap() == setting.file);
    setting.is_held().await;
    assert_eq!(setting.requests(0), 1);

    let setting = Setting::one().await;
    setting.origins[0].act(FILE, [Act::Dribble(SIZE / 10, Duration::from_millis(40))]);
    drop(setting.get().await);
    setting.is_held().await;
    assert!(setting.whole().await);
    assert_eq!(setting.requests(0), 1);
}

/// T26
#[tokio::test]
async fn a_file_that_there_is_no_room_for_is_passed_through_and_shared() {
    let setting = Setting::with_urls(1, Builder::default().storage("min_free = \"0%\"\ncapacity = \"100KiB\"")).await;
    setting.origins[0].act(FILE, [Act::Dribble(SIZE / 10, Duration::from_millis(40))]);
    let hosts = (0..4).map(|_| async {
        let response = setting.get().await;
        (response.headers()["cache-status"].clone(), response.bytes().await.unwrap() == setting.file)
    });
    for (cache_status, is_right) in futures_util::future::join_all(hosts).await {
        assert_eq!(cache_status, "cistern; fwd=uri-miss");
        assert!(is_right);
    }
    assert_eq!(setting.requests(0), 1);
    assert_eq!((setting.mirror.files("blobs"), setting.mirror.files("partials")), (vec![], vec![]));
    setting.origins[0].act(FILE, [Act::WrongBytes]);
    let (len, is_whole) = received(setting.get().await).await;
    assert!(!is_whole && len < SIZE, "what is not stored is verified all the same");
}

/// T9
#[tokio::test]
async fn a_reader_that_stands_still_does_not_hold_up_the_others_when_there_is_no_room() {
    let builder = Builder::default().storage("min_free = \"0%\"\ncapacity = \"100KiB\"");
    let file = noise(30 << 20, 8);
    let version = Version::new("images/noble").file("squashfs", &file);
    let origin = Origin::start().await;
    origin.put(Stream::default().add("ubuntu:noble:amd64", "", "20260101", version).tree());
    origin.act(FILE, [Act::StallAt(1000, Duration::from_millis(300))]);
    let limits = "[limits]\nring_size = \"1MiB\"\nsilence_timeout = \"1s\"";
    let mirror = builder.section(limits).remote("ubuntu", &[origin.url()], "").start().await;
    let idle = mirror.get(&format!("ubuntu/{FILE}")).await;
    let busy = mirror.get(&format!("ubuntu/{FILE}")).await;
    assert!(busy.bytes().await.unwrap() == file);
    assert_eq!(origin.requests(FILE).len(), 1);
    assert!(!received(idle).await.1, "the idle one is left behind, and told so by a broken connection");
}

/// T22
#[tokio::test]
async fn a_disk_that_runs_full_in_the_middle_does_not_end_the_download() {
    for left in [0, 400_000] {
        let disk = FullDisk::empty();
        let setting = Setting::with_urls(1, Builder::default().disk(disk.clone())).await;
        disk.leave(left);
        setting.origins[0].act(FILE, [Act::Dribble(SIZE / 10, Duration::from_millis(30))]);
        let hosts = (0..3).map(|_| setting.whole());
        assert!(futures_util::future::join_all(hosts).await.into_iter().all(|is_whole| is_whole), "{left}");
        assert_eq!(setting.requests(0), 1, "{left}");
        assert_eq!((setting.mirror.files("blobs"), setting.mirror.files("partials")), (vec![], vec![]), "{left}");
        disk.leave(u64::MAX);
        assert!(setting.whole().await);
        setting.is_held().await;
    }
}

#[tokio::test]
async fn a_host_of_http_1_0_gets_a_length_even_if_nobody_told_one() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let origin = Origin::start().await;
    let file = noise(50_000, 9);
    let version =
        Version::new("images/noble").file("squashfs", &file).with(|items| drop(items["squashfs"].as_object_mut().unwrap().remove("size")));
    origin.put(Stream::default().add("ubuntu:noble:amd64", "", "20260101", version).tree());
    origin.act(FILE, [Act::NoLength]);
    let mirror = Builder::default().remote("ubuntu", &[origin.url()], "").start().await;
    let mut stream = tokio::net::TcpStream::connect(mirror.address()).await.unwrap();
    stream.write_all(format!("GET /ubuntu/{FILE} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let head = String::from_utf8_lossy(&response[..400]).into_owned();
    assert!(head.to_lowercase().contains("content-length: 50000"), "{head}");
    assert!(response.ends_with(&file));
}

#[tokio::test]
async fn a_second_file_of_the_same_bytes_is_a_hit() {
    let origin = Origin::start().await;
    let file = noise(5000, 10);
    let stream = Stream::default().add("a:1:amd64", "", "20260101", Version::new("one").file("squashfs", &file)).add(
        "b:1:amd64",
        "",
        "20260101",
        Version::new("two").file("squashfs", &file),
    );
    origin.put(stream.tree());
    let mirror = Builder::default().remote("first", &[origin.url()], "").remote("second", &[origin.url()], "").start().await;
    assert!(mirror.body("first/one/squashfs").await == file);
    wait_for(async || mirror.files("blobs").len() == 1).await;
    for path in ["first/two/squashfs", "second/one/squashfs", "second/two/squashfs"] {
        assert!(mirror.body(path).await == file);
    }
    assert_eq!(origin.requests("one/squashfs").len() + origin.requests("two/squashfs").len(), 1);
}

/// A process that is killed between the last byte and the commit leaves a whole file that nobody called whole.
#[tokio::test]
async fn a_whole_file_that_was_left_over_is_taken_also_if_nobody_knows_its_size() {
    let origin = Origin::start().await;
    let file = noise(50_000, 11);
    let version =
        Version::new("images/noble").file("squashfs", &file).with(|items| drop(items["squashfs"].as_object_mut().unwrap().remove("size")));
    origin.put(Stream::default().add("ubuntu:noble:amd64", "", "20260101", version).tree());
    for (left, status) in [(file.clone(), 200), (noise(50_000, 12), 502)] {
        let mirror = Builder::default().remote("ubuntu", &[origin.url()], "").start().await;
        let digest = cistern::digest::Digest::of(&file);
        std::fs::write(mirror.store().join(format!("partials/sha256-{digest}-x")), &left).unwrap();
        let response = mirror.get(&format!("ubuntu/{FILE}")).await;
        let is_whole = response.status() == 200 && response.bytes().await.is_ok_and(|bytes| bytes == file);
        assert_eq!(is_whole, status == 200);
        assert!(mirror.body(&format!("ubuntu/{FILE}")).await == file, "what was damaged is fetched anew");
    }
}

/// T18
#[tokio::test]
async fn what_one_remote_lacks_another_may_have() {
    let (without, with) = (Origin::start().await, Origin::start().await);
    let file = noise(5000, 13);
    let stream = Stream::default().add("ubuntu:noble:amd64", "", "20260101", Version::new("images/noble").file("squashfs", &file));
    without.put(stream.documents());
    with.put(stream.tree());
    let mirror = Builder::default().remote("without", &[without.url()], "").remote("with", &[with.url()], "").start().await;
    without.act(FILE, [Act::Silence(Duration::from_millis(200))]);
    let lacking = async { mirror.get(&format!("without/{FILE}")).await };
    let having = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        mirror.get(&format!("with/{FILE}")).await
    };
    let (lacking, having) = tokio::join!(lacking, having);
    assert_eq!(lacking.status(), 404);
    assert_eq!(having.status(), 200, "it joined a fetch that was about another remote");
    assert!(having.bytes().await.unwrap() == file);
}

#[tokio::test]
async fn a_range_of_a_file_that_is_not_stored_holds_up_nobody() {
    let file = noise(20 << 20, 14);
    let origin = Origin::start().await;
    origin.put(Stream::default().add("ubuntu:noble:amd64", "", "20260101", Version::new("images/noble").file("squashfs", &file)).tree());
    origin.act(FILE, [Act::StallAt(1000, Duration::from_millis(200))]);
    let limits = "[limits]\nring_size = \"1MiB\"\nsilence_timeout = \"5s\"";
    let builder = Builder::default().storage("min_free = \"0%\"\ncapacity = \"100KiB\"").section(limits);
    let mirror = builder.remote("ubuntu", &[origin.url()], "").start().await;
    let url = format!("{}/ubuntu/{FILE}", mirror.url());
    let started = Instant::now();
    let whole = mirror.get(&format!("ubuntu/{FILE}")).await;
    let part = mirror.client().get(&url).header("range", "bytes=100-199").send().await.unwrap();
    let (whole, part) = tokio::join!(whole.bytes(), part.bytes());
    assert!(whole.unwrap() == file && part.unwrap() == file[100..200]);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(origin.requests(FILE).len(), 1);
}

#[tokio::test]
async fn a_url_that_sent_wrong_bytes_is_asked_last_for_that_file() {
    let setting = Setting::with_urls(2, Builder::default()).await;
    setting.origins[0].act(FILE, std::iter::repeat_n(Act::WrongBytes, 5));
    assert!(!setting.whole().await);
    assert!(setting.whole().await, "the other one has it right, and nobody waits for that");
    assert_eq!((setting.requests(0), setting.requests(1)), (1, 1));
}

/// T10: when all of them sent it wrong, nobody is asked again at once.
#[tokio::test]
async fn a_file_that_every_url_has_wrong_is_refused_for_a_while() {
    let setting = Setting::with_urls(2, Builder::default()).await;
    setting.origins.iter().for_each(|origin| origin.act(FILE, std::iter::repeat_n(Act::WrongBytes, 5)));
    for _ in 0..5 {
        assert!(!setting.whole().await);
    }
    assert_eq!((setting.requests(0), setting.requests(1)), (1, 1));
}

/// T10: after that time another one is asked than before.
#[tokio::test]
async fn of_urls_that_had_a_file_wrong_the_one_that_was_asked_the_longest_ago_is_asked_first() {
    let setting = Setting::with_urls(2, Builder::default()).await;
    setting.origins[0].act(FILE, std::iter::repeat_n(Act::WrongBytes, 9));
    setting.origins[1].act(FILE, [Act::WrongBytes]);
    for _ in 0..3 {
        assert!(!setting.whole().await);
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!setting.whole().await, "the first one is asked again");
    assert!(setting.whole().await, "and then the second one, which has it right by now");
    assert_eq!((setting.requests(0), setting.requests(1)), (2, 2));
}

/// T10: whoever orders a file gets it from the URL that has it right, and an operator who adds a URL need not wait.
#[tokio::test]
async fn an_order_goes_on_to_the_next_url_and_a_new_url_is_asked_at_once() {
    let mut setting = Setting::with_urls(2, Builder::default().section("[images]\ngrace = \"1h\"")).await;
    setting.origins[0].act(FILE, std::iter::repeat_n(Act::WrongBytes, 9));
    crate::managing::done(&setting.mirror, &["image", "copy", "ubuntu:24.04"]).await;
    assert_eq!((setting.requests(0), setting.requests(1)), (1, 1));

    setting = Setting::one().await;
    setting.origins[0].act(FILE, std::iter::repeat_n(Act::WrongBytes, 9));
    assert!(!setting.whole().await);
    setting.mirror.reload(ToOwned::to_owned).await;
    assert!(!setting.whole().await && setting.requests(0) == 1, "there is nobody else to ask");
    let (old, right) = (setting.origins[0].url(), Origin::start().await);
    right.put(
        Stream::default()
            .add(
                "ubuntu:noble:amd64",
                "24.04",
                "20260101",
                Version::new("images/noble").file("squashfs", &setting.file).metadata("lxd.tar.xz", b"metadata"),
            )
            .tree(),
    );
    let new = right.url();
    setting.mirror.reload(|text| text.replace(&format!("\"{old}\""), &format!("\"{new}\", \"{old}\""))).await;
    assert!(setting.whole().await);
}

/// T10: nor is that URL asked when no other has the file.
#[tokio::test]
async fn a_url_that_has_a_file_wrong_is_not_asked_for_it_although_no_other_has_it() {
    let setting = Setting::with_urls(2, Builder::default()).await;
    setting.origins[0].act(FILE, std::iter::repeat_n(Act::WrongBytes, 9));
    setting.origins[1].act(FILE, [Act::Status(404, ""), Act::Status(503, "")]);
    assert!(!setting.whole().await);
    for _ in 0..2 {
        assert_eq!(setting.get().await.status(), 502, "it is not gone, and not had");
    }
    assert_eq!((setting.requests(0), setting.requests(1)), (1, 2), "only the other one is asked");
    assert!(setting.whole().await, "and gives it as soon as it can");
}

/// A server that breaks off every file is not well because another one sends the rest.
#[tokio::test]
async fn whoever_sends_the_rest_of_a_file_makes_nobody_else_well() {
    let (cuts, right) = (Origin::start().await, Origin::start().await);
    let file = |number| noise(SIZE, number);
    let stream = (0..3).fold(Stream::default(), |stream, number| {
        let version = Version::new(&format!("i/{number}")).file("squashfs", &file(number)).metadata("lxd.tar.xz", b"m");
        stream.add(&format!("os:{number}:amd64"), &number.to_string(), "20260101", version)
    });
    for origin in [&cuts, &right] {
        origin.put(stream.tree());
    }
    (0..3).for_each(|number| cuts.act(&format!("i/{number}/squashfs"), std::iter::repeat_n(Act::CutAt(1000), 9)));
    let mirror = Builder::default().remote("lab", &[cuts.url(), right.url()], "").start().await;
    for number in 0..3 {
        assert_eq!(mirror.body(&format!("lab/i/{number}/squashfs")).await, file(number));
    }
    let asked = (0..3).map(|number| cuts.requests(&format!("i/{number}/squashfs")).len());
    assert_eq!(asked.collect::<Vec<_>>(), [1, 1, 0], "two failures are a verdict");
}

/// T10: of a file that two servers sent in parts, nobody knows whose part was wrong; the one that begins it next is the other.
#[tokio::test]
async fn whoever_sent_only_the_rest_of_a_wrong_file_is_not_blamed_for_it() {
    let setting = Setting::with_urls(2, Builder::default()).await;
    let mut damaged = setting.file.clone();
    damaged[7] ^= 1;
    setting.origins[0].put([(FILE.to_owned(), damaged)]);
    setting.origins[0].act(FILE, std::iter::repeat_n(Act::CutAt(SIZE / 2), 5));
    assert!(!setting.whole().await);
    assert_eq!((setting.requests(0), setting.requests(1)), (1, 1), "it began with the one and went on with the other");
    assert!(setting.whole().await);
    assert_eq!((setting.requests(0), setting.requests(1)), (1, 2));
    let failing = &setting.mirror.remotes().await[0].failing;
    assert!(failing.iter().all(|failing| failing.url != setting.origins[1].url()), "{failing:?}");
}

/// A remote that an operator takes away is asked nothing more, and hosts that wait for one of its files get it.
#[tokio::test]
async fn a_download_comes_to_its_end_although_its_remote_is_taken_away() {
    let mut setting = Setting::one().await;
    setting.origins[0].act(FILE, [Act::Dribble(SIZE / 10, Duration::from_millis(100))]);
    let answer = setting.get().await;
    setting.mirror.reload(|text| text.replace("[remotes.ubuntu]", "[remotes.other]")).await;
    assert_eq!(setting.get().await.status(), 404, "it is listed no more");
    assert!(answer.bytes().await.is_ok_and(|bytes| bytes == setting.file));
    assert_eq!(setting.requests(0), 1);

    let mut setting = Setting::one().await;
    setting.origins[0].act(FILE, [Act::StallAt(SIZE / 2, Duration::from_secs(1)), Act::Well]);
    let answer = setting.get().await;
    setting.mirror.reload(|text| text.replace("[remotes.ubuntu]", "[remotes.other]")).await;
    assert!(answer.bytes().await.is_err(), "it fell silent");
    assert_eq!(setting.requests(0), 1, "and is not asked for the rest");
}

/// T9, over HTTP/1.1 and over h2, where a host can answer every ping and take nothing all the same.
#[tokio::test]
async fn a_host_that_takes_nothing_is_cut_and_a_slow_one_is_not() {
    let file = noise(24 << 20, 6);
    let version = Version::new("images/noble").file("squashfs", &file).metadata("lxd.tar.xz", b"metadata");
    let origin = Origin::start().await;
    origin.put(Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", version).tree());
    let mirror = Builder::default().section("[limits]\nwrite_timeout = \"1500ms\"").remote("ubuntu", &[origin.url()], "").start().await;
    let url = format!("{}/ubuntu/{FILE}", mirror.url());
    let ca = std::fs::read(mirror.ca()).unwrap();
    for http1 in [true, false] {
        // Each on a connection of its own.
        let get = async || {
            let client = reqwest::Client::builder().tls_certs_only(reqwest::Certificate::from_pem_bundle(&ca).unwrap()).no_proxy();
            let client = if http1 { client.http1_only() } else { client.http2_initial_stream_window_size(65_535) };
            client.build().unwrap().get(&url).send().await.unwrap()
        };
        let (mut slow, still) = (get().await, get().await);
        let mut taken = 0;
        for step in 1..=40 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            while taken < step * 300_000 {
                taken += slow.chunk().await.unwrap().unwrap().len();
            }
        }
        let (len, is_whole) = received(still).await;
        assert!(!is_whole && len < file.len(), "http1 {http1}: it was cut long ago: {len}");
        let (len, is_whole) = received(slow).await;
        assert!(is_whole && taken + len == file.len(), "http1 {http1}: whoever moves stays");
    }
}

/// T7: the last byte leaves when the file is verified; the disk may take its time after that, and nobody fetches it again.
#[tokio::test]
async fn between_the_last_byte_and_the_commit_a_host_gets_what_is_there() {
    let disk = FaultyDisk::over(OsDisk);
    let setting = Setting::with_urls(1, Builder::default().disk(disk.clone())).await;
    for call in [Call::Sync, Call::Rename, Call::SyncDirectory] {
        disk.delay(call, Duration::from_secs(1));
    }
    let started = Instant::now();
    assert!(setting.whole().await);
    assert!(setting.mirror.files("blobs").is_empty() && started.elapsed() < Duration::from_millis(2500), "nobody waits for a sync");
    for _ in 0..20 {
        assert!(setting.whole().await);
        let part = setting.mirror.client().get(format!("{}/ubuntu/{FILE}", setting.mirror.url())).header("range", "bytes=899990-");
        assert_eq!(part.send().await.unwrap().bytes().await.unwrap(), setting.file[899_990..]);
    }
    setting.is_held().await;
    assert!(setting.whole().await);
    assert_eq!(setting.requests(0), 1);
}

/// T1, T12: what is between us and an image server breaks, and not the server.
#[tokio::test]
async fn a_proxy_that_cuts_or_stalls_is_gone_on_after() {
    for breaks in [Break::CutAfter(300_000), Break::StallAfter(300_000), Break::CutAfter(0), Break::StallAfter(0)] {
        let file = noise(SIZE, 5);
        let version = Version::new("images/noble").file("squashfs", &file).metadata("lxd.tar.xz", b"metadata");
        let origin = Origin::start().await;
        origin.put(Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", version).tree());
        let proxy = Proxy::to(origin.address()).await;
        let more = format!("proxy = \"{}\"", proxy.url());
        let mirror = Builder::default().section(QUICK).remote("ubuntu", &["http://images.example".to_owned()], &more).start().await;
        proxy.break_next([breaks]);
        let first = mirror.get_whole(format!("ubuntu/{FILE}")).await;
        // Before the first byte a host is told of trouble, and asks again by itself; after that it notices nothing.
        let (Break::CutAfter(at) | Break::StallAfter(at)) = breaks;
        assert_eq!(first.is_some(), at > 0, "{breaks:?}");
        assert_eq!(mirror.get_whole(format!("ubuntu/{FILE}")).await, Some(file), "{breaks:?}");
        assert_eq!(origin.requests(FILE).len(), 2, "{breaks:?}");
    }
}

/// T14: whatever becomes of an image server, what is held is served, and what was listed is listed.
#[tokio::test]
async fn what_is_held_is_served_whatever_becomes_of_upstream() {
    let setting = Setting::one().await;
    assert!(setting.whole().await);
    setting.is_held().await;
    let listed = setting.mirror.body("ubuntu/streams/v1/images.json").await;
    let acts = [
        Act::Status(429, "Retry-After: 100\r\n"),
        Act::Status(500, ""),
        Act::Status(503, "Retry-After: 100\r\n"),
        Act::Status(404, ""),
        Act::Status(403, ""),
        Act::Page("<html>not now</html>"),
        Act::Silence(Duration::from_secs(2)),
    ];
    for act in acts {
        setting.origins[0].act("streams/v1/index.json", [act.clone()]);
        let report = setting.mirror.refresh("ubuntu", false).await;
        assert!(matches!(report.result.label(), "failed" | "refused"), "{act:?}: {report:?}");
        let answer = setting.mirror.get("ubuntu/streams/v1/images.json").await;
        assert_eq!(answer.headers()["cache-status"], "cistern; fwd=stale", "{act:?}");
        assert_eq!(answer.bytes().await.unwrap(), listed, "{act:?}");
        assert!(setting.whole().await, "{act:?}");
    }
    let Setting { mut origins, mut mirror, file } = setting;
    origins[0].stop().await;
    mirror.refresh("ubuntu", false).await;
    assert_eq!(mirror.get_whole(format!("ubuntu/{FILE}")).await, Some(file.clone()), "refused connections");
    let url = origins[0].url();
    mirror.reload(|text| text.replace(&url, "http://nobody.invalid")).await;
    wait_for(async || {
        let remotes = mirror.remotes().await;
        remotes[0].urls[0].contains("nobody") && remotes[0].last_refresh.as_ref().is_some_and(|last| last.reason.is_some())
    })
    .await;
    assert_eq!(mirror.get_whole(format!("ubuntu/{FILE}")).await, Some(file), "a name that nobody knows");
    assert_eq!(mirror.body("ubuntu/streams/v1/images.json").await, listed);
}

/// T10: a server that sends wrong bytes for every file is asked last, although it answers well.
#[tokio::test]
async fn a_server_of_wrong_bytes_is_asked_last_after_two_of_them() {
    let (wrong, right) = (Origin::start().await, Origin::start().await);
    let stream = (0..5).fold(Stream::default(), |stream, number| {
        let version = Version::new(&format!("i/{number}")).file("squashfs", &noise(5000, number)).metadata("lxd.tar.xz", b"m");
        stream.add(&format!("os:{number}:amd64"), &number.to_string(), "20260101", version)
    });
    for origin in [&wrong, &right] {
        origin.put(stream.tree());
    }
    for number in 0..5 {
        wrong.act(&format!("i/{number}/squashfs"), [Act::WrongBytes]);
    }
    let mirror = Builder::default().remote("lab", &[wrong.url(), right.url()], "").start().await;
    let mut whole = Vec::new();
    for number in 0..5 {
        whole.push(mirror.get_whole(format!("lab/i/{number}/squashfs")).await.is_some());
    }
    assert_eq!(whole, [false, false, true, true, true], "two are cut, and the others come from the other server");
    let failing = &mirror.remotes().await[0].failing;
    assert!(!failing.is_empty(), "and it is shown");
}
