//! Certificates change and the program stops while hosts connect and download.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cistern::clock::{Clock as _, SystemClock};
use cistern::disk::OsDisk;
use cistern::tls::authority::Authority;
use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::mirror::wait_for;
use crate::support::origin::{Act, Origin};
use crate::support::server::Server;
use crate::support::stream::{Stream, Version, noise};

const HOSTS: usize = 200;
/// More than the system takes at once from whoever sends it.
const LARGE: usize = 24 << 20;

/// An origin with a small file and a large one, and a server whose certificate the operator made.
async fn server() -> (Origin, Server) {
    let origin = Origin::start().await;
    let version =
        Version::new("images").file("squashfs", &noise(1000, 1)).file("root.tar.xz", &noise(400_000, 2)).metadata("lxd.tar.xz", b"m");
    let large = Version::new("large").file("squashfs", &noise(LARGE, 3)).metadata("lxd.tar.xz", b"m");
    let stream = Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", version);
    origin.put(stream.add("ubuntu:large:amd64", "large", "20260101", large).tree());
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nmetrics = \"127.0.0.1:0\"\nadmin_socket = \"{{folder}}/admin.sock\"\ndrain = \"20s\"\n\
         [tls]\ncertificate = \"{{folder}}/own.crt\"\nkey = \"{{folder}}/own.key\"\n[remotes.lab]\nurl = [\"{}\"]",
        origin.url()
    );
    let server = Server::start_with(&config, certificate);
    wait_for(async || client().get(url(&server, "streams/v1/index.json")).send().await.is_ok_and(|answer| answer.status() == 200)).await;
    (origin, server)
}

/// Writes another certificate.
fn certificate(folder: &std::path::Path) {
    let scratch = tempfile::tempdir().unwrap();
    let authority = Authority::new(&OsDisk, scratch.path());
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()].into();
    authority.server(&names, SystemClock.now(), true).unwrap();
    for (file, name) in [("server.crt", "own.crt"), ("server.key", "own.key"), ("ca.crt", "own-ca.crt")] {
        let bytes = std::fs::read(scratch.path().join(file)).unwrap();
        std::fs::write(folder.join(format!("{name}.new")), bytes).unwrap();
        std::fs::rename(folder.join(format!("{name}.new")), folder.join(name)).unwrap();
    }
}

/// A host that believes any certificate: it sees others one after the other.
fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().pool_max_idle_per_host(0);
    client.build().unwrap()
}

fn url(server: &Server, path: &str) -> String {
    format!("https://{}/{path}", server.addresses()[0])
}

/// T39: not one handshake and not one download fails while certificates change under them.
#[tokio::test]
async fn certificates_change_under_two_hundred_hosts_and_none_of_them_notices() {
    let (_origin, server) = server().await;
    let (is_over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let hosts = (0..HOSTS).map(|_| {
        let (client, url, is_over, done) = (client(), url(&server, "lab/images/squashfs"), Arc::clone(&is_over), Arc::clone(&done));
        tokio::spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let answer = client.get(&url).send().await.unwrap();
                assert_eq!(answer.bytes().await.unwrap(), noise(1000, 1));
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let hosts: Vec<_> = hosts.collect();
    for _ in 0..5 {
        let before = done.load(Ordering::Relaxed);
        certificate(server.folder());
        server.signal(Signal::HUP);
        wait_for(async || done.load(Ordering::Relaxed) >= before + HOSTS).await;
    }
    // A host that trusts only the newest CA is served.
    let ca = reqwest::Certificate::from_pem_bundle(&std::fs::read(server.folder().join("own-ca.crt")).unwrap()).unwrap();
    wait_for(async || {
        let strict = reqwest::Client::builder().tls_certs_only(ca.clone()).no_proxy().build().unwrap();
        strict.get(url(&server, "lab/images/squashfs")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    is_over.store(true, Ordering::Relaxed);
    join_all(hosts).await.into_iter().for_each(|host| host.unwrap());
}

/// T39: what is under way when the program is told to stop is finished, and nothing new is begun.
#[tokio::test]
async fn two_hundred_downloads_end_well_when_the_program_is_told_to_stop() {
    let (origin, mut server) = server().await;
    origin.act("images/root.tar.xz", [Act::Dribble(40_000, Duration::from_millis(250))]);
    let began = Arc::new(AtomicUsize::new(0));
    let hosts = (0..HOSTS).map(|_| {
        let (client, url, began) = (client(), url(&server, "lab/images/root.tar.xz"), Arc::clone(&began));
        tokio::spawn(async move {
            let answer = client.get(&url).send().await.unwrap();
            began.fetch_add(1, Ordering::Relaxed);
            answer.bytes().await
        })
    });
    let hosts: Vec<_> = hosts.collect();
    wait_for(async || began.load(Ordering::Relaxed) == HOSTS).await;
    server.signal(Signal::TERM);
    wait_for(async || client().get(url(&server, "lab/images/squashfs")).send().await.is_err()).await;
    for host in join_all(hosts).await {
        assert_eq!(host.unwrap().unwrap(), noise(400_000, 2));
    }
    assert_eq!(server.ended(), Some(0));
}

/// T39: the same for a file that the kernel sends.
#[tokio::test]
async fn a_held_file_is_sent_to_its_end_when_the_program_is_told_to_stop() {
    let (_origin, mut server) = server().await;
    let path = "lab/large/squashfs";
    assert_eq!(client().get(url(&server, path)).send().await.unwrap().bytes().await.unwrap().len(), LARGE);
    let by_kernel = async || {
        let mut stream = TcpStream::connect(&server.addresses()[0]).await.unwrap();
        let request = format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 1024];
        stream.read_exact(&mut head).await.unwrap();
        (stream, head.to_vec())
    };
    let is_hit = |head: &[u8]| String::from_utf8_lossy(head).contains("cache-status: cistern; hit");
    wait_for(async || is_hit(&by_kernel().await.1)).await;
    let (mut stream, mut answer) = by_kernel().await;
    server.signal(Signal::TERM);
    tokio::time::sleep(Duration::from_millis(500)).await;
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(&noise(LARGE, 3)));
    assert_eq!(server.ended(), Some(0));
}

/// T39: a host that was let in just before may still ask; one that asks nothing holds nobody up.
#[tokio::test]
async fn who_was_let_in_before_the_program_is_told_to_stop_is_answered() {
    let (_origin, mut server) = server().await;
    let (mut late, idle) =
        (TcpStream::connect(&server.addresses()[0]).await.unwrap(), TcpStream::connect(&server.addresses()[0]).await.unwrap());
    tokio::time::sleep(Duration::from_millis(100)).await;
    // One byte of a handshake, and one of a request.
    let mut half = Vec::new();
    for byte in [b"\x16", b"G"] {
        let mut stream = TcpStream::connect(&server.addresses()[0]).await.unwrap();
        stream.write_all(byte).await.unwrap();
        half.push(stream);
    }
    let started = Instant::now();
    server.signal(Signal::TERM);
    tokio::time::sleep(Duration::from_millis(100)).await;
    late.write_all(b"GET /lab/images/squashfs HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    late.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(&noise(1000, 1)));
    assert_eq!(server.ended(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    drop((idle, half));
}
