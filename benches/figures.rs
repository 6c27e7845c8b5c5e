//! The figures that the program is to reach, each beside its limit. `cargo bench --bench figures`
//!
//! Absolute times mean little on a shared machine; what is compared is a limit with room to spare, or one time with
//! another of the same run.

mod carrying;
mod holding;
mod large_store;
mod refreshing;
#[path = "../tests/support/main.rs"]
mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::large::large_document;
use crate::support::mirror::wait_for;
use crate::support::origin::{Act, Origin};
use crate::support::stream::{Stream, Version, noise};

const CISTERN: &str = env!("CARGO_BIN_EXE_cistern");
const FILE: &str = "images/noble/squashfs";

#[tokio::main]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    println!("{:<66} {:>12}   {:<12}", "figure", "measured", "limit");
    if is_wanted("herd") {
        herd().await;
    }
    if is_wanted("refresh") {
        refreshing::run().await;
    }
    if is_wanted("memory") {
        memory().await;
    }
    if is_wanted("start") {
        start().await;
    }
    if is_wanted("ledger") {
        holding::decisions();
        holding::large_store().await;
    }
    if is_wanted("bundles") {
        carrying::run().await;
    }
    if is_wanted("verify") {
        carrying::verify();
    }
    if is_wanted("list") {
        holding::list().await;
    }
}

fn report(figure: &str, measured: &str, limit: &str, is_reached: bool) {
    println!("{figure:<66} {measured:>12}   {limit:<12} {}", if is_reached { "reached" } else { "MISSED" });
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn one_file(bytes: &[u8]) -> Stream {
    Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", Version::new("images/noble").file("squashfs", bytes))
}

/// 64 hosts ask for a file that is not held, and which upstream sends at some 100 MB/s. The median of five herds.
async fn herd() {
    let mut herds = Vec::new();
    for _ in 0..5 {
        herds.push(one_herd().await);
    }
    let requests = herds.iter().map(|(requests, _)| *requests).max().unwrap();
    herds.sort_by_key(|(_, slowest)| *slowest);
    let (_, slowest) = herds[herds.len() / 2];
    report("cold herd of 64: requests to upstream", &requests.to_string(), "1", requests == 1);
    report("cold herd of 64: last first byte after upstream's", &millis(slowest), "50 ms", slowest < Duration::from_millis(50));
}

/// How many requests upstream saw, and when the last host got its first byte, from the moment on when upstream was asked.
async fn one_herd() -> (usize, Duration) {
    const PIECE: usize = 1 << 20;
    const PAUSE: Duration = Duration::from_millis(10);
    let origin = Origin::start().await;
    origin.put(one_file(&noise(32 << 20, 1)).tree());
    origin.act(FILE, [Act::Dribble(PIECE, PAUSE)]);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &origin.url()).await;
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let url = format!("http://{}/ubuntu/{FILE}", server.address);
    wait_for(async || client.head(&url).send().await.is_ok_and(|response| response.status() == 200)).await;
    let hosts = (0..64).map(|_| {
        let (client, url) = (client.clone(), url.clone());
        tokio::spawn(async move {
            let mut response = client.get(url).send().await.unwrap();
            response.chunk().await.unwrap().unwrap();
            let first = Instant::now();
            while response.chunk().await.unwrap().is_some() {}
            first
        })
    });
    let mut firsts = Vec::new();
    for host in hosts.collect::<Vec<_>>() {
        firsts.push(host.await.unwrap());
    }
    let requests = origin.requests(FILE);
    let upstream = requests[0].at;
    (requests.len(), firsts.iter().map(|first| first.saturating_duration_since(upstream)).max().unwrap())
}

/// The program itself.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    async fn start(folder: &Path, origin: &str) -> Self {
        Self::start_with(folder, &format!("[remotes.ubuntu]\nurl = [\"{origin}\"]\n")).await
    }

    /// One that asks nobody.
    async fn start_offline(folder: &Path) -> Self {
        Self::start_with(folder, "[remotes.other]\nmode = \"offline\"\n").await
    }

    async fn start_with(folder: &Path, remotes: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let path = folder.display();
        let config = format!(
            "[server]\nlisten = [\"{address}\"]\nmetrics = \"127.0.0.1:0\"\nadmin_socket = \"{path}/admin.sock\"\n\
             [storage]\npath = \"{path}/store\"\nmin_free = \"0%\"\n{remotes}"
        );
        std::fs::write(folder.join("cistern.toml"), config).unwrap();
        let config = folder.join("cistern.toml");
        let child = Command::new(CISTERN).args(["serve", "--config"]).arg(config).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child, address };
        while tokio::net::TcpStream::connect(&server.address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server
    }

    /// Waits until a host gets a document; such a host.
    async fn serves(&self, folder: &Path) -> reqwest::Client {
        let ca = folder.join("store/tls/ca.crt");
        wait_for(async || ca.exists()).await;
        let ca = std::fs::read(ca).unwrap();
        let host = reqwest::Client::builder().tls_certs_only(reqwest::Certificate::from_pem_bundle(&ca).unwrap()).no_proxy().no_gzip();
        let host = host.build().unwrap();
        let url = format!("https://{}/ubuntu/streams/v1/index.json", self.address);
        wait_for(async || host.get(&url).send().await.is_ok_and(|response| response.status() == 200)).await;
        host
    }

    /// The most memory that it had, since it was asked to forget that.
    fn most_mib(&self) -> f64 {
        self.memory_mib("VmHWM:")
    }

    fn forget_most(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    fn memory_mib(&self, field: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// 200 hosts read a file while it is fetched.
async fn memory() {
    let origin = Origin::start().await;
    let file = noise(128 << 20, 2);
    origin.put(one_file(&file).tree());
    origin.act(FILE, [Act::Dribble(file.len() / 64, Duration::from_millis(40))]);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &origin.url()).await;
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let url = format!("http://{}/ubuntu/{FILE}", server.address);
    wait_for(async || client.head(&url).send().await.is_ok_and(|response| response.status() == 200)).await;
    let hosts: Vec<_> = (0..200)
        .map(|_| {
            let (client, url) = (client.clone(), url.clone());
            tokio::spawn(async move {
                let mut response = client.get(url).send().await.unwrap();
                let mut len = 0;
                while let Some(chunk) = response.chunk().await.unwrap() {
                    len += chunk.len();
                }
                len
            })
        })
        .collect();
    let mut most: f64 = 0.0;
    while hosts.iter().any(|host| !host.is_finished()) {
        most = most.max(server.most_mib());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for host in hosts {
        assert_eq!(host.await.unwrap(), file.len());
    }
    report("200 readers of one file in flight, few documents: most memory", &format!("{most:.1} MiB"), "64 MiB", most < 64.0);
}

/// The program starts over a store with a large last good document, and no upstream.
async fn start() {
    let folder = tempfile::tempdir().unwrap();
    let mut origin = Origin::start().await;
    origin.put(large_document(50_000, "20260101"));
    let server = Server::start(folder.path(), &origin.url()).await;
    wait_for(async || std::fs::read_dir(folder.path().join("store/documents/ubuntu")).is_ok_and(|entries| entries.count() > 1)).await;
    drop(server);
    origin.stop().await;
    let mut times = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        let server = Server::start(folder.path(), &origin.url()).await;
        server.serves(folder.path()).await;
        times.push(started.elapsed());
        drop(server);
    }
    times.sort();
    report("start with a last good document of 50,000 items: served", &millis(times[2]), "1000 ms", times[2] < Duration::from_secs(1));
}
