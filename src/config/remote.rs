//! One remote of the configuration, as the options of those who work for it.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TE, TRANSFER_ENCODING, UPGRADE,
};
use reqwest::Url;

use crate::catalog::mode::Mode;
use crate::catalog::name;
use crate::config::error::ConfigError;
use crate::config::file::{self, File};
use crate::config::value::Span;
use crate::publish::command::RemoteSettings;
use crate::refresh;
use crate::refresh::gather::Bounds;
use crate::selection::{Filter, Selection};
use crate::upstream::client::{Options, Timeouts};
use crate::upstream::redirect;

/// The part of `limits.answer_timeout` in which a download gets its turn, or one URL its answer: then there is some left for
/// what comes after.
pub const PART: f64 = 0.75;
/// Headers that say what we ask for, or belong to the connection.
const OURS: [HeaderName; 14] = [
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// What is shown in the place of a secret.
const HIDDEN: &str = "(hidden)";
/// How often documents are refreshed when images are not kept up to date by themselves.
const DOCUMENTS_INTERVAL: std::time::Duration = std::time::Duration::from_hours(6);
/// The least time between two refreshes that a 404 asks for.
const GONE_PAUSE: std::time::Duration = std::time::Duration::from_mins(1);

/// A remote that can be used.
#[derive(Clone, Debug)]
pub struct Remote {
    /// How it is reached. Its CA is read when it is.
    pub upstream: Options,
    /// PEM of a CA for it.
    pub ca: Option<PathBuf>,
    /// How it is held.
    pub mode: Mode,
    /// How it is listed.
    pub settings: RemoteSettings,
    /// How it is refreshed.
    pub refresh: refresh::Options,
}

impl Remote {
    /// Checks a remote's section.
    pub fn new(name: &str, remote: &file::Remote, file: &File) -> Result<Self, ConfigError> {
        let key = |key: &str| format!("remotes.{name}.{key}");
        name::check(name).map_err(|reason| ConfigError::of_key(&format!("remotes.{name}"), reason))?;
        let urls = remote
            .url
            .iter()
            .map(|url| parse_url(url))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|reason| ConfigError::of_key(&key("url"), reason))?;
        if urls.is_empty() && remote.mode != file::Mode::Offline {
            return Err(ConfigError::of_key(&key("url"), "there must be at least one URL"));
        }
        let filters = remote
            .select
            .iter()
            .map(|filter| filter.parse())
            .collect::<Result<Vec<Filter>, _>>()
            .map_err(|error| ConfigError::of_key(&key("select"), error))?;
        let proxy = if remote.proxy.is_empty() {
            None
        } else {
            Some(Url::parse(&remote.proxy).map_err(|_| ConfigError::of_key(&key("proxy"), "this is no URL"))?)
        };
        let headers = headers(remote).map_err(|(header, reason)| ConfigError::of_key(&key(&format!("headers.{header}")), reason))?;
        let interval = interval(remote, file).map_err(|error| ConfigError::of_key(&key("interval"), error))?;
        let limits = &file.limits;
        let timeouts = Timeouts {
            connect: limits.connect_timeout.0,
            answer: limits.answer_timeout.0.mul_f64(PART),
            silence: limits.silence_timeout.0,
        };
        let redirects = redirect::Rules { most: limits.redirects, private: remote.private_redirects };
        Ok(Self {
            upstream: Options { remote: name.to_owned(), urls, ca: None, headers, proxy, timeouts, redirects },
            ca: Some(remote.ca.clone()).filter(|path| !path.as_os_str().is_empty()),
            settings: RemoteSettings {
                name: name.into(),
                selection: Selection { filters, versions: remote.versions },
                twins: remote.twins,
                mode: remote.mode.into(),
            },
            mode: remote.mode.into(),
            refresh: refresh::Options {
                interval,
                max_gone_percent: remote.max_gone.0,
                grace: file.images.grace.0,
                gone_pause: GONE_PAUSE,
                bounds: Bounds { document_bytes: limits.document_size.0, documents: limits.documents, deadline: limits.refresh_timeout.0 },
            },
        })
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.settings.name
    }
}

/// Brings remotes into the order of `server.root`; those that it does not name come after.
pub fn check_root(root: &[String], remotes: &mut [Remote]) -> Result<(), ConfigError> {
    // Images of our own come later; the name is allowed so that a configuration can be written ahead.
    for name in root.iter().filter(|name| *name != "local") {
        if !remotes.iter().any(|remote| **remote.name() == **name) {
            return Err(ConfigError::of_key("server.root", format!("there is no remote '{name}'")));
        }
    }
    let place = |remote: &Remote| root.iter().position(|name| **name == **remote.name()).unwrap_or(usize::MAX);
    remotes.sort_by_key(place);
    Ok(())
}

/// Takes out of a section what nobody should read over a shoulder.
pub fn hide_secrets(remote: &mut file::Remote) {
    remote.headers.values_mut().for_each(|value| HIDDEN.clone_into(value));
    remote.url.iter_mut().chain([&mut remote.proxy]).for_each(|url| {
        if let Some(hidden) = Url::parse(url).ok().and_then(without_password) {
            *url = hidden;
        }
    });
}

fn without_password(mut url: Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    url.set_username("hidden").and_then(|()| url.set_password(None)).ok()?;
    Some(url.into())
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("'{text}' is no URL: {error}"))?;
    match url.scheme() {
        "http" | "https" if url.query().is_none() && url.fragment().is_none() => Ok(url),
        "http" | "https" => Err("a URL with a query or a fragment has no place for paths".to_owned()),
        scheme => Err(format!("'{scheme}' is neither http nor https")),
    }
}

fn headers(remote: &file::Remote) -> Result<HeaderMap, (String, String)> {
    let mut headers = HeaderMap::new();
    for (name, value) in &remote.headers {
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|error| (name.clone(), error.to_string()))?;
        if OURS.contains(&header) {
            return Err((name.clone(), "this header is ours to set; a value of yours would spoil every answer".to_owned()));
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| (name.clone(), "this is no header value".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    Ok(headers)
}

fn interval(remote: &file::Remote, file: &File) -> Result<std::time::Duration, crate::config::value::BadValue> {
    let wanted = if remote.interval.is_empty() { file.images.auto_update_interval.0 } else { remote.interval.parse::<Span>()?.0 };
    Ok(if wanted.is_zero() { DOCUMENTS_INTERVAL } else { wanted })
}
