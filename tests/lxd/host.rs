//! A host: the real `lxd` with a folder of its own, and the real `lxc`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a daemon may take to start.
const PATIENCE: Duration = Duration::from_mins(1);

/// A host. Its daemon ends with it.
pub struct Host {
    folder: TempDir,
    ca: PathBuf,
    daemon: Option<Child>,
}

impl Host {
    /// `lxc` alone, which trusts this CA.
    pub fn without_daemon(ca: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("conf")).unwrap();
        Self { folder, ca: ca.to_owned(), daemon: None }
    }

    /// A running `lxd` with a storage pool and a root disk in its default profile.
    pub fn start(ca: &Path) -> Self {
        let mut host = Self::without_daemon(ca);
        std::fs::create_dir_all(host.folder.path().join("lxd")).unwrap();
        let log = std::fs::File::create(host.folder.path().join("lxd.log")).unwrap();
        let daemon = host.command("lxd").stdout(Stdio::null()).stderr(log).spawn().unwrap();
        host.daemon = Some(daemon);
        let started = Instant::now();
        while !host.run(&["info"]).status.success() {
            assert!(
                started.elapsed() < PATIENCE,
                "lxd does not start: {}",
                std::fs::read_to_string(host.folder.path().join("lxd.log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        host.lxc(&["storage", "create", "default", "dir"]);
        host.lxc(&["profile", "device", "add", "default", "root", "disk", "path=/", "pool=default"]);
        host
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("LXD_DIR", self.folder.path().join("lxd"))
            .env("LXD_CONF", self.folder.path().join("conf"))
            .env("SSL_CERT_FILE", &self.ca);
        command.env_remove("HTTP_PROXY").env_remove("HTTPS_PROXY").stdin(Stdio::null());
        command
    }

    /// Runs `lxc`, whatever comes of it.
    pub fn run(&self, arguments: &[&str]) -> Output {
        tokio::task::block_in_place(|| self.command("lxc").args(arguments).output().unwrap())
    }

    /// Runs `lxc`, which must succeed; what it prints.
    pub fn lxc(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "lxc {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Adds a remote.
    pub fn add_remote(&self, name: &str, url: &str) {
        self.lxc(&["remote", "add", name, url, "--protocol=simplestreams"]);
    }

    /// The fingerprint that an image has by this name; `None` if there is no such image.
    pub fn fingerprint(&self, image: &str, is_vm: bool) -> Option<String> {
        let arguments: &[&str] = if is_vm { &["image", "info", image, "--vm"] } else { &["image", "info", image] };
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let image_type = if is_vm { "Type: virtual-machine" } else { "Type: container" };
        let found =
            text.contains(image_type).then(|| text.lines().find_map(|line| line.strip_prefix("Fingerprint: ").map(ToOwned::to_owned)));
        found.flatten()
    }

    /// Launches an instance and waits until it runs.
    pub fn launch(&self, image: &str, name: &str) {
        self.lxc(&["launch", image, name]);
        let started = Instant::now();
        while !self.lxc(&["list", name, "--format=csv", "--columns=s"]).contains("RUNNING") {
            assert!(started.elapsed() < PATIENCE, "{name} does not run: {}", self.lxc(&["info", name, "--show-log"]));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Lets the daemon forget the documents that it keeps for an hour.
    pub fn forget_documents(&self) {
        let cache = self.folder.path().join("lxd/cache");
        std::fs::remove_dir_all(&cache).ok();
        std::fs::create_dir_all(&cache).unwrap();
    }

    /// Pins a certificate for a remote of `lxc`.
    pub fn pin(&self, remote: &str, certificate: &Path) {
        let folder = self.folder.path().join("conf/servercerts");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(certificate, folder.join(format!("{remote}.crt"))).unwrap();
    }

    /// A folder for what `lxc` writes.
    pub fn scratch(&self) -> PathBuf {
        let scratch = self.folder.path().join("scratch");
        std::fs::create_dir_all(&scratch).unwrap();
        scratch
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let names = String::from_utf8_lossy(&self.run(&["list", "--format=csv", "--columns=n"]).stdout).into_owned();
        for name in names.lines() {
            self.run(&["delete", "--force", name]);
        }
        // What is left of a daemon after this is of no use to anybody; each step is tried whatever became of the others.
        let _ = self.command("lxd").args(["shutdown", "--timeout", "20"]).output();
        let _ = daemon.kill();
        let _ = daemon.wait();
        for mount in ["lxd/devlxd", "lxd/shmounts", "lxd/guestapi"] {
            let _ = Command::new("umount").arg("-l").arg(self.folder.path().join(mount)).output();
        }
    }
}
