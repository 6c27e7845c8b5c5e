//! The servers that are compared, as processes: their configuration, their processor time, their memory.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CISTERN: &str = env!("CARGO_BIN_EXE_cistern");
/// The kernel counts time in these.
const TICKS_PER_SEC: f64 = 100.0;
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
pub struct Server {
    pub name: &'static str,
    child: Child,
    /// Where it speaks HTTP.
    pub plain: SocketAddr,
    /// Where it speaks TLS; Cistern does both at one port.
    pub secure: SocketAddr,
    /// What stands before a path below the top of the image server.
    pub prefix: &'static str,
}

fn free() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("loopback has a port")
}

impl Server {
    /// Cistern, drawing from the image server at `origin`.
    pub fn cistern(folder: &Path, origin: SocketAddr) -> Self {
        std::fs::create_dir_all(folder).expect("there is room");
        let (address, path) = (free(), folder.display());
        let config = format!(
            "[server]\nlisten = [\"{address}\"]\nmetrics = \"127.0.0.1:0\"\nadmin_socket = \"{path}/admin.sock\"\n\
             [storage]\npath = \"{path}/store\"\nmin_free = \"0%\"\ncapacity = \"64GiB\"\n[log]\nlevel = \"warn\"\n\
             [limits]\nclient_fetches = 64\n[remotes.bench]\nurl = [\"http://{origin}\"]\ntwins = false\n"
        );
        std::fs::write(folder.join("cistern.toml"), config).expect("there is room");
        let mut command = Command::new(CISTERN);
        command.args(["serve", "--config"]).arg(folder.join("cistern.toml"));
        Self::spawn("cistern", command, address, address, "/bench/")
    }

    /// Debian's nginx, with files below `folder/files` and a cache of what it draws from `origin`.
    pub fn nginx(folder: &Path, origin: SocketAddr, certificate: &Path) -> Self {
        let (plain, secure) = (free(), free());
        std::fs::create_dir_all(folder.join("files")).expect("there is room");
        let config = include_str!("nginx.conf")
            .replace("{folder}", &folder.display().to_string())
            .replace("{plain}", &plain.to_string())
            .replace("{secure}", &secure.to_string())
            .replace("{origin}", &origin.to_string())
            .replace("{certificate}", &certificate.display().to_string());
        std::fs::write(folder.join("nginx.conf"), config).expect("there is room");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf")).args(["-e", "stderr"]);
        Self::spawn("nginx", command, plain, secure, "/")
    }

    /// Debian's squid, before the image server at `origin`.
    pub fn squid(folder: &Path, origin: SocketAddr) -> Self {
        let plain = free();
        std::fs::create_dir_all(folder.join("cache")).expect("there is room");
        let config = include_str!("squid.conf")
            .replace("{folder}", &folder.display().to_string())
            .replace("{plain}", &plain.to_string())
            .replace("{origin_port}", &origin.port().to_string());
        std::fs::write(folder.join("squid.conf"), config).expect("there is room");
        // It gives up being root, and its folders must be its own then.
        let owned = Command::new("chown").args(["-R", "proxy:proxy"]).arg(folder).status();
        assert!(owned.is_ok_and(|status| status.success()), "there is no user proxy; apt-get install squid makes it");
        let made = Command::new("squid").args(["-N", "-z", "-f"]).arg(folder.join("squid.conf")).stderr(Stdio::null()).status();
        assert!(made.is_ok_and(|status| status.success()), "squid cannot make its cache; is it installed? apt-get install squid");
        let mut command = Command::new("squid");
        command.args(["-N", "-f"]).arg(folder.join("squid.conf")).stderr(Stdio::null());
        Self::spawn("squid", command, plain, plain, "/")
    }

    fn spawn(name: &'static str, mut command: Command, plain: SocketAddr, secure: SocketAddr, prefix: &'static str) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name} cannot be started: {error}; apt-get install {name}"));
        let server = Self { name, child, plain, secure, prefix };
        let started = Instant::now();
        while TcpStream::connect(server.plain).is_err() {
            assert!(started.elapsed() < PATIENCE, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// The processor time of all its processes, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let ticks = |id: &u32| -> Option<u64> {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
            Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
        };
        self.processes().iter().filter_map(ticks).sum::<u64>() as f64 / TICKS_PER_SEC
    }

    /// Forgets the most that its processes ever had in memory.
    pub fn forget_most_memory(&self) {
        for id in self.processes() {
            // One that has just ended has nothing to forget.
            drop(std::fs::write(format!("/proc/{id}/clear_refs"), "5"));
        }
    }

    /// What its processes have in memory now, and the most that they ever had, in MiB.
    pub fn memory_mib(&self) -> (f64, f64) {
        let of = |field: &str| {
            let kib = |id: &u32| -> Option<f64> {
                let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
                status.lines().find_map(|line| line.strip_prefix(field))?.trim().trim_end_matches(" kB").parse().ok()
            };
            self.processes().iter().filter_map(kib).sum::<f64>() / 1024.0
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    /// Its own process and those that it made.
    fn processes(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        [own].into_iter().chain(children.split_whitespace().filter_map(|id| id.parse().ok())).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // nginx takes its workers along only if it is asked to stop.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
