//! Files as LXD asks for them first: over plain HTTP, one on a connection, and the kernel sends them, held or under way.

use std::time::Duration;

use cistern::disk::OsDisk;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::disk::FullDisk;
use crate::support::faulty::{Call, Fault, FaultyDisk};
use crate::support::mirror::{Builder, Mirror, free_port, wait_for};
use crate::support::origin::{Act, Origin};
use crate::support::stream::{Stream, Version, noise};

const ROOT: &str = "images/noble/squashfs";
const SIZE: usize = 900_000;

fn noble(root: &[u8]) -> Stream {
    let version = Version::new("images/noble").file("squashfs", root).metadata("lxd.tar.xz", b"metadata");
    Stream::default().add("ubuntu:noble:amd64", "24.04,noble", "20260101", version)
}

async fn origin_and_mirror(root: &[u8], builder: Builder) -> (Origin, Mirror) {
    let origin = Origin::start().await;
    origin.put(noble(root).tree());
    let mirror = builder.metrics(free_port()).remote("ubuntu", &[origin.url()], "").start().await;
    (origin, mirror)
}

async fn sent_by_the_kernel(mirror: &Mirror) -> f64 {
    mirror.metric("cistern_http_sendfile_bytes_total").await
}

/// What a host gets that asks as LXD does, with these lines besides: the head's lines without the time, and the body.
async fn asked_like_lxd(mirror: &Mirror, path: &str, more: &str) -> (Vec<String>, Vec<u8>) {
    let mut stream = tokio::net::TcpStream::connect(mirror.address()).await.unwrap();
    let request =
        format!("GET /{path} HTTP/1.1\r\nHost: x\r\nUser-Agent: LXD 5.0.2\r\nAccept-Encoding: gzip\r\n{more}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines: Vec<String> = head.trim_end().lines().map(ToOwned::to_owned).collect();
    let dates = lines.iter().filter(|line| line.starts_with("date: ")).count();
    assert_eq!(dates, 1, "{head}");
    lines.retain(|line| !line.starts_with("date: "));
    lines[1..].sort();
    (lines, answer.split_off(end))
}

/// What the kernel sends and what hyper sends are one answer.
#[tokio::test]
async fn the_fast_lane_answers_like_every_other() {
    let root = noise(3 << 20, 1);
    let (origin, mirror) = origin_and_mirror(&root, Builder::default()).await;
    let path = format!("ubuntu/{ROOT}");
    let cold = asked_like_lxd(&mirror, &path, "").await;
    assert!(cold.1 == root && cold.0.contains(&"cache-status: cistern; fwd=uri-miss; stored".to_owned()), "{:?}", cold.0);
    wait_for(async || mirror.is_hit(&path).await).await;
    let counted = async || {
        let requests = mirror.metric("cistern_http_requests_total{code=\"200\",method=\"GET\",route=\"blob\"}").await;
        let hits = mirror.metric("cistern_cache_requests_total{kind=\"blob\",remote=\"ubuntu\",result=\"hit\"}").await;
        let bytes = mirror.metric("cistern_http_response_bytes_total{result=\"hit\",route=\"blob\"}").await;
        [requests, hits, bytes, sent_by_the_kernel(&mirror).await]
    };
    let mut before = counted().await;
    let mut answers = Vec::new();
    // The second has a header that the lane does not know.
    for (more, by_kernel) in [("", 3_145_728.0), ("X-Other: 1\r\n", 0.0)] {
        answers.push(asked_like_lxd(&mirror, &path, more).await);
        let expected = [before[0] + 1.0, before[1] + 1.0, before[2] + 3_145_728.0, before[3] + by_kernel];
        wait_for(async || counted().await.iter().zip(expected).all(|(is, wanted)| (is - wanted).abs() < 0.5)).await;
        before = counted().await;
    }
    assert!(answers[0].1 == root && answers[1].1 == root);
    assert_eq!(answers[0].0, answers[1].0);
    assert!(asked_like_lxd(&mirror, "ubuntu/images/noble/nothing", "").await.0[0].starts_with("HTTP/1.1 404"));
    assert!(asked_like_lxd(&mirror, "streams/v1/index.json", "").await.0[0].starts_with("HTTP/1.1 308"));
    assert_eq!(origin.requests(ROOT).len(), 1);
}

/// A host's request comes a moment after its connection, and a host that has said all it has to say may close its side.
#[tokio::test]
async fn hosts_that_ask_late_or_close_their_side_are_answered_and_the_kernel_sends() {
    let root = noise(3 << 20, 1);
    let (_origin, mirror) = origin_and_mirror(&root, Builder::default()).await;
    let path = format!("ubuntu/{ROOT}");
    mirror.body(&path).await;
    wait_for(async || mirror.is_hit(&path).await).await;
    for (connection, by_kernel) in [("close", 3_145_728.0), ("keep-alive", 0.0)] {
        let before = sent_by_the_kernel(&mirror).await;
        let mut stream = tokio::net::TcpStream::connect(mirror.address()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let request = format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.ends_with(&root), "{connection}: {} bytes", answer.len());
        let sent = sent_by_the_kernel(&mirror).await - before;
        assert!((sent - by_kernel).abs() < 0.5, "{connection}: {sent}");
    }
}

/// What the lane has to say instead of a file is said and counted once.
#[tokio::test]
async fn a_refusal_in_the_fast_lane_is_counted_once() {
    let (_origin, mirror) = origin_and_mirror(&noise(32 << 20, 1), Builder::default().section("[limits]\nfile_readers = 1")).await;
    let path = format!("ubuntu/{ROOT}");
    mirror.body(&path).await;
    wait_for(async || mirror.is_hit(&path).await).await;
    // It has the only seat, and takes its time.
    let _seated = mirror.get(&path).await;
    let (head, body) = asked_like_lxd(&mirror, &path, "").await;
    assert!(head[0].starts_with("HTTP/1.1 503") && !body.is_empty(), "{head:?}");
    let refused = "cistern_http_requests_total{code=\"503\",method=\"GET\",route=\"blob\"}";
    assert!((mirror.metric(refused).await - 1.0).abs() < 0.5);
}

/// Invariant 6, where the kernel sends: what cannot be read, or is shorter than it was, is cut and never a whole file.
#[tokio::test]
async fn a_damaged_file_is_cut_in_the_fast_lane_too() {
    let root = noise(8 << 20, 1);
    let disk = FaultyDisk::over(OsDisk);
    let (_origin, mirror) = origin_and_mirror(&root, Builder::default().disk(disk.clone())).await;
    let path = format!("ubuntu/{ROOT}");
    mirror.body(&path).await;
    wait_for(async || !mirror.files("blobs").is_empty()).await;
    let mirror = mirror.restart().await;
    disk.fail_all(Call::Read, Fault::Broken);
    let (head, body) = asked_like_lxd(&mirror, &path, "").await;
    assert!(!head[0].contains("200") || body.len() < root.len(), "{head:?} {}", body.len());
    disk.heal();
    assert!(asked_like_lxd(&mirror, &path, "").await.1 == root);
    let blob = mirror.store().join("blobs").join(&mirror.files("blobs")[0]);
    std::fs::OpenOptions::new().write(true).open(blob).unwrap().set_len(5 << 20).unwrap();
    let (_, body) = asked_like_lxd(&mirror, &path, "").await;
    assert_eq!(body.len(), 5 << 20, "it was open, and ends where the file ends");
    assert!(asked_like_lxd(&mirror, &path, "").await.1 == root, "the next one gets it whole");
}

/// T2: they share one fetch, and none of the bytes comes into the program but the last, which waits until all are verified.
#[tokio::test]
async fn the_kernel_sends_a_file_while_it_is_fetched() {
    let root = noise(SIZE, 1);
    let (origin, mirror) = origin_and_mirror(&root, Builder::default()).await;
    origin.act(ROOT, [Act::Dribble(SIZE / 10, Duration::from_millis(40))]);
    let path = format!("ubuntu/{ROOT}");
    let hosts = (0..5).map(|_| asked_like_lxd(&mirror, &path, ""));
    for (head, body) in futures_util::future::join_all(hosts).await {
        assert!(head[0].starts_with("HTTP/1.1 200") && body == root, "{head:?} {}", body.len());
        assert!(head.contains(&format!("content-length: {SIZE}")), "{head:?}");
    }
    assert_eq!(origin.requests(ROOT).len(), 1);
    let expected = 5.0 * 899_999.0;
    wait_for(async || sent_by_the_kernel(&mirror).await >= expected).await;
    let collapsed = "cistern_cache_requests_total{kind=\"blob\",remote=\"ubuntu\",result=\"collapsed\"}";
    assert!((mirror.metric(collapsed).await - 4.0).abs() < 0.5, "each was answered once");
}

/// T10, and invariant 6: where the kernel sends what is not verified yet.
#[tokio::test]
async fn a_wrong_file_ends_before_its_last_byte_where_the_kernel_sends_it() {
    let root = noise(SIZE, 1);
    for act in [Act::WrongBytes, Act::Long(10)] {
        let (origin, mirror) = origin_and_mirror(&root, Builder::default()).await;
        origin.act(ROOT, std::iter::repeat_n(act.clone(), 2));
        let (head, body) = asked_like_lxd(&mirror, &format!("ubuntu/{ROOT}"), "").await;
        assert!(head[0].starts_with("HTTP/1.1 200") && body.len() < SIZE, "{act:?}: {head:?} {}", body.len());
        assert_eq!(mirror.files("blobs"), [""; 0], "{act:?}");
    }
}

/// T22, T26: what the disk does not take goes through memory, from the beginning or from the middle on.
#[tokio::test]
async fn what_finds_no_room_is_sent_from_memory() {
    let root = noise(SIZE, 1);
    let disk = FullDisk::empty();
    let without_room = Builder::default().storage("min_free = \"0%\"\ncapacity = \"100KiB\"");
    for (builder, left, by_kernel) in [(without_room, u64::MAX, false), (Builder::default().disk(disk.clone()), 400_000, true)] {
        let (origin, mirror) = origin_and_mirror(&root, builder).await;
        disk.leave(left);
        origin.act(ROOT, [Act::Dribble(SIZE / 10, Duration::from_millis(30))]);
        let path = format!("ubuntu/{ROOT}");
        let hosts = (0..3).map(|_| asked_like_lxd(&mirror, &path, ""));
        for (head, body) in futures_util::future::join_all(hosts).await {
            assert!(head[0].starts_with("HTTP/1.1 200") && body == root, "{head:?} {}", body.len());
        }
        assert_eq!(origin.requests(ROOT).len(), 1);
        assert_eq!(sent_by_the_kernel(&mirror).await > 0.5, by_kernel);
    }
}

/// Whoever cannot be told how long it is gets it in chunks, which say where they end.
#[tokio::test]
async fn a_file_of_which_nobody_says_how_long_it_is_is_sent_in_chunks() {
    let root = noise(SIZE, 1);
    let version =
        Version::new("images/noble").file("squashfs", &root).with(|items| drop(items["squashfs"].as_object_mut().unwrap().remove("size")));
    let origin = Origin::start().await;
    origin.put(Stream::default().add("ubuntu:noble:amd64", "", "20260101", version).tree());
    origin.act(ROOT, [Act::NoLength]);
    let mirror = Builder::default().metrics(free_port()).remote("ubuntu", &[origin.url()], "").start().await;
    let path = format!("ubuntu/{ROOT}");
    let (head, body) = asked_like_lxd(&mirror, &path, "").await;
    assert!(head.contains(&"transfer-encoding: chunked".to_owned()) && body.ends_with(b"\r\n0\r\n\r\n"), "{head:?}");
    wait_for(async || mirror.is_hit(&path).await).await;
    let (head, body) = asked_like_lxd(&mirror, &path, "").await;
    assert!(head.contains(&format!("content-length: {SIZE}")) && body == root, "{head:?}");
    assert_eq!(origin.requests(ROOT).len(), 1);
}

/// A host that takes nothing keeps no file open that a fetch gave up: its room would be counted as free.
#[tokio::test]
async fn a_host_that_takes_nothing_keeps_nothing_of_a_fetch_that_failed() {
    let root = noise(24 << 20, 1);
    let limits = "[limits]\nsilence_timeout = \"400ms\"\nresume_rounds = 0";
    let (origin, mirror) = origin_and_mirror(&root, Builder::default().section(limits)).await;
    origin.act(ROOT, [Act::WrongBytes]);
    let mut idle = tokio::net::TcpStream::connect(mirror.address()).await.unwrap();
    let request = format!("GET /ubuntu/{ROOT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    idle.write_all(request.as_bytes()).await.unwrap();
    wait_for(async || mirror.files("partials").is_empty() && origin.requests(ROOT).len() == 1).await;
    wait_for(async || deleted_and_open(&mirror) == 0).await;
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    assert!(rest.len() < root.len());
}

/// Invariant 6: what was right when it came, and was changed by the disk before a slow host had it all, is cut in either way.
#[tokio::test]
async fn a_slow_host_is_cut_when_what_it_reads_turns_out_to_be_wrong() {
    let root = noise(24 << 20, 1);
    for more in ["", "X-Other: 1\r\n"] {
        let (_origin, mirror) = origin_and_mirror(&root, Builder::default()).await;
        let path = format!("ubuntu/{ROOT}");
        let mut slow = tokio::net::TcpStream::connect(mirror.address()).await.unwrap();
        slow.write_all(format!("GET /{path} HTTP/1.1\r\nHost: x\r\n{more}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
        wait_for(async || mirror.is_hit(&path).await).await;
        let blob = mirror.store().join("blobs").join(&mirror.files("blobs")[0]);
        let mut bytes = std::fs::read(&blob).unwrap();
        bytes[23 << 20] ^= 1;
        std::io::Write::write_all(&mut std::fs::OpenOptions::new().write(true).open(&blob).unwrap(), &bytes).unwrap();
        crate::managing::failed(&mirror, &["cache", "verify"]).await;
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest).await;
        assert!(rest.len() < root.len(), "{more:?}: {}", rest.len());
    }
}

/// T9: each of those who stand still stops at another place, and none of them is given time of its own.
#[tokio::test]
async fn hosts_that_stand_still_are_waited_for_together() {
    let root = noise(40 << 20, 1);
    let builder = Builder::default().storage("min_free = \"0%\"\ncapacity = \"100KiB\"");
    let builder = builder.section("[limits]\nring_size = \"1MiB\"\nsilence_timeout = \"2s\"");
    let (origin, mirror) = origin_and_mirror(&root, builder).await;
    origin.act(ROOT, [Act::StallAt(1000, Duration::from_millis(500))]);
    let request = format!("GET /ubuntu/{ROOT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut hosts = Vec::new();
    for _ in 0..6 {
        let mut host = tokio::net::TcpStream::connect(mirror.address()).await.unwrap();
        host.write_all(request.as_bytes()).await.unwrap();
        hosts.push(host);
    }
    let mut busy = hosts.pop().unwrap();
    let started = std::time::Instant::now();
    let stopping = hosts.iter_mut().enumerate().map(|(number, host)| async move {
        let mut taken = vec![0; (number + 1) * 100_000];
        host.read_exact(&mut taken).await
    });
    let mut answer = Vec::new();
    let (stopped, all) = tokio::join!(futures_util::future::join_all(stopping), busy.read_to_end(&mut answer));
    assert!(stopped.into_iter().all(|read| read.is_ok()) && all.is_ok() && answer.ends_with(&root));
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    assert_eq!(origin.requests(ROOT).len(), 1);
}

/// Some clients end a request with a line too many, or begin the next one.
#[tokio::test]
async fn what_a_host_sends_after_its_request_costs_it_no_bytes() {
    let root = noise(8 << 20, 1);
    let (_origin, mirror) = origin_and_mirror(&root, Builder::default()).await;
    let path = format!("ubuntu/{ROOT}");
    mirror.body(&path).await;
    wait_for(async || mirror.is_hit(&path).await).await;
    let mut stream = tokio::net::TcpStream::connect(mirror.address()).await.unwrap();
    stream.write_all(format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.write_all(b"\r\n").await.unwrap();
    let mut answer = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        // Slower than the server, so that its last bytes are still in the socket when it is done.
        let read = stream.read(&mut piece).await.unwrap();
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..read]);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(answer.ends_with(&root), "{}", answer.len());
}

/// How many files of the store this process has open that have no name any more.
fn deleted_and_open(mirror: &Mirror) -> usize {
    let store = mirror.store().display().to_string();
    let targets = std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with(&store) && target.to_string_lossy().ends_with("(deleted)")).count()
}
