//! Hosts that behave like LXD: a connection for each request, now and then one without a byte before it, documents over TLS
//! and read again each time, and each file over plain HTTP first and then over TLS.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cistern::digest::Digest;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::support::server::Server;

const INDEX: &str = "streams/v1/index.json";

/// What hosts have seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Files that came whole and right.
    pub whole: usize,
    /// Files of which a host was told, twice, that there is trouble, or that broke off twice.
    pub refused: usize,
    /// Files that a host left in the middle.
    pub left: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.whole += other.whole;
        self.refused += other.refused;
        self.left += other.left;
    }
}

/// All hosts.
#[derive(Clone)]
pub struct Fleet {
    address: SocketAddr,
    client: reqwest::Client,
    grace: Duration,
}

/// A file as a document lists it.
struct Listed {
    path: String,
    digest: String,
    read_at: Instant,
}

/// What documents listed when a host read them.
struct Documents {
    read_at: Instant,
    /// The files of every version.
    images: Vec<Vec<Listed>>,
}

impl Fleet {
    /// Hosts of this server.
    pub fn new(server: &Server, grace: Duration) -> Self {
        let ca = std::fs::read(server.folder().join("store/tls/ca.crt")).unwrap();
        let client = reqwest::Client::builder().tls_certs_only(reqwest::Certificate::from_pem_bundle(&ca).unwrap()).no_proxy();
        let client = client.pool_max_idle_per_host(0).timeout(Duration::from_mins(1)).http1_only().build().unwrap();
        Self { address: server.addresses()[0].parse().unwrap(), client, grace }
    }

    /// Waits until there are documents.
    pub async fn is_served(&self) {
        while self.documents().await.is_none_or(|documents| documents.images.is_empty()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One host, until it is told to stop.
    pub async fn host(self, stop: CancellationToken) -> Tally {
        let (mut tally, mut documents) = (Tally::default(), None);
        while !stop.is_cancelled() {
            // LXD keeps them for an hour, of a grace of a day.
            let is_old = |documents: &Documents| documents.read_at.elapsed() > self.grace * 3 / 4;
            if documents.as_ref().is_none_or(is_old) || fastrand::u8(..4) == 0 {
                documents = self.documents().await;
            }
            if let Some(image) = documents.as_ref().and_then(|documents| fastrand::choice(&documents.images)) {
                for file in image {
                    self.download(file, &mut tally).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(100..3000))).await;
        }
        tally
    }

    /// What documents list now.
    async fn documents(&self) -> Option<Documents> {
        if fastrand::bool() {
            drop(TcpStream::connect(self.address).await);
        }
        let read_at = Instant::now();
        let index: Value = self.document(INDEX).await?;
        let path = index["index"].as_object()?.values().next()?["path"].as_str()?.to_owned();
        let products: Value = self.document(&path).await?;
        let versions =
            products["products"].as_object().unwrap().values().flat_map(|product| product["versions"].as_object().unwrap().values());
        let images = versions.map(|version| {
            let items = version["items"].as_object().unwrap().values();
            let text = |item: &Value, field: &str| item[field].as_str().unwrap().to_owned();
            items.map(|item| Listed { path: text(item, "path"), digest: text(item, "sha256"), read_at }).collect()
        });
        Some(Documents { read_at, images: images.collect() })
    }

    /// A document, over TLS. It is there as soon as any was, whatever becomes of upstream.
    async fn document(&self, path: &str) -> Option<Value> {
        let answer = self.client.get(format!("https://localhost:{}/{path}", self.address.port())).send().await.unwrap();
        if answer.status() == 503 {
            return None;
        }
        assert_eq!(answer.status(), 200, "{path}");
        Some(serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    async fn download(&self, file: &Listed, tally: &mut Tally) {
        if fastrand::u8(..20) == 0 {
            tally.left += 1;
            return self.leave(file).await;
        }
        let port = self.address.port();
        for base in [format!("http://localhost:{port}"), format!("https://localhost:{port}")] {
            if let Some(bytes) = self.file(&base, file).await {
                assert_eq!(Digest::of(&bytes).to_string(), file.digest, "{} came whole and is wrong", file.path);
                tally.whole += 1;
                return;
            }
        }
        tally.refused += 1;
    }

    /// A file, if it came whole.
    async fn file(&self, base: &str, file: &Listed) -> Option<bytes::Bytes> {
        let answer = self.client.get(format!("{base}/{}", file.path)).header("connection", "close").send().await.ok()?;
        match answer.status().as_u16() {
            200 => answer.bytes().await.ok(),
            502..=504 => None,
            404 => {
                assert!(file.read_at.elapsed() > self.grace, "{} was listed {:?} ago", file.path, file.read_at.elapsed());
                None
            }
            other => panic!("{} was answered with {other}", file.path),
        }
    }

    async fn leave(&self, file: &Listed) {
        if let Ok(mut answer) = self.client.get(format!("http://localhost:{}/{}", self.address.port(), file.path)).send().await {
            // One that reads slowly, and then no more.
            for _ in 0..fastrand::u8(..4) {
                drop(answer.chunk().await);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}
