//! The configuration file as it is written: sections, keys, defaults.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::catalog::mode;
use crate::config::value::{Amount, Days, Hours, Share, Size, Span};

/// A month is often enough: it is what file systems do.
const MONTH: Duration = Duration::from_hours(30 * 24);

/// A whole file. Every key has a default.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct File {
    /// `[server]`
    pub server: Server,
    /// `[tls]`
    pub tls: Tls,
    /// `[log]`
    pub log: Log,
    /// `[storage]`
    pub storage: Storage,
    /// `[images]`
    pub images: Images,
    /// `[limits]`
    pub limits: Limits,
    /// `[remotes.*]`
    pub remotes: Remotes,
}

/// `[server]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Server {
    /// Where hosts connect.
    pub listen: Vec<SocketAddr>,
    /// What may go over plain HTTP.
    pub plain_http: PlainHttp,
    /// Whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Where commands connect.
    pub admin_socket: PathBuf,
    /// Where Prometheus connects.
    pub metrics: SocketAddr,
    /// The order of remotes at the root.
    pub root: Vec<String>,
    /// How long a stop waits for what is under way.
    pub drain: Span,
}

/// `server.plain_http`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PlainHttp {
    /// Files only.
    Files,
    /// Everything.
    All,
    /// Nothing.
    Off,
}

/// `[tls]`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Tls {
    /// PEM of the certificate chain; empty: we make one.
    pub certificate: PathBuf,
    /// PEM of its key.
    pub key: PathBuf,
    /// Extra names for a certificate that we make.
    pub names: Vec<String>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Log {
    /// How much is said.
    pub level: Level,
    /// In which form.
    pub format: Format,
    /// Whether requests are logged.
    pub access: Access,
}

/// `log.level`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// `log.access`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// No.
    Off,
    /// In the combined format.
    Combined,
    /// As JSON.
    Json,
}

/// `[storage]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Storage {
    /// Where everything is kept.
    pub path: PathBuf,
    /// How much may be held.
    pub capacity: Size,
    /// What the file system keeps free.
    pub min_free: Size,
    /// In which time all that is held is read again; no time at all means never.
    pub scrub: Span,
}

/// `[images]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Images {
    /// How long a cached image stays that nobody uses; 0 means for ever.
    pub remote_cache_expiry: Days,
    /// Whether cached images are kept up to date.
    pub auto_update_cached: bool,
    /// How often upstream is asked; 0 keeps documents fresh all the same.
    pub auto_update_interval: Hours,
    /// How long a replaced document's files can still be fetched.
    pub grace: Hours,
    /// How long a new version waits for being held, while hosts get the one before.
    pub hold_back_max: Hours,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[expect(missing_docs, reason = "config/cistern.toml explains each, and a test sees to it that it does")]
pub struct Limits {
    pub connections: usize,
    pub header_size: Amount,
    pub header_timeout: Span,
    pub write_timeout: Span,
    pub answer_timeout: Span,
    pub connect_timeout: Span,
    pub silence_timeout: Span,
    pub redirects: usize,
    pub fetches: usize,
    pub client_fetches: usize,
    pub mirror_fetches: usize,
    pub unbuffered_fetches: usize,
    pub ring_size: Amount,
    pub resume_rounds: u32,
    pub file_readers: usize,
    pub retry_gone: Span,
    pub retry_wrong: Span,
    pub open_files: u64,
    pub document_size: Amount,
    pub documents: usize,
    pub refresh_timeout: Span,
}

/// `[remotes.*]`, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Remotes(pub Vec<(String, Remote)>);

/// `[remotes.NAME]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Remote {
    /// Its URLs, the preferred one first.
    pub url: Vec<String>,
    /// How it is held.
    pub mode: Mode,
    /// What of it is listed.
    pub select: Vec<String>,
    /// How many versions of each product are listed; 0 means all.
    pub versions: usize,
    /// How often it is asked; empty: as `images.auto_update_interval` says.
    pub interval: String,
    /// A refresh that drops more than this is refused.
    pub max_gone: Share,
    /// Whether LXD's images are listed for Incus, and the other way round.
    pub twins: bool,
    /// PEM of a CA for it; empty: the system's are enough.
    pub ca: PathBuf,
    /// Headers for its own origins.
    pub headers: std::collections::BTreeMap<String, String>,
    /// A proxy; empty: as the environment says.
    pub proxy: String,
    /// Whether a server on the internet may lead to an address in a private network.
    pub private_redirects: bool,
}

/// `remotes.*.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Files are fetched when a host first asks.
    Proxy,
    /// All that is listed is held ahead of requests.
    Mirror,
    /// Nobody is asked; what is held is listed.
    Offline,
}

impl From<Mode> for mode::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Proxy => Self::Proxy,
            Mode::Mirror => Self::Mirror,
            Mode::Offline => Self::Offline,
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec!["[::]:9443".parse().expect("this is an address")],
            plain_http: PlainHttp::Files,
            trusted_proxies: Vec::new(),
            admin_socket: "/run/cistern/admin.sock".into(),
            metrics: "127.0.0.1:9180".parse().expect("this is an address"),
            root: Vec::new(),
            drain: Span(Duration::from_secs(30)),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level::Info, format: Format::Auto, access: Access::Off }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { path: "/var/lib/cistern".into(), capacity: Size::Percent(80), min_free: Size::Percent(5), scrub: Span(MONTH) }
    }
}

impl Default for Images {
    fn default() -> Self {
        Self {
            remote_cache_expiry: Days::of(10),
            auto_update_cached: true,
            auto_update_interval: Hours::of(6),
            grace: Hours::of(24),
            hold_back_max: Hours::of(24),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = |seconds| Span(Duration::from_secs(seconds));
        Self {
            connections: 12_000,
            header_size: Amount(64 << 10),
            header_timeout: seconds(15),
            write_timeout: seconds(60),
            answer_timeout: seconds(20),
            connect_timeout: seconds(5),
            silence_timeout: seconds(15),
            redirects: 5,
            fetches: 64,
            client_fetches: 16,
            mirror_fetches: 4,
            unbuffered_fetches: 16,
            ring_size: Amount(8 << 20),
            resume_rounds: 5,
            file_readers: 12_000,
            retry_gone: seconds(60),
            retry_wrong: seconds(60),
            open_files: 1024,
            document_size: Amount(64 << 20),
            documents: 200,
            refresh_timeout: seconds(600),
        }
    }
}

impl Default for Remote {
    fn default() -> Self {
        Self {
            url: Vec::new(),
            mode: Mode::Proxy,
            select: Vec::new(),
            versions: 0,
            interval: String::new(),
            max_gone: Share(50),
            twins: true,
            ca: PathBuf::new(),
            headers: std::collections::BTreeMap::new(),
            proxy: String::new(),
            private_redirects: false,
        }
    }
}

impl Remotes {
    /// The public image servers of LXD and Incus.
    pub fn well_known() -> Self {
        let remote = |name: &str, url: &str| (name.to_owned(), Remote { url: vec![url.to_owned()], ..Remote::default() });
        let mut remotes = vec![
            remote("ubuntu", "https://cloud-images.ubuntu.com/releases"),
            remote("ubuntu-daily", "https://cloud-images.ubuntu.com/daily"),
            remote("ubuntu-minimal", "https://cloud-images.ubuntu.com/minimal/releases"),
            remote("ubuntu-minimal-daily", "https://cloud-images.ubuntu.com/minimal/daily"),
            remote("lxd-images", "https://images.lxd.canonical.com"),
            remote("incus-images", "https://images.linuxcontainers.org"),
        ];
        // That server keeps LXD hosts out, and whether to list its images for them is the operator's choice.
        remotes[5].1.twins = false;
        Self(remotes)
    }
}

impl<'de> Deserialize<'de> for Remotes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Remotes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table for each remote, such as [remotes.ubuntu]")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Remotes, A::Error> {
                let mut remotes = Vec::new();
                while let Some(remote) = map.next_entry()? {
                    remotes.push(remote);
                }
                Ok(Remotes(remotes))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Serialize for Remotes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, remote)| map.serialize_entry(name, remote))?;
        map.end()
    }
}
