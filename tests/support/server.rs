//! The program itself, as a process.

#![allow(dead_code, reason = "each test target uses another part")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const CISTERN: &str = env!("CARGO_BIN_EXE_cistern");
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that runs; killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    folder: TempDir,
    addresses: Vec<String>,
    printed: Receiver<String>,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts it with this configuration, in which `{folder}` is a folder of its own, and with these variables.
    pub fn start(config: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, config);
        Self::start_in(folder, variables)
    }

    /// Starts it with this configuration, after something was put into its folder.
    pub fn start_with(config: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        write(&folder, config);
        Self::start_in(folder, &[])
    }

    /// Kills it as the kernel does when there is no memory left, and starts it anew over what is on the disk.
    pub fn kill_and_restart(mut self) -> Self {
        self.signal(rustix::process::Signal::KILL);
        self.ended();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        Self::start_in(folder, &[])
    }

    fn start_in(folder: TempDir, variables: &[(&str, &str)]) -> Self {
        let path = folder.path().display().to_string();
        let mut command = Command::new(CISTERN);
        command.args(["serve", "--config", &format!("{path}/cistern.toml")]).env_remove("RUST_LOG").envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (log, printed) = (lines(child.stderr.take().unwrap()), lines(child.stdout.take().unwrap()));
        let logged = Arc::new(Mutex::new(String::new()));
        let addresses = loop {
            let line = log.recv_timeout(PATIENCE).unwrap();
            logged.lock().unwrap().push_str(&line);
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if line["fields"]["message"] == "listening" {
                break line["fields"]["addresses"].as_str().unwrap().split(", ").map(ToOwned::to_owned).collect();
            }
        };
        let further = Arc::clone(&logged);
        std::thread::spawn(move || log.iter().for_each(|line| further.lock().unwrap().push_str(&line)));
        Self { child, folder, addresses, printed, log: logged }
    }

    /// Gives it another configuration, which it does not read by itself.
    pub fn configure(&self, config: &str) {
        write(&self.folder, config);
    }

    /// Its own folder, with its configuration and its store.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// The URL of its metrics, if its configuration gives them a port.
    pub fn metrics(&self) -> String {
        let config = std::fs::read_to_string(self.folder.path().join("cistern.toml")).unwrap();
        let address = config.lines().find_map(|line| line.strip_prefix("metrics = ")).unwrap().trim_matches('"').to_owned();
        format!("http://{address}/metrics")
    }

    /// How much memory it has.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// How many files and connections it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// The files of its store and how many bytes each has, those included that have no name any more and are still open. It
    /// stands still while they are looked at, so that nothing is seen in two places.
    pub fn stored(&self) -> BTreeMap<PathBuf, u64> {
        self.signal(rustix::process::Signal::STOP);
        self.wait_until_it_stands_still();
        let store = self.folder.path().join("store");
        let mut stored = BTreeMap::new();
        for folder in ["blobs", "partials", "trash"] {
            gather(&store.join(folder), &mut stored);
        }
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().flatten().map(|entry| entry.path());
        stored.extend(open.filter_map(|path| unnamed(&path, &store)));
        self.signal(rustix::process::Signal::CONT);
        stored
    }

    fn wait_until_it_stands_still(&self) {
        let stands_still = |thread: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|fields| fields.starts_with(" T"))
        };
        let asked = Instant::now();
        while !std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().flatten().all(stands_still) {
            assert!(asked.elapsed() < PATIENCE, "it does not stand still: {}", self.log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until it has ended; its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// All that it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The next line on standard output.
    pub fn line(&self) -> String {
        self.printed.recv_timeout(PATIENCE).unwrap()
    }

    /// A client that trusts it.
    pub fn client(&self) -> reqwest::Client {
        let ca = std::fs::read(self.folder.path().join("store/tls/ca.crt")).unwrap();
        let client = reqwest::Client::builder().tls_certs_only(reqwest::Certificate::from_pem_bundle(&ca).unwrap()).no_proxy();
        client.redirect(reqwest::redirect::Policy::none()).build().unwrap()
    }
}

fn gather(folder: &Path, files: &mut BTreeMap<PathBuf, u64>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            gather(&entry.path(), files);
        } else {
            files.insert(entry.path(), metadata.len());
        }
    }
}

/// An open file below a folder that has no name any more, and its size. One may be open more than once.
fn unnamed(descriptor: &Path, folder: &Path) -> Option<(PathBuf, u64)> {
    let target = std::fs::read_link(descriptor).ok()?;
    let is_one = target.starts_with(folder) && target.to_string_lossy().ends_with(" (deleted)");
    let file = std::fs::metadata(descriptor).ok().filter(|_| is_one)?;
    Some((PathBuf::from(format!("{} {}", target.display(), file.ino())), file.len()))
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(folder: &TempDir, config: &str) {
    let path = folder.path().display().to_string();
    let config = format!("[storage]\npath = \"{path}/store\"\nmin_free = \"0%\"\n{}", config.replace("{folder}", &path));
    std::fs::write(folder.path().join("cistern.toml"), config).unwrap();
}

fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // The test may be over.
            let _ = sender.send(line);
        }
    });
    lines
}
