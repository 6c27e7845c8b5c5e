//! Finds out what a request asks for, and has it answered.

use std::sync::Arc;

use hyper::header::{HOST, USER_AGENT};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, Version};
use tokio::time::Instant;

use crate::cache::Cache;
use crate::catalog::Catalog;
use crate::catalog::document::Document;
use crate::catalog::files::File;
use crate::digest::Digest;
use crate::http::path::StreamPath;
use crate::server::access::{Entry, Form};
use crate::server::blob::{self, Asked};
use crate::server::body::Body;
use crate::server::door::{Door, Peer, PlainHttp, Policy};
use crate::server::problem::Problem;
use crate::server::tally::{Tallied, Tally};
use crate::server::{document, page, respond};

/// Where blobs are by their digest.
const DIGESTS: &str = "blobs/sha256/";

/// What a request asks for.
#[derive(Debug)]
enum Route {
    Page,
    Document(Option<Arc<str>>, Arc<Document>),
    File { remote: Arc<str>, file: File, by_digest: bool },
    Nothing,
}

impl Route {
    fn label(&self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Document(..) => "document",
            Self::File { by_digest: false, .. } => "blob",
            Self::File { by_digest: true, .. } => "digest",
            Self::Nothing => "other",
        }
    }
}

/// Answers one request of a host.
pub async fn answer<B>(door: &Door, peer: Peer, request: Request<B>) -> Response<Tallied<Body>> {
    let (parts, _) = request.into_parts();
    let policy = door.policy.load_full();
    let client = policy.client(peer, &parts.headers);
    let asking = Asking { door, policy, client, parts, started: Instant::now() };
    let catalog = door.current.load();
    let route = asking.check_host().and_then(|()| route(&catalog, &door.cache, asking.parts.uri.path()));
    let label = route.as_ref().map_or("other", Route::label);
    let (response, result) = match route {
        Ok(route) => asking.answer(&catalog, route).await.unwrap_or_else(|(problem, result)| (asking.problem(&problem), result)),
        Err(problem) => (asking.problem(&problem), "error"),
    };
    asking.tally(response, label, result)
}

/// Whether there is a file at a path whose document says how long it is.
pub fn has_sized_file(door: &Door, path: &str) -> bool {
    let found = route(&door.current.load(), &door.cache, path);
    matches!(found, Ok(Route::File { file, .. }) if file.expected.size.is_some())
}

/// Whether this is a name or an address, and perhaps a port.
fn is_host(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    let port = text.strip_prefix(authority.host()).unwrap_or("@");
    let is_port = port.is_empty() || port == ":" || authority.port_u16().is_some();
    is_port && !matches!(authority.host(), "" | "[]")
}

/// Finds what is at a path.
fn route(catalog: &Catalog, cache: &Cache, path: &str) -> Result<Route, Problem> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Route::Page);
    }
    if let Some(hex) = path.strip_prefix(DIGESTS) {
        return Ok(by_digest(catalog, cache, hex));
    }
    let path = StreamPath::from_request(path)?;
    if let Some((remote, document)) = catalog.document(&path) {
        return Ok(Route::Document(remote.cloned(), Arc::clone(document)));
    }
    if catalog.is_awaited(&path) {
        return Err(Problem::Awaited);
    }
    let file = catalog.file(&path);
    Ok(file.map_or(Route::Nothing, |(remote, file)| Route::File { remote: Arc::clone(remote), file: file.clone(), by_digest: false }))
}

/// Finds a blob that is held and that a document names.
fn by_digest(catalog: &Catalog, cache: &Cache, hex: &str) -> Route {
    let claims = Digest::from_hex(hex).map(|digest| cache.claims(digest)).unwrap_or_default();
    let found = claims.into_iter().find_map(|claim| catalog.file_with(claim));
    found.map_or(Route::Nothing, |(remote, file)| Route::File { remote: Arc::clone(remote), file: file.clone(), by_digest: true })
}

/// A request that is being answered.
struct Asking<'a> {
    door: &'a Door,
    policy: Arc<Policy>,
    client: Peer,
    parts: Parts,
    started: Instant,
}

type Answer = Result<(Response<Body>, &'static str), (Problem, &'static str)>;

impl Asking<'_> {
    /// Whoever speaks HTTP/1.1 names one host, however little we make of it (RFC 9112 §3.2): what stands in between may have
    /// understood another one.
    fn check_host(&self) -> Result<(), Problem> {
        let mut hosts = self.parts.headers.get_all(HOST).iter();
        let is_good = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.is_empty() || host.to_str().is_ok_and(is_host),
            (None, _) => self.parts.version != Version::HTTP_11,
            (Some(_), Some(_)) => false,
        };
        if is_good { Ok(()) } else { Err(Problem::Host) }
    }

    async fn answer(&self, catalog: &Catalog, route: Route) -> Answer {
        if !matches!(self.parts.method, Method::GET | Method::HEAD) {
            return Err((Problem::Method, "error"));
        }
        if let Some(elsewhere) = self.keep_off_plain_http(&route).map_err(|problem| (problem, "error"))? {
            return Ok((elsewhere, "hit"));
        }
        match route {
            Route::Page => Ok((page::answer(catalog, self.authority(), self.is_head()), "hit")),
            Route::Document(remote, document) => self.document(catalog, remote.as_deref(), &document),
            Route::File { remote, file, by_digest } => self.file(&remote, &file, by_digest).await,
            Route::Nothing => Err((Problem::NotFound, "error")),
        }
    }

    fn document(&self, catalog: &Catalog, remote: Option<&str>, document: &Document) -> Answer {
        let is_stale = match remote {
            Some(remote) => catalog.remotes.get(remote).is_some_and(|remote| remote.stale),
            None => catalog.remotes.values().any(|remote| remote.stale),
        };
        let result = if is_stale { "stale" } else { "hit" };
        self.door.metrics.cache_requested(remote.unwrap_or_default(), "document", result);
        document::answer(document, is_stale, &self.parts.headers, self.is_head())
            .map(|response| (response, result))
            .map_err(|problem| (problem, "error"))
    }

    async fn file(&self, remote: &Arc<str>, file: &File, by_digest: bool) -> Answer {
        let Parts { headers, version, .. } = &self.parts;
        let asked = Asked {
            door: self.door,
            remote,
            file,
            by_digest,
            headers,
            version: *version,
            is_head: self.is_head(),
            host: self.client.address,
            since: self.started,
        };
        let answer = match blob::answer(asked).await {
            Ok((response, via)) => Ok((response, via.label())),
            Err(problem @ Problem::Refused(_)) => Err((problem, "negative")),
            Err(problem) => Err((problem, "error")),
        };
        let result = answer.as_ref().map_or_else(|(_, result)| *result, |(_, result)| *result);
        self.door.metrics.cache_requested(remote, "blob", result);
        answer
    }

    /// Files travel over plain HTTP, since clients check them; documents never do unless the operator says so. The rest
    /// is sent to HTTPS.
    fn keep_off_plain_http(&self, route: &Route) -> Result<Option<Response<Body>>, Problem> {
        match (self.client.is_tls, self.policy.plain_http, route) {
            (true, ..) | (_, PlainHttp::All, _) | (_, PlainHttp::Files, Route::File { .. } | Route::Nothing) => Ok(None),
            (_, PlainHttp::Off, _) => Err(Problem::PlainHttp),
            (_, PlainHttp::Files, Route::Page | Route::Document(..)) => {
                let authority = self.authority().ok_or(Problem::PlainHttp)?;
                let target = self.parts.uri.path_and_query().map_or("/", |target| target.as_str());
                Ok(Some(respond::redirect(&format!("https://{authority}{target}"))))
            }
        }
    }

    /// What the host calls this server, if that is a name and perhaps a port. A user's name and password are nobody's business.
    fn authority(&self) -> Option<Authority> {
        let host = self.parts.headers.get(HOST).and_then(|host| host.to_str().ok()?.parse().ok());
        self.parts.uri.authority().cloned().or(host).filter(|authority: &Authority| !authority.as_str().contains('@'))
    }

    fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    fn problem(&self, problem: &Problem) -> Response<Body> {
        tracing::debug!(client = %self.client.address, path = self.parts.uri.path(), ?problem, "a request came to nothing");
        respond::problem(problem, self.door.bounds.retry_wrong, self.is_head())
    }

    fn tally(&self, response: Response<Body>, route: &'static str, result: &'static str) -> Response<Tallied<Body>> {
        let status = response.status().as_u16();
        let method = match self.parts.method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            _ => "other",
        };
        self.door.metrics.http_answered(route, method, status, result, self.started.elapsed().as_secs_f64());
        let entry = self.policy.access_log.map(|form| self.entry(form, status));
        let tally = Tally::new(Arc::clone(&self.door.metrics), route, result, entry);
        response.map(|body| tally.count_in(body))
    }

    fn entry(&self, form: Form, status: u16) -> Entry {
        let Parts { method, uri, version, headers, .. } = &self.parts;
        let user_agent = headers.get(USER_AGENT).map(|value| value.as_bytes().escape_ascii().to_string());
        Entry {
            form,
            lines: self.door.scribe.lines(),
            time: self.door.clock.now(),
            client: self.client.address,
            method: method.to_string(),
            target: uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes().escape_ascii().to_string(),
            version: format!("{version:?}"),
            user_agent: user_agent.unwrap_or_else(|| "-".to_owned()),
            status,
        }
    }
}
