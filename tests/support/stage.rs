//! A mirror without a network, on a clock that we turn: hosts come through pipes, image servers are scripts.
//!
//! Only the disk is real, and it takes real time. So the clock is not left to tokio, which would not move it while a
//! download writes: a task turns it on by a step after every moment in which all threads could do something.

#![allow(dead_code, reason = "each test target uses another part")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cistern::app::App;
use cistern::app::outside::Outside;
use cistern::clock::TokioClock;
use cistern::config::Config;
use cistern::disk::{Disk, OsDisk};
use cistern::server::door::Peer;
use cistern::upstream::Upstream;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;

use crate::support::faulty::FaultyDisk;
use crate::support::script::Script;

/// How much a pipe holds.
const PIPE: usize = 64 * 1024;

/// The mirror.
#[derive(Debug)]
pub struct Stage {
    app: App,
    step: Duration,
    clock: tokio::task::JoinHandle<()>,
    _folder: TempDir,
}

/// What a host got, and when.
#[derive(Debug)]
pub struct Got {
    /// The status line and headers.
    pub head: String,
    /// The body, as far as it came.
    pub body: Vec<u8>,
    /// After what time the head was there.
    pub answered: Duration,
    /// After what time the connection ended.
    pub ended: Duration,
}

impl Got {
    /// The status.
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// Whether as many bytes came as the head says.
    pub fn is_whole(&self) -> bool {
        let length = self.head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(|length| length.parse().unwrap());
        length == Some(self.body.len())
    }
}

impl Stage {
    /// Starts a mirror of the remote `far`, whose documents are there when this returns. The clock moves by `step` a time.
    pub async fn start(script: &Arc<Script>, toml: &str, step: Duration) -> Self {
        Self::start_on(Arc::new(OsDisk), script, toml, step).await
    }

    /// The same, on another disk.
    pub async fn start_on(disk: Arc<dyn Disk>, script: &Arc<Script>, toml: &str, step: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let text = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nmetrics = \"127.0.0.1:0\"\nadmin_socket = \"{path}/admin.sock\"\nplain_http = \"all\"\n\
             [storage]\npath = \"{path}/store\"\nmin_free = \"0%\"\n[remotes.far]\nurl = [\"http://127.0.0.1:9\"]\n{toml}"
        );
        let config = Config::parse(&text, "test", []).unwrap();
        let upstreams = HashMap::from([(Arc::from("far"), Arc::clone(script) as Arc<dyn Upstream>)]);
        let clock = Arc::new(TokioClock::starting_at("2026-01-02T00:00:00Z".parse().unwrap()));
        let disk = FaultyDisk::over_another(disk);
        let outside = Outside { disk: Arc::new(disk.clone()), clock, upstreams };
        let app = App::start(config, outside).await.unwrap();
        let clock = tokio::spawn(async move {
            loop {
                turn(&disk, step).await;
            }
        });
        let stage = Self { app, step, clock, _folder: folder };
        stage.until(async || stage.get("far/streams/v1/index.json").await.status() == 200).await;
        stage
    }

    /// A pipe to the mirror, for a host that does everything by hand.
    pub fn connect(&self) -> DuplexStream {
        self.connect_from(1)
    }

    /// The same, for the host with this number.
    pub fn connect_from(&self, host: u8) -> DuplexStream {
        let peer = Peer { address: [192, 0, 2, host].into(), is_tls: false };
        let (host, door) = tokio::io::duplex(PIPE);
        tokio::spawn(self.app.serve(door, peer));
        host
    }

    /// What a host gets that asks for a path.
    pub async fn get(&self, path: &str) -> Got {
        self.get_from(1, path).await
    }

    /// What the host with this number gets that asks for a path.
    pub async fn get_from(&self, host: u8, path: &str) -> Got {
        let started = Instant::now();
        let mut pipe = self.connect_from(host);
        pipe.write_all(request(path).as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            match pipe.read_u8().await {
                Ok(byte) => bytes.push(byte),
                Err(_) => break,
            }
        }
        let (answered, mut body) = (started.elapsed(), Vec::new());
        // A connection that is cut ends like any other; how much came tells them apart.
        let _ = pipe.read_to_end(&mut body).await;
        Got { head: String::from_utf8(bytes).unwrap(), body, answered, ended: started.elapsed() }
    }

    /// What a metric says; the first of its series.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.app.metrics().render();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("there is no {name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until something holds, however long that takes on our clock.
    pub async fn until(&self, holds: impl AsyncFn() -> bool) {
        let started = std::time::Instant::now();
        while !holds().await {
            assert!(started.elapsed() < Duration::from_secs(20), "it did not come to hold");
            tokio::time::sleep(self.step).await;
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clock.abort();
    }
}

/// A request of one connection.
pub fn request(path: &str) -> String {
    format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Lets everybody do what can be done now, then moves the clock.
async fn turn(disk: &FaultyDisk, step: Duration) {
    loop {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        // Threads get a moment of real time, and as much as they need if they wait for the disk.
        let before = disk.asked();
        std::thread::sleep(Duration::from_micros(300));
        if disk.asked() == before && !disk.is_busy() {
            break;
        }
    }
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(step).await;
}
