//! Every bound is reached, and what is beyond it waits or is refused while everything else goes on. Those that are waits are
//! in `timing`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::support::disk::FullDisk;
use crate::support::mirror::{Builder, Mirror, free_port, wait_for};
use crate::support::origin::{Act, Origin};
use crate::support::script::{Play, Script};
use crate::support::server::Server;
use crate::support::stage::Stage;
use crate::support::stream::{Stream, Version, noise};

/// So many images, with roots `images/0/squashfs` and so on.
fn images(count: usize, size: usize) -> Stream {
    (0..count).fold(Stream::default(), |stream, number| {
        let version = Version::new(&format!("images/{number}"))
            .file("squashfs", &noise(size, number as u64))
            .metadata("lxd.tar.xz", number.to_string().as_bytes());
        stream.add(&format!("ubuntu:{number}:amd64"), &number.to_string(), "20260101", version)
    })
}

fn path(number: usize) -> String {
    format!("lab/images/{number}/squashfs")
}

async fn mirror(stream: &Stream, builder: Builder) -> (Origin, Mirror) {
    let origin = Origin::start().await;
    origin.put(stream.tree());
    let mirror = builder.remote("lab", &[origin.url()], "").start().await;
    (origin, mirror)
}

async fn stage(limits: &str) -> (Arc<Script>, Stage) {
    let script = Script::new(1);
    script.put(images(6, 100_000).tree());
    let stage = Stage::start(&script, &format!("[limits]\n{limits}"), Duration::from_millis(20)).await;
    (script, stage)
}

fn far(number: usize) -> String {
    format!("far/images/{number}/squashfs")
}

fn slowly(script: &Script, numbers: impl IntoIterator<Item = usize>) {
    // A hundred seconds for each.
    let play = || Play::Slow(1000, Duration::from_secs(1));
    numbers.into_iter().for_each(|number| script.play(0, &format!("images/{number}/squashfs"), [play()]));
}

async fn begin(mirror: &Mirror) -> TcpStream {
    let mut stream = TcpStream::connect(mirror.address()).await.unwrap();
    stream.write_all(b"GET /lab/images/0/squashfs HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    stream
}

async fn is_answered(stream: &mut TcpStream, patience: Duration) -> bool {
    let first = tokio::time::timeout(patience, stream.read_u8()).await;
    first.is_ok_and(|byte| byte.is_ok())
}

#[tokio::test]
async fn more_connections_than_may_be_wait_in_the_queue() {
    let builder = Builder::default().section("[limits]\nconnections = 3");
    let (_origin, mirror) = mirror(&images(1, 1000), builder).await;
    let mut three = [begin(&mirror).await, begin(&mirror).await, begin(&mirror).await];
    for stream in &mut three {
        assert!(is_answered(stream, Duration::from_secs(10)).await);
    }
    let mut fourth = begin(&mirror).await;
    assert!(!is_answered(&mut fourth, Duration::from_millis(400)).await);
    drop(three);
    assert!(is_answered(&mut fourth, Duration::from_secs(10)).await);
}

#[tokio::test(start_paused = true)]
async fn more_downloads_than_may_be_wait_for_their_turn_and_what_is_held_does_not() {
    let (script, stage) = stage("fetches = 2\nmirror_fetches = 1").await;
    assert_eq!(stage.get(&far(5)).await.status(), 200);
    slowly(&script, 0..2);
    let paths: Vec<String> = (0..3).map(far).collect();
    let begun = join_all(paths[..2].iter().map(|path| stage.get(path)));
    let late = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(stage.get(&far(5)).await.ended < Duration::from_secs(1), "it is held");
        stage.get(&paths[2]).await
    };
    let (begun, late) = tokio::join!(begun, late);
    assert!(begun.iter().all(crate::support::stage::Got::is_whole));
    assert_eq!(late.status(), 503, "{}", late.head);
    assert!(late.head.contains("retry-after") && late.answered >= Duration::from_secs(15) && late.answered < Duration::from_secs(20));
    assert!(script.asked("images/2/squashfs").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_begins_very_many_downloads_waits_and_others_do_not() {
    let (script, stage) = stage("client_fetches = 2").await;
    slowly(&script, 0..2);
    let paths: Vec<String> = (0..5).map(far).collect();
    let greedy = join_all(paths[..2].iter().map(|path| stage.get_from(1, path)));
    let late = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let third = stage.get_from(1, &paths[4]);
        let other = async {
            let other = stage.get_from(2, &paths[3]).await;
            assert!(other.is_whole() && other.ended < Duration::from_secs(2), "another host gets its file at once: {other:?}");
        };
        let joined = stage.get_from(1, &paths[0]);
        // One that the greedy host waits for, and another host brings in meanwhile.
        let brought = async {
            let waiting = stage.get_from(1, &paths[2]);
            let bringing = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                stage.get_from(2, &paths[2]).await
            };
            tokio::join!(waiting, bringing)
        };
        tokio::join!(third, other, joined, brought)
    };
    let (greedy, (third, (), joined, brought)) = tokio::join!(greedy, late);
    assert!(brought.0.is_whole() && brought.1.is_whole(), "{brought:?}");
    assert!(greedy.iter().all(crate::support::stage::Got::is_whole));
    assert_eq!(third.status(), 503, "{third:?}");
    assert!(joined.is_whole(), "what is begun already is no new download");
    assert!(stage.get_from(1, &paths[4]).await.is_whole(), "and it may begin others when those are over");
}

#[tokio::test]
async fn more_readers_of_a_file_than_may_be_are_told_to_come_later() {
    let builder = Builder::default().section("[limits]\nfile_readers = 2");
    let (origin, mirror) = mirror(&images(2, 4 << 20), builder).await;
    origin.act("images/0/squashfs", [Act::StallAt(1000, Duration::from_millis(600))]);
    let (first, second) = (mirror.get(&path(0)).await, mirror.get(&path(0)).await);
    let third = mirror.get(&path(0)).await;
    assert_eq!((third.status().as_u16(), third.headers().contains_key("retry-after")), (503, true));
    assert_eq!(mirror.get(&path(1)).await.status(), 200, "another file");
    assert_eq!(first.bytes().await.unwrap().len(), 4 << 20);
    drop(second);
    // Held by now, and read by nobody.
    wait_for(async || mirror.get(&path(0)).await.status() == 200).await;
}

#[tokio::test]
async fn more_downloads_through_memory_than_may_be_end() {
    let disk = FullDisk::empty();
    let builder = Builder::default().disk(disk.clone()).section("[limits]\nunbuffered_fetches = 1\nring_size = \"64KiB\"");
    let (origin, mirror) = mirror(&images(2, 400_000), builder).await;
    disk.leave(0);
    origin.act("images/0/squashfs", [Act::Dribble(40_000, Duration::from_millis(150))]);
    let first = mirror.get(&path(0)).await;
    // By then it knows that the disk does not take it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let second = mirror.get(&path(1)).await;
    assert!(second.status() == 503 || second.bytes().await.is_err(), "what the disk took before may have been sent already");
    assert_eq!(first.bytes().await.unwrap(), noise(400_000, 0));
    wait_for(async || mirror.get(&path(1)).await.bytes().await.is_ok_and(|bytes| bytes == noise(400_000, 1))).await;
}

/// What is not stored is read no faster than its slowest reader takes it, up to the ring's size.
#[tokio::test(start_paused = true)]
async fn a_download_through_memory_takes_no_more_than_its_ring() {
    let (disk, script) = (FullDisk::empty(), Script::new(1));
    script.put(images(1, 8 << 20).tree());
    let limits = "[limits]\nring_size = \"256KiB\"\nsilence_timeout = \"1h\"";
    let stage = Stage::start_on(Arc::new(disk.clone()), &script, limits, Duration::from_millis(20)).await;
    disk.leave(0);
    script.play(0, "images/0/squashfs", [Play::Slow(16 << 10, Duration::from_millis(20))]);
    let mut pipe = stage.connect();
    pipe.write_all(crate::support::stage::request(&far(0)).as_bytes()).await.unwrap();
    let mut head = [0; 15];
    pipe.read_exact(&mut head).await.unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    // In that time upstream could have sent 48 MiB. There are a ring, a pipe, and a frame on the way.
    let sent = script.sent();
    assert!((256 << 10..1 << 20).contains(&sent), "{sent} bytes were taken from upstream");
}

#[tokio::test]
async fn no_more_files_stay_open_than_may() {
    let (_origin, mirror) = mirror(&images(20, 1000), Builder::default().section("[limits]\nopen_files = 4")).await;
    for number in 0..20 {
        mirror.body(&path(number)).await;
    }
    let blobs = mirror.store().join("blobs");
    let open = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        files.filter(|file| file.starts_with(&blobs)).count()
    };
    wait_for(async || {
        mirror.body(&path(0)).await;
        open() <= 4
    })
    .await;
}

async fn refusal(builder: Builder, prepare: impl FnOnce(&Origin)) -> (String, Duration) {
    let (origin, mirror) = mirror(&images(1, 1000), builder).await;
    let before = mirror.body("lab/streams/v1/images.json").await;
    origin.put(images(2, 1000).tree());
    prepare(&origin);
    let started = Instant::now();
    let report = mirror.refresh("lab", false).await;
    assert_eq!(mirror.body("lab/streams/v1/images.json").await, before, "the old documents go on: {report:?}");
    (report.reason.unwrap(), started.elapsed())
}

#[tokio::test]
async fn a_document_may_be_so_large_also_when_it_is_unpacked_and_however_it_comes() {
    for act in [Act::Packed(50 << 20), Act::Endless] {
        let builder = Builder::default().section("[limits]\ndocument_size = \"64KiB\"");
        let (reason, took) = refusal(builder, |origin| origin.act("streams/v1/images.json", [act.clone()])).await;
        assert!(reason.contains("65536 bytes") && took < Duration::from_secs(5), "{act:?}: {reason}");
    }
}

#[tokio::test]
async fn a_refresh_may_take_so_long() {
    let builder = Builder::default().section("[limits]\nrefresh_timeout = \"600ms\"");
    let dribble = Act::Dribble(1, Duration::from_millis(20));
    let (reason, took) = refusal(builder, |origin| origin.act("streams/v1/images.json", [dribble])).await;
    assert!(reason.contains("600ms") || reason.contains("too long"), "{reason}");
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(4), "{took:?}");
}

/// A server that accepts no connection, as one whose machine is gone.
#[tokio::test]
async fn a_server_that_cannot_be_connected_to_costs_its_time_out() {
    let dead = TcpSocket::new_v4().unwrap();
    dead.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let dead = dead.listen(1).unwrap();
    let address = dead.local_addr().unwrap();
    // Its queue is full, and so the system drops what asks for a connection.
    let mut queued = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        queued.push(stream);
    }
    let origin = Origin::start().await;
    origin.put(images(1, 1000).tree());
    let urls = [format!("http://{address}"), origin.url()];
    let mirror = Builder::default().section("[limits]\nconnect_timeout = \"300ms\"").remote("lab", &urls, "").start().await;
    let started = Instant::now();
    assert_eq!(mirror.body(&path(0)).await.len(), 1000);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

/// An endless file of which nobody knows the size takes no more than there is room for, and ends when nobody reads it.
#[tokio::test]
async fn an_endless_file_ends_with_its_readers() {
    let stream = images(1, 100_000).with("ubuntu:0:amd64", |product| {
        let item = &mut product["versions"]["20260101"]["items"]["squashfs"];
        item.as_object_mut().unwrap().remove("size");
    });
    let builder = Builder::default().storage("capacity = \"4MiB\"\nmin_free = \"0%\"").metrics(free_port());
    let (origin, mirror) = mirror(&stream, builder).await;
    origin.act("images/0/squashfs", [Act::Endless]);
    let mut response = mirror.get(&path(0)).await;
    let mut len = 0;
    while len < 20 << 20 {
        len += response.chunk().await.unwrap().expect("it goes on").len();
    }
    drop(response);
    wait_for(async || mirror.metric("cistern_fetches_in_flight").await < 0.5).await;
    assert_eq!(mirror.files("blobs").len(), 0);
    assert!(mirror.metric("cistern_cache_size_bytes").await <= f64::from(4 << 20));
}

#[tokio::test]
async fn an_h2_connection_may_have_so_many_requests_at_once() {
    let (origin, mirror) = mirror(&images(1, 100_000), Builder::default()).await;
    origin.act("images/0/squashfs", [Act::StallAt(1000, Duration::from_secs(3))]);
    let ca = reqwest::Certificate::from_pem_bundle(&std::fs::read(mirror.ca()).unwrap()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only(ca).no_proxy().http2_prior_knowledge().build().unwrap();
    let url = format!("{}/{}", mirror.url(), path(0));
    // The first one opens the connection that the others use.
    let first = client.get(&url).send().await.unwrap();
    let started = Instant::now();
    let answers = join_all((0..80).map(|_| async {
        let response = client.get(&url).send().await.unwrap();
        let answered = started.elapsed();
        response.bytes().await.unwrap();
        answered
    }))
    .await;
    let early = answers.iter().filter(|answered| **answered < Duration::from_millis(2500)).count();
    assert_eq!(early, 63, "64 with the first; the others wait");
    drop(first);
}

#[tokio::test]
async fn metrics_and_commands_have_connections_of_their_own_and_not_too_many() {
    let port = free_port();
    let (_origin, mirror) = mirror(&images(1, 1000), Builder::default().metrics(port)).await;
    let probe = async || {
        let url = format!("http://127.0.0.1:{port}/livez");
        let answer = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(400)).build().unwrap().get(url).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    };
    let idle = join_all((0..64).map(|_| TcpStream::connect(("127.0.0.1", port)))).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!probe().await);
    drop(idle);
    wait_for(probe).await;

    let idle = join_all((0..64).map(|_| UnixStream::connect(mirror.socket()))).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let list = tokio::time::timeout(Duration::from_millis(400), mirror.remotes()).await;
    assert!(list.is_err());
    drop(idle);
    assert_eq!(mirror.remotes().await.len(), 1);
}

/// T9: what a host that reads 10 kB a second costs.
#[tokio::test]
async fn a_slow_host_costs_less_than_a_mebibyte() {
    const HOSTS: usize = 200;
    let origin = Origin::start().await;
    origin.put(images(2, 24 << 20).tree());
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nmetrics = \"127.0.0.1:0\"\nadmin_socket = \"{{folder}}/admin.sock\"\n[remotes.lab]\nurl = [\"{}\"]",
        origin.url()
    );
    let server = Server::start(&config, &[]);
    let address: std::net::SocketAddr = server.addresses()[0].parse().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let held = format!("http://{address}/{}", path(0));
    wait_for(async || client.get(&held).send().await.is_ok_and(|answer| answer.status() == 200)).await;
    assert_eq!(client.get(&held).send().await.unwrap().bytes().await.unwrap().len(), 24 << 20);
    // Half of them read what is held, and half what comes in meanwhile.
    origin.act("images/1/squashfs", [Act::Dribble(4 << 20, Duration::from_millis(300))]);
    let before = server.resident_bytes();
    let hosts: Vec<_> = (0..HOSTS).map(|number| tokio::spawn(read_slowly(address, path(number % 2)))).collect();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let each = server.resident_bytes().saturating_sub(before) / HOSTS as u64;
    assert!(hosts.iter().all(|host| !host.is_finished()), "all of them still read");
    assert!(each < 1 << 20, "{each} bytes for each");
    hosts.iter().for_each(tokio::task::JoinHandle::abort);
}

async fn read_slowly(address: std::net::SocketAddr, path: String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(crate::support::stage::request(&path).as_bytes()).await.unwrap();
    let mut buffer = vec![0; 10_000];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_remote_may_have_so_many_documents() {
    let builder = Builder::default().section("[limits]\ndocuments = 5");
    let many = |origin: &Origin| {
        let entry = |number: usize| {
            let path = format!("streams/v1/{number}.json");
            (
                format!("c{number}"),
                serde_json::json!({"datatype": "image-downloads", "path": path, "format": "products:1.0", "products": []}),
            )
        };
        let entries: serde_json::Map<_, _> = (0..9).map(entry).collect();
        let index = serde_json::json!({"format": "index:1.0", "index": entries}).to_string().into_bytes();
        let products = |number: usize| {
            let document = serde_json::json!({"format": "products:1.0", "content_id": format!("c{number}"), "products": {}});
            (format!("streams/v1/{number}.json"), document.to_string().into_bytes())
        };
        origin.put((0..9).map(products).chain([("streams/v1/index.json".to_owned(), index)]));
    };
    let (reason, _) = refusal(builder, many).await;
    assert!(reason.contains("more than 5 documents (limits.documents)"), "{reason}");
}
