//! The configuration: read, checked, and turned into the options of every module. No string is left to check.

pub mod environment;
pub mod error;
pub mod file;
pub mod files;
pub mod keys;
pub mod remote;
pub mod value;

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::ServerName;
use toml::Table;

use crate::cache;
use crate::catalog::mode::Mode;
use crate::config::error::{ConfigError, Origin};
use crate::config::file::{Access, File, Log, PlainHttp, Remotes};
use crate::config::remote::{PART, Remote, check_root};
use crate::disk::{Disk, Space};
use crate::fetch::sink;
use crate::ledger::account;
use crate::library::entry::LOCAL;
use crate::publish::command::RemoteSettings;
use crate::retention::Rules;
use crate::selection::Selection;
use crate::server::access::Form;
use crate::server::door;

/// Where the configuration is looked for when nobody says where.
pub const DEFAULT_PATH: &str = "/etc/cistern/cistern.toml";
/// A configuration file has no more bytes than this.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Config {
    /// As it was written, with defaults and the environment.
    pub file: File,
    /// Each remote, in the order of `server.root`.
    pub remotes: Vec<Remote>,
    /// The certificate and its key, if the operator has one.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it names no remote, so that there are the public ones.
    pub is_built_in: bool,
}

impl Config {
    /// Reads a file, or the built-in defaults if none is named and there is none at the default place.
    pub fn load(disk: &dyn Disk, path: Option<&Path>) -> Result<Self, ConfigError> {
        let wanted = path.unwrap_or(Path::new(DEFAULT_PATH));
        let unreadable = |error: &dyn std::fmt::Display| ConfigError {
            origin: wanted.display().to_string(),
            line: None,
            key: None,
            reason: format!("cannot be read: {error}"),
        };
        let bytes = match disk.open(wanted).and_then(|file| file.read_all(MAX_FILE_BYTES)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.is_none() => Vec::new(),
            Err(error) => return Err(unreadable(&error)),
        };
        let text = String::from_utf8(bytes).map_err(|error| unreadable(&error))?;
        Self::parse(&text, &wanted.display().to_string(), std::env::vars())
    }

    /// Reads the text of a file. `origin` is what errors call it.
    pub fn parse(text: &str, origin: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let at = |span: Range<usize>, error: ConfigError| ConfigError {
            origin: origin.to_owned(),
            line: Some(keys::line(text, span.start)),
            ..error
        };
        let plain = |reason: String| ConfigError { origin: String::new(), line: None, key: None, reason };
        let keys = keys::of_text(text).map_err(|(span, reason)| at(span, plain(reason)))?;
        keys::check(&keys).map_err(|(span, error)| at(span, error))?;
        toml::from_str::<File>(text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            let key = keys.iter().filter(|key| key.span.contains(&span.start)).min_by_key(|key| key.span.len());
            at(span, ConfigError { key: key.map(|key| key.name.clone()), ..plain(error.message().to_owned()) })
        })?;
        let file = with_environment(text, variables)?;
        let lines = keys.iter().map(|key| (key.name.clone(), keys::line(text, key.span.start))).collect();
        let origin = Origin { name: origin.to_owned(), lines };
        Self::new(file, origin.clone()).map_err(|error| origin.locate(error))
    }

    fn new(mut file: File, origin: Origin) -> Result<Self, ConfigError> {
        let is_built_in = file.remotes.0.is_empty();
        if is_built_in {
            file.remotes = Remotes::well_known();
        }
        check_limits(&file)?;
        let certificate = certificate(&file)?;
        check_names(&file)?;
        if file.server.listen.is_empty() {
            return Err(ConfigError::of_key("server.listen", "there must be at least one address"));
        }
        let mut remotes = file.remotes.0.iter().map(|(name, remote)| Remote::new(name, remote, &file)).collect::<Result<Vec<_>, _>>()?;
        check_root(&file.server.root, &mut remotes)?;
        Ok(Self { file, remotes, certificate, origin, is_built_in })
    }

    /// How logs are written.
    pub fn log(&self) -> &Log {
        &self.file.log
    }

    /// How much may be held, on a file system of this size.
    pub fn limits(&self, space: Space) -> account::Limits {
        let storage = &self.file.storage;
        account::Limits { capacity_bytes: storage.capacity.of(space.total), min_free_bytes: storage.min_free.of(space.total) }
    }

    /// The bounds of the cache.
    pub fn cache(&self, space: Space) -> cache::Options {
        let limits = &self.file.limits;
        cache::Options {
            limits: self.limits(space),
            open_files: limits.open_files,
            retry_gone: limits.retry_gone.0,
            retry_wrong: limits.retry_wrong.0,
            rules: self.rules(),
        }
    }

    /// What goes, and when.
    pub fn rules(&self) -> Rules {
        let images = &self.file.images;
        let idle = Some(images.remote_cache_expiry.0).filter(|idle| !idle.is_zero());
        let auto_update = !images.auto_update_interval.0.is_zero();
        Rules {
            auto_update,
            auto_update_cached: images.auto_update_cached,
            hold_back_max: images.hold_back_max.0,
            idle,
            grace: images.grace.0,
        }
    }

    /// The bounds of downloads.
    pub fn fetch(&self) -> sink::Options {
        let limits = &self.file.limits;
        sink::Options {
            fetches: limits.fetches,
            client_fetches: limits.client_fetches,
            unbuffered_fetches: limits.unbuffered_fetches,
            ring_bytes: limits.ring_size.0,
            turn: limits.answer_timeout.0.mul_f64(PART),
            silence: limits.silence_timeout.0,
            extra_rounds: limits.resume_rounds,
        }
    }

    /// How many files are fetched at once for each remote in mirror mode.
    pub fn mirror_fetches(&self) -> usize {
        self.file.limits.mirror_fetches
    }

    /// The bounds of connections.
    pub fn bounds(&self) -> door::Bounds {
        let limits = &self.file.limits;
        door::Bounds {
            connections: limits.connections,
            header_bytes: usize::try_from(limits.header_size.0).unwrap_or(usize::MAX),
            header_timeout: limits.header_timeout.0,
            write_timeout: limits.write_timeout.0,
            answer_timeout: limits.answer_timeout.0,
            file_readers: limits.file_readers,
            retry_wrong: limits.retry_wrong.0,
        }
    }

    /// What the operator says of requests.
    pub fn policy(&self) -> door::Policy {
        let plain_http = match self.file.server.plain_http {
            PlainHttp::Files => door::PlainHttp::Files,
            PlainHttp::All => door::PlainHttp::All,
            PlainHttp::Off => door::PlainHttp::Off,
        };
        let access_log = match self.file.log.access {
            Access::Off => None,
            Access::Combined => Some(Form::Combined),
            Access::Json => Some(Form::Json),
        };
        door::Policy { plain_http, trusted_proxies: self.file.server.trusted_proxies.clone(), access_log }
    }

    /// What a certificate of ours is for, beside what this machine is called anyway: addresses that may come and go, too.
    pub fn certificate_names(&self) -> Vec<String> {
        let addresses = self.file.server.listen.iter().map(SocketAddr::ip).filter(|address| !address.is_unspecified());
        self.file.tls.names.iter().cloned().chain(addresses.map(|address| address.to_string())).collect()
    }

    /// Every remote that is served, in the order of `server.root`; our own images come first unless that says otherwise.
    pub fn published_remotes(&self) -> Vec<RemoteSettings> {
        let own = RemoteSettings { name: LOCAL.into(), selection: Selection::default(), twins: true, mode: Mode::Own };
        let mut remotes: Vec<RemoteSettings> = self.remotes.iter().map(|remote| remote.settings.clone()).collect();
        let named = self.file.server.root.iter().take_while(|name| *name != LOCAL).count();
        let place = if self.file.server.root.iter().any(|name| name == LOCAL) { named } else { 0 };
        remotes.insert(place.min(remotes.len()), own);
        remotes
    }

    /// Has these remotes, which came in bundles, offline: those that it does not name, and those that it has only because it names
    /// none.
    pub fn feed(&mut self, names: impl IntoIterator<Item = String>) -> Result<(), ConfigError> {
        for name in names {
            let section = self.file.remotes.0.iter().find(|(other, _)| *other == name).map(|(_, section)| section.clone());
            let offline = file::Remote { mode: file::Mode::Offline, ..section.unwrap_or_default() };
            match self.remotes.iter().position(|remote| **remote.name() == *name) {
                None => self.remotes.push(Remote::new(&name, &offline, &self.file)?),
                Some(place) if self.is_built_in => self.remotes[place] = Remote::new(&name, &offline, &self.file)?,
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Whether a remote can be fed by bundles: it is offline, or would be by [`Self::feed`].
    pub fn is_feedable(&self, name: &str) -> bool {
        let known = self.remotes.iter().find(|remote| **remote.name() == *name);
        self.is_built_in || known.is_none_or(|remote| remote.mode == Mode::Offline)
    }

    /// How long a stop waits for what is under way.
    pub fn drain(&self) -> Duration {
        self.file.server.drain.0
    }

    /// Whether it may take the place of `old` in a running server. Where remotes were named, no file means to have all of them
    /// replaced by the public ones without a word: it was read while an editor had it open.
    pub fn is_successor_of(&self, old: &Self) -> Result<(), ConfigError> {
        if self.is_built_in && !old.is_built_in {
            let reason = "the file names no remote any more; was it read while it was written? Restart for the public image servers";
            return Err(self.origin.locate(ConfigError::of_key("remotes", reason)));
        }
        Ok(())
    }

    /// The keys whose change from `old` takes a restart.
    pub fn needs_restart(&self, old: &Self) -> Vec<&'static str> {
        let (new, old) = (&self.file, &old.file);
        let changed = [
            ("server.listen", new.server.listen != old.server.listen),
            ("server.metrics", new.server.metrics != old.server.metrics),
            ("server.admin_socket", new.server.admin_socket != old.server.admin_socket),
            ("storage", new.storage != old.storage),
            ("log.level", new.log.level != old.log.level),
            ("log.format", new.log.format != old.log.format),
            ("limits", new.limits != old.limits),
        ];
        changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
    }

    /// The effective configuration as TOML, without secrets.
    pub fn show(&self) -> String {
        let mut file = self.file.clone();
        file.remotes.0.iter_mut().for_each(|(_, remote)| remote::hide_secrets(remote));
        toml::to_string_pretty(&file).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }
}

/// A bound of zero lets nothing through.
fn check_limits(file: &File) -> Result<(), ConfigError> {
    let limits = &file.limits;
    let zeros = [
        ("connections", limits.connections == 0),
        ("header_timeout", limits.header_timeout.0.is_zero()),
        ("write_timeout", limits.write_timeout.0.is_zero()),
        ("answer_timeout", limits.answer_timeout.0.is_zero()),
        ("connect_timeout", limits.connect_timeout.0.is_zero()),
        ("silence_timeout", limits.silence_timeout.0.is_zero()),
        ("fetches", limits.fetches == 0),
        ("client_fetches", limits.client_fetches == 0),
        ("mirror_fetches", limits.mirror_fetches == 0),
        ("file_readers", limits.file_readers == 0),
        ("document_size", limits.document_size.0 == 0),
        ("documents", limits.documents == 0),
        ("refresh_timeout", limits.refresh_timeout.0.is_zero()),
    ];
    /// More than any machine has a use for, and less than what the libraries below refuse.
    const MOST: usize = 1 << 20;
    const LONGEST: Duration = Duration::from_hours(365 * 24);
    const SHORTEST: Duration = Duration::from_millis(10);
    let counts = [
        ("connections", limits.connections),
        ("fetches", limits.fetches),
        ("client_fetches", limits.client_fetches),
        ("unbuffered_fetches", limits.unbuffered_fetches),
        ("file_readers", limits.file_readers),
    ];
    if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count > MOST) {
        return Err(ConfigError::of_key(&format!("limits.{key}"), format!("this is more than {MOST}")));
    }
    let waits = [
        ("header_timeout", limits.header_timeout.0),
        ("write_timeout", limits.write_timeout.0),
        ("answer_timeout", limits.answer_timeout.0),
        ("connect_timeout", limits.connect_timeout.0),
        ("silence_timeout", limits.silence_timeout.0),
        ("refresh_timeout", limits.refresh_timeout.0),
    ];
    let retries = [("retry_gone", limits.retry_gone.0), ("retry_wrong", limits.retry_wrong.0)];
    if let Some((key, _)) = waits.iter().chain(&retries).find(|(_, time)| *time > LONGEST) {
        return Err(ConfigError::of_key(&format!("limits.{key}"), "this is more than a year"));
    }
    if let Some((key, _)) = waits.iter().find(|(_, time)| !time.is_zero() && *time < SHORTEST) {
        return Err(ConfigError::of_key(&format!("limits.{key}"), "nobody can be that quick; 10ms is the least"));
    }
    if (1..=limits.mirror_fetches).contains(&limits.fetches) {
        return Err(ConfigError::of_key(
            "limits.mirror_fetches",
            "hosts must have turns to download too: this must be less than limits.fetches",
        ));
    }
    if (1..=file.server.listen.len()).contains(&limits.connections) {
        return Err(ConfigError::of_key("limits.connections", "there must be more than there are addresses in server.listen"));
    }
    let zero = zeros.into_iter().find(|(_, is_zero)| *is_zero);
    zero.map_or(Ok(()), |(key, _)| Err(ConfigError::of_key(&format!("limits.{key}"), "zero would let nothing through")))
}

fn certificate(file: &File) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    let (certificate, key) = (&file.tls.certificate, &file.tls.key);
    match (certificate.as_os_str().is_empty(), key.as_os_str().is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some((certificate.clone(), key.clone()))),
        (false, true) => Err(ConfigError::of_key("tls.certificate", "there is no tls.key to go with it")),
        (true, false) => Err(ConfigError::of_key("tls.key", "there is no tls.certificate to go with it")),
    }
}

/// Only names and addresses can stand in a certificate.
fn check_names(file: &File) -> Result<(), ConfigError> {
    let bad = file.tls.names.iter().find(|name| {
        let host = name.strip_prefix("*.").unwrap_or(name);
        ServerName::try_from(host).is_err() || (host.len() != name.len() && host.parse::<IpAddr>().is_ok())
    });
    bad.map_or(Ok(()), |name| Err(ConfigError::of_key("tls.names", format!("'{name}' is neither a DNS name nor an address"))))
}

fn with_environment(text: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<File, ConfigError> {
    let of_text = |error: toml::de::Error| ConfigError {
        origin: "configuration".to_owned(),
        line: None,
        key: None,
        reason: error.message().to_owned(),
    };
    let defaults = Table::try_from(File::default()).expect("the defaults can be written as TOML");
    let mut table: Table = toml::from_str(text).map_err(of_text)?;
    for change in environment::overrides(&defaults, variables) {
        change.apply(&mut table, &defaults);
        table.clone().try_into::<File>().map_err(|error| {
            let key = Some(format!("{}.{}", change.section, change.key));
            ConfigError { origin: format!("environment variable {}", change.variable), key, ..of_text(error) }
        })?;
    }
    table.try_into().map_err(of_text)
}
