//! How the program is reached, what it goes through to reach others, and what it says of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cistern::app::outside::Outside;
use cistern::app::{App, StartError};
use cistern::clock::SystemClock;
use cistern::config::Config;
use cistern::disk::OsDisk;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::disk::FullDisk;
use crate::support::faulty::{Call, FaultyDisk};
use crate::support::mirror::{Builder, wait_for};
use crate::support::origin::{Act, Origin};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::stream::{Stream, Version};

const INDEX: &str = "streams/v1/index.json";
const FILE: &str = "images/noble/squashfs";
/// A remote that nobody answers for: no test goes out into the world.
const NOBODY: &str = "[remotes.ubuntu]\nurl = [\"http://127.0.0.1:9\"]";
const SOCKETS: &str = "metrics = \"127.0.0.1:0\"\nadmin_socket = \"{folder}/admin.sock\"";

fn stream() -> Stream {
    let version = Version::new("images/noble").file("squashfs", b"root").metadata("lxd.tar.xz", b"metadata");
    Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", version)
}

#[tokio::test]
async fn documents_and_files_come_through_the_proxy_that_a_remote_names() {
    let origin = Origin::start_tls().await;
    origin.put(stream().tree());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.crt"), origin.ca()).unwrap();
    let proxy = Proxy::to(origin.address()).await;
    let more = format!("proxy = \"{}\"\nca = \"{}/ca.crt\"", proxy.url(), folder.path().display());
    // The certificate is for localhost, and at this port nobody listens: only the proxy knows the way.
    let mirror = Builder::default().remote("ubuntu", &["https://localhost:9".to_owned()], &more).start().await;
    assert_eq!(mirror.body(&format!("ubuntu/{FILE}")).await, b"root");
    assert_eq!(origin.requests(FILE).len(), 1);
    assert!(proxy.asked().iter().all(|name| name == "localhost:9"), "{:?}", proxy.asked());
}

#[tokio::test]
async fn the_environments_proxy_is_used_but_for_those_that_it_excepts() {
    let (near, far) = (Origin::start().await, Origin::start().await);
    near.put(stream().tree());
    far.put(stream().tree());
    let proxy = Proxy::to(far.address()).await;
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nplain_http = \"all\"\n{SOCKETS}\n\
         [remotes.near]\nurl = [\"{}\"]\n[remotes.far]\nurl = [\"http://far.example\"]",
        near.url()
    );
    let server = Server::start(&config, &[("HTTP_PROXY", &proxy.url()), ("NO_PROXY", "127.0.0.1")]);
    let client = server.client();
    for remote in ["near", "far"] {
        let url = format!("http://{}/{remote}/{INDEX}", server.addresses()[0]);
        wait_for(async || client.get(&url).send().await.unwrap().status() == 200).await;
    }
    let asked = proxy.asked();
    assert!(!asked.is_empty() && asked.iter().all(|target| target.starts_with("http://far.example/")), "{asked:?}");
    assert!(!near.requests(INDEX).is_empty() && !far.requests(INDEX).is_empty());
}

#[tokio::test]
async fn every_address_of_the_configuration_is_listened_on() {
    let mut wanted = vec!["127.0.0.1:0", "127.0.0.2:0"];
    // Not every machine has it.
    wanted.extend(std::net::TcpListener::bind("[::1]:0").is_ok().then_some("[::1]:0"));
    let config = format!("[server]\nlisten = {wanted:?}\n{SOCKETS}\n{NOBODY}");
    let server = Server::start(&config, &[]);
    assert_eq!(server.addresses().len(), wanted.len());
    for address in server.addresses() {
        let page = server.client().get(format!("https://{address}/")).send().await.unwrap();
        assert_eq!(page.status(), 200, "{address}");
    }
}

#[tokio::test]
async fn each_answer_is_a_line_of_the_access_log() {
    for form in ["combined", "json"] {
        let config = format!("[server]\nlisten = [\"127.0.0.1:0\"]\n{SOCKETS}\n[log]\naccess = \"{form}\"\n{NOBODY}");
        let server = Server::start(&config, &[]);
        // A quotation mark that no library would send.
        let mut stream = TcpStream::connect(&server.addresses()[0]).await.unwrap();
        let request = "GET /ubuntu/a\"b?x=1 HTTP/1.1\r\nHost: x\r\nUser-Agent: test \"x\"\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let line = server.line();
        if form == "combined" {
            let (client, rest) = line.split_once(" - - [").unwrap();
            let (time, rest) = rest.split_once("] ").unwrap();
            assert_eq!((client, time.len()), ("127.0.0.1", "23/Nov/2026:12:00:00 +0000".len()), "{line}");
            assert_eq!(rest, format!(r#""GET /ubuntu/a\"b?x=1 HTTP/1.1" 503 {} "-" "test \"x\"""#, body.len()));
        } else {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!((line["client"].as_str(), line["status"].as_u64()), (Some("127.0.0.1"), Some(503)), "{line}");
            assert_eq!((line["bytes"].as_u64(), line["result"].as_str()), (Some(body.len() as u64), Some("error")), "{line}");
        }
    }
}

#[tokio::test]
async fn documents_are_refreshed_at_the_interval() {
    let origin = Origin::start().await;
    origin.put(stream().tree());
    let mirror = Builder::default().remote("ubuntu", &[origin.url()], "interval = \"1s\"").start().await;
    wait_for(async || origin.requests(INDEX).len() >= 4).await;
    let times: Vec<_> = origin.requests(INDEX).iter().map(|seen| seen.at).collect();
    let waits: Vec<Duration> = times.windows(2).map(|two| two[1] - two[0]).collect();
    // A tenth is left to chance; how much later a busy machine gets to it is its own affair.
    assert!(waits.iter().all(|wait| *wait > Duration::from_millis(890)), "{waits:?}");
    drop(mirror);
}

#[tokio::test]
async fn a_full_disk_at_the_start_is_said_in_one_line_and_one_that_holds_a_store_goes_on_serving() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nmetrics = \"127.0.0.1:0\"\nadmin_socket = \"{path}/admin.sock\"\n[storage]\npath = \"{path}/store\""
    );
    let disk = FullDisk::empty();
    disk.leave(0);
    let start = async || {
        let outside = Outside { disk: Arc::new(disk.clone()), clock: Arc::new(SystemClock), upstreams: HashMap::new() };
        App::start(Config::parse(&text, "test", []).unwrap(), outside).await
    };
    let said = start().await.map(drop).map_err(|error: StartError| error.to_string()).unwrap_err();
    assert!(said.contains(&format!("{path}/store")) && said.contains("no storage space"), "{said}");
    assert!(said.contains("must be") && !said.contains('\n'), "it says what to do: {said}");

    let origin = Origin::start().await;
    origin.put(stream().tree());
    let disk = FullDisk::empty();
    let mirror = Builder::default().disk(disk.clone()).remote("ubuntu", &[origin.url()], "").start().await;
    disk.leave(0);
    let mirror = mirror.restart().await;
    assert_eq!(mirror.body(&format!("ubuntu/{FILE}")).await, b"root", "what cannot be stored is passed through");
    assert_eq!(mirror.files("blobs"), [""; 0]);
}

/// Times of use are written down every few seconds: what was written survives a crash, and what is held does in any case.
#[tokio::test]
async fn a_crash_loses_at_most_one_batch_of_uses() {
    let origin = Origin::start().await;
    origin.put(stream().tree());
    let remote = format!("[remotes.ubuntu]\nurl = [\"{}\"]", origin.url());
    let server = Server::start(&format!("[server]\nlisten = [\"127.0.0.1:0\"]\n{SOCKETS}\n{remote}"), &[]);
    let pull = async |server: &Server, file: &str| {
        let url = format!("http://{}/ubuntu/images/noble/{file}", server.addresses()[0]);
        server.client().get(url).send().await.unwrap().error_for_status().unwrap().bytes().await.unwrap();
    };
    let images = async |server: &Server| -> Vec<cistern::api::Image> {
        let socket = server.folder().join("admin.sock");
        cistern::cli::admin::ask(&socket, hyper::Method::GET, "/1.0/images?held", Vec::new()).await.unwrap_or_default()
    };
    wait_for(async || {
        !server.client().get(format!("https://localhost:{}/{INDEX}", port(&server))).send().await.unwrap().status().is_server_error()
    })
    .await;
    pull(&server, "metadata.tar.xz").await;
    pull(&server, "squashfs").await;
    wait_for(async || images(&server).await.len() == 1).await;
    for _ in 0..4 {
        pull(&server, "squashfs").await;
    }
    wait_for(async || images(&server).await[0].use_count == 5).await;
    // The pause between two batches is five seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;
    pull(&server, "squashfs").await;
    let server = server.kill_and_restart();
    wait_for(async || images(&server).await.len() == 1).await;
    let image = images(&server).await.remove(0);
    assert!(image.use_count == 5 || image.use_count == 6, "{image:?}");
}

fn port(server: &Server) -> &str {
    server.addresses()[0].rsplit(':').next().unwrap()
}

/// What an operator wrote into the configuration is for image servers and proxies, and for nobody who reads logs, metrics, lists
/// or the answers to hosts; also when it is what goes wrong.
#[tokio::test]
async fn secrets_reach_no_log_no_metric_no_list_and_no_host() {
    const SECRET: &str = "geheim";
    let origin = Origin::start().await;
    origin.put(stream().tree());
    let proxy = Proxy::to(origin.address()).await;
    let secret = |url: &str| url.replace("http://", &format!("http://me:{SECRET}@"));
    let (url, dead) = (secret(&origin.url()), secret("http://127.0.0.1:9"));
    let through = secret(&proxy.url());
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nplain_http = \"all\"\nmetrics = \"127.0.0.1:{}\"\nadmin_socket = \"{{folder}}/admin.sock\"\n\
         [log]\nlevel = \"trace\"\naccess = \"json\"\n\
         [remotes.good]\nurl = [\"{dead}\", \"{url}\"]\ninterval = \"100ms\"\nheaders = {{ X-Token = \"{SECRET}\" }}\n\
         [remotes.bad]\nurl = [\"{dead}\"]\n[remotes.proxied]\nurl = [\"{url}\"]\nproxy = \"{through}\"\n\
         [remotes.wrong]\nurl = [\"{url}\"]\nproxy = \"{dead}\"",
        std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
    );
    let server = Server::start(&config, &[]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let host = format!("http://{}", server.addresses()[0]);
    wait_for(async || client.get(format!("{host}/good/{FILE}")).send().await.is_ok_and(|answer| answer.status() == 200)).await;
    assert!(origin.requests(INDEX).iter().any(|seen| seen.head.contains(SECRET)), "it goes where it belongs");
    origin.act(FILE, [Act::Status(401, ""), Act::WrongBytes]);
    let mut seen = String::new();
    for path in ["", "good/streams/v1/images.json", "bad/x", "proxied/images/noble/squashfs", "wrong/images/noble/squashfs", "good/none"] {
        seen.push_str(&client.get(format!("{host}/{path}")).send().await.unwrap().text().await.unwrap());
    }
    seen.push_str(&client.get(server.metrics()).send().await.unwrap().text().await.unwrap());
    let socket = server.folder().join("admin.sock");
    let remotes: serde_json::Value = cistern::cli::admin::ask(&socket, hyper::Method::GET, "/1.0/remotes", Vec::new()).await.unwrap();
    seen.push_str(&remotes.to_string());
    server.signal(rustix::process::Signal::HUP);
    wait_for(async || server.log().contains("in force")).await;
    let log = server.log();
    assert!(log.contains("upstream failed") && log.len() > 2000);
    // As it is written, and as it travels.
    for secret in [SECRET, "bWU6Z2VoZWlt"] {
        assert!(!seen.contains(secret), "{seen}");
        assert!(!log.contains(secret), "{log}");
    }
}

/// A disk that never answers keeps a thread, and nobody else: not the scrub, a host, or a person who changed the configuration.
#[tokio::test]
async fn a_stop_does_not_wait_for_a_disk_that_never_answers() {
    let origin = Origin::start().await;
    origin.put(stream().tree());
    let disk = FaultyDisk::over(OsDisk);
    let builder = Builder::default().disk(disk.clone()).storage("min_free = \"0%\"\nscrub = \"1s\"");
    let mirror = builder.remote("ubuntu", &[origin.url()], "").start().await;
    mirror.body(&format!("ubuntu/{FILE}")).await;
    wait_for(async || mirror.is_hit(&format!("ubuntu/{FILE}")).await).await;
    disk.hang(Call::Open);
    wait_for(async || disk.is_busy()).await;
    mirror.begin_to_reload().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = std::time::Instant::now();
    mirror.stop().await;
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    disk.heal();
}

/// Nobody writes to a pipe: it is no configuration, and waiting for it would keep every signal from being heard.
#[tokio::test]
async fn a_pipe_in_the_place_of_the_configuration_is_refused_and_signals_are_heard() {
    let config = format!("[server]\nlisten = [\"127.0.0.1:0\"]\ndrain = \"1s\"\n{SOCKETS}\n{NOBODY}");
    let mut server = Server::start(&config, &[]);
    let file = server.folder().join("cistern.toml");
    std::fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    server.signal(rustix::process::Signal::HUP);
    wait_for(async || server.log().contains("the new configuration is refused")).await;
    assert!(server.log().contains("it is no plain file"), "{}", server.log());
    std::fs::remove_file(&file).unwrap();
    server.configure(&config);
    server.signal(rustix::process::Signal::HUP);
    wait_for(async || server.log().contains("the new configuration is in force")).await;
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.ended(), Some(0));
}
