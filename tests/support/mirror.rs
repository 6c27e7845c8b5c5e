//! A mirror that runs inside the test.

#![allow(dead_code, reason = "each test target uses another part")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cistern::app::outside::Outside;
use cistern::app::{App, Ended, StartError};
use cistern::clock::SystemClock;
use cistern::config::Config;
use cistern::config::error::ConfigError;
use cistern::disk::{Disk, OsDisk};
use cistern::store::StoreError;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a mirror is to be like.
#[derive(Debug)]
pub struct Builder {
    text: String,
    storage: String,
    server: String,
    listen: SocketAddr,
    metrics: u16,
    folder: TempDir,
    disk: Arc<dyn Disk>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            text: String::new(),
            storage: "min_free = \"0%\"".to_owned(),
            server: String::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            metrics: 0,
            folder: tempfile::tempdir().unwrap(),
            disk: Arc::new(OsDisk),
        }
    }
}

impl Builder {
    /// Adds a remote with these URLs. `more` is TOML for its section.
    pub fn remote(mut self, name: &str, urls: &[String], more: &str) -> Self {
        self.text.push_str(&format!("[remotes.{name}]\nurl = {urls:?}\n{more}\n"));
        self
    }

    /// Adds other sections.
    pub fn section(mut self, toml: &str) -> Self {
        self.text.push_str(toml);
        self.text.push('\n');
        self
    }

    /// Sets keys of `[storage]`.
    pub fn storage(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.storage);
        self
    }

    /// Sets keys of `[server]`.
    pub fn server(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.server);
        self
    }

    /// Keeps its port when it is restarted.
    pub fn with_lasting_port(mut self) -> Self {
        self.listen = std::net::TcpListener::bind(self.listen).unwrap().local_addr().unwrap();
        self
    }

    /// Shows metrics at this port.
    pub fn metrics(mut self, port: u16) -> Self {
        self.metrics = port;
        self
    }

    /// Uses another disk than the machine's.
    pub fn disk(mut self, disk: impl Disk) -> Self {
        self.disk = Arc::new(disk);
        self
    }

    /// Starts it. Its documents are there if upstream has any.
    pub async fn start(self) -> Mirror {
        let mirror = self.start_without_waiting().await;
        mirror.refreshed().await;
        mirror
    }

    /// Starts it, and does not wait for upstream.
    pub async fn start_without_waiting(self) -> Mirror {
        let Self { text, storage, server, listen, metrics, folder, disk } = self;
        let path = folder.path().display();
        let text = format!(
            "[server]\nlisten = [\"{listen}\"]\nmetrics = \"127.0.0.1:{metrics}\"\nadmin_socket = \"{path}/admin.sock\"\ndrain = \"1s\"\n{server}\n\
             [storage]\npath = \"{path}/store\"\n{storage}\n{text}"
        );
        Mirror::start(text, folder, disk).await
    }
}

/// A running mirror.
#[derive(Debug)]
pub struct Mirror {
    text: String,
    folder: TempDir,
    disk: Arc<dyn Disk>,
    address: SocketAddr,
    reload: mpsc::Sender<Result<Config, ConfigError>>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Ended>>,
    client: reqwest::Client,
}

impl Mirror {
    async fn start(text: String, folder: TempDir, disk: Arc<dyn Disk>) -> Self {
        let app = start(&text, &disk).await;
        let address = app.addresses()[0];
        let (reload, reloads) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let task = tokio::spawn(app.run(reloads, stop.clone()));
        let ca = std::fs::read(folder.path().join("store/tls/ca.crt")).unwrap();
        let client = reqwest::Client::builder().tls_certs_only(reqwest::Certificate::from_pem_bundle(&ca).unwrap()).no_proxy();
        let client = client.redirect(reqwest::redirect::Policy::none()).no_gzip().pool_max_idle_per_host(0).build().unwrap();
        Self { text, folder, disk, address, reload, stop, task, client }
    }

    /// Stops it and starts it again over the same store.
    pub async fn restart(self) -> Self {
        let Self { text, folder, disk, stop, task, .. } = self;
        stop.cancel();
        task.await.unwrap().unwrap();
        Self::start(text, folder, disk).await
    }

    /// Stops it, does something to its store, and starts it again.
    pub async fn restart_after(self, between: impl FnOnce()) -> Self {
        let Self { text, folder, disk, stop, task, .. } = self;
        stop.cancel();
        task.await.unwrap().unwrap();
        between();
        Self::start(text, folder, disk).await
    }

    /// Stops it, does something in its store, and starts it again.
    pub async fn restart_after_in_store(self, between: impl FnOnce(&Path)) -> Self {
        let store = self.store();
        self.restart_after(|| between(&store)).await
    }

    /// Stops it, does something in its store, and starts it again on another disk.
    pub async fn restart_on(mut self, disk: impl Disk, between: impl FnOnce(&Path)) -> Self {
        self.disk = Arc::new(disk);
        self.restart_after_in_store(between).await
    }

    /// Stops it, and starts it again with another configuration on another disk.
    pub async fn restart_with(mut self, disk: impl Disk, change: impl FnOnce(&str) -> String) -> Self {
        self.text = change(&self.text);
        self.disk = Arc::new(disk);
        self.restart().await
    }

    /// Stops it.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Begins to stop it; what is under way may finish.
    pub fn begin_to_stop(&self) {
        self.stop.cancel();
    }

    /// Takes another configuration: this one with a change.
    pub async fn reload(&mut self, change: impl FnOnce(&str) -> String) {
        self.text = change(&self.text);
        self.reload.send(Config::parse(&self.text, "test", [])).await.unwrap();
        // The channel has one place: when another reload fits in, the one before was taken.
        self.reload.send(Config::parse(&self.text, "test", [])).await.unwrap();
        self.reload.reserve().await.unwrap();
    }

    /// Has it read its configuration again, and does not wait for that.
    pub async fn begin_to_reload(&self) {
        self.reload.send(Config::parse(&self.text, "test", [])).await.unwrap();
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL for hosts.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Its store.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Its admin socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// The file with its CA.
    pub fn ca(&self) -> PathBuf {
        self.store().join("tls/ca.crt")
    }

    /// A client that trusts it.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// A GET over TLS.
    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}/{path}", self.url())).send().await.unwrap()
    }

    /// A GET over plain HTTP, as LXD asks for files: what is held the kernel sends.
    pub async fn get_file(&self, path: &str) -> reqwest::Response {
        let url = format!("http://localhost:{}/{path}", self.address.port());
        self.client.get(url).header("connection", "close").send().await.unwrap()
    }

    /// The body of a GET over TLS that must succeed.
    pub async fn body(&self, path: &str) -> Vec<u8> {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.bytes().await.unwrap().to_vec()
    }

    /// The body of a GET over TLS, if it is whole.
    pub async fn get_whole(&self, path: String) -> Option<Vec<u8>> {
        let response = self.client.get(format!("{}/{path}", self.url())).send().await.ok()?;
        let response = response.error_for_status().ok()?;
        response.bytes().await.ok().map(|bytes| bytes.to_vec())
    }

    /// Whether a file is held, and known to be.
    pub async fn is_hit(&self, path: &str) -> bool {
        let answer = self.client.head(format!("{}/{path}", self.url())).send().await.unwrap();
        answer.headers().get("cache-status").is_some_and(|status| status == "cistern; hit")
    }

    /// A document.
    pub async fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_slice(&self.body(path).await).unwrap()
    }

    /// Refreshes a remote, as a person would.
    pub async fn refresh(&self, remote: &str, accept: bool) -> cistern::api::RefreshReport {
        let body = serde_json::to_vec(&cistern::api::RefreshRequest { accept }).unwrap();
        let path = format!("/1.0/remotes/{remote}/refresh");
        cistern::cli::admin::ask(&self.socket(), hyper::Method::POST, &path, body).await.unwrap()
    }

    /// How its remotes are doing.
    pub async fn remotes(&self) -> Vec<cistern::api::RemoteStatus> {
        cistern::cli::admin::ask(&self.socket(), hyper::Method::GET, "/1.0/remotes", Vec::new()).await.unwrap()
    }

    /// What a metric says, of a mirror that shows them; the first of its series.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.probe("metrics").await.1;
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("there is no {name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// What is said on the port for metrics.
    pub async fn probe(&self, path: &str) -> (u16, String) {
        let port = self.text.lines().find_map(|line| line.strip_prefix("metrics = \"127.0.0.1:")).unwrap().trim_end_matches('"');
        let answer = self.client.get(format!("http://127.0.0.1:{port}/{path}")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Waits until every remote was refreshed once.
    async fn refreshed(&self) {
        wait_for(async || self.remotes().await.iter().all(|remote| remote.last_refresh.is_some())).await;
    }

    /// All files in a folder of the store, by path below it.
    pub fn files(&self, folder: &str) -> Vec<String> {
        fn walk(folder: &Path, top: &Path, files: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, top, files);
                } else {
                    files.push(path.strip_prefix(top).unwrap().display().to_string());
                }
            }
        }
        let top = self.store().join(folder);
        let mut files = Vec::new();
        walk(&top, &top, &mut files);
        files.sort();
        files
    }
}

/// Starts an app. One that was stopped lets go of its store when its last thread that waits for the disk is done, and of its
/// socket when no process has it that another test has just begun.
async fn start(text: &str, disk: &Arc<dyn Disk>) -> App {
    let started = std::time::Instant::now();
    loop {
        let config = Config::parse(text, "test", []).unwrap();
        let outside = Outside { disk: Arc::clone(disk), clock: Arc::new(SystemClock), upstreams: HashMap::new() };
        let app = App::start(config, outside).await;
        let is_in_use = match &app {
            Err(StartError::Store(StoreError::InUse(_))) => true,
            Err(StartError::Socket { source, .. }) => source.kind() == std::io::ErrorKind::AddrInUse,
            _ => false,
        };
        if !is_in_use || started.elapsed() > PATIENCE {
            return app.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that nobody has at the moment.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Waits until something holds.
pub async fn wait_for(holds: impl AsyncFn() -> bool) {
    let started = std::time::Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "it did not come to hold in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
