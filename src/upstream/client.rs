//! Image servers over HTTP and HTTPS.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use hyper::HeaderMap;
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, LOCATION,
    RANGE, RETRY_AFTER,
};
use reqwest::{Certificate, Client, ClientBuilder, Proxy, Response, Url};

use crate::clock::Clock;
use crate::http::range::ContentRange;
use crate::metrics::Metrics;
use crate::upstream::redirect;
use crate::upstream::resolver::Resolver;
use crate::upstream::{Answer, Failure, Kind, Request, Upstream};

/// What we call ourselves. A host's own name is never passed on: some image servers turn LXD away by it.
pub const USER_AGENT: &str = concat!("cistern/", env!("CARGO_PKG_VERSION"));

/// How a remote is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// The remote's name, for metrics.
    pub remote: String,
    /// Its URLs.
    pub urls: Vec<Url>,
    /// PEM of a CA that is trusted beside the system's.
    pub ca: Option<Vec<u8>>,
    /// Headers for its own origins.
    pub headers: HeaderMap,
    /// A proxy, instead of the environment's.
    pub proxy: Option<Url>,
    /// Waits.
    pub timeouts: Timeouts,
    /// How redirects are followed.
    pub redirects: redirect::Rules,
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the head of an answer.
    pub answer: Duration,
    /// For the next byte of a document. Who reads a blob minds that himself: he may keep it waiting.
    pub silence: Duration,
}

/// A client for one remote.
#[derive(Debug)]
pub struct HttpUpstream {
    options: Options,
    names: Vec<String>,
    documents: Client,
    blobs: Client,
    resolver: Resolver,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum BadOptions {
    /// The CA cannot be read.
    #[error("the CA of remote {remote} cannot be read: {source}")]
    Ca {
        /// Whose.
        remote: String,
        /// What is wrong with it.
        source: reqwest::Error,
    },
    /// TLS or the proxy cannot be set up.
    #[error("no client can be made for remote {remote}: {source}")]
    Client {
        /// Whose.
        remote: String,
        /// What is wrong.
        source: reqwest::Error,
    },
}

impl HttpUpstream {
    /// Makes a client. Nothing is sent yet.
    pub fn new(options: Options, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Result<Self, BadOptions> {
        let broken = |source| BadOptions::Client { remote: options.remote.clone(), source };
        // Documents gain from h2 and gzip; a blob gains nothing from either, and its bytes must come as they are.
        let trusted = options.urls.iter().chain(&options.proxy);
        let resolver = Resolver::new(trusted, options.redirects.private);
        let builder = |options| builder(options).map(|builder| builder.dns_resolver(Arc::new(resolver.clone())));
        let documents = builder(&options)?.read_timeout(options.timeouts.silence).build().map_err(broken)?;
        let blobs = builder(&options)?.http1_only().no_gzip().build().map_err(broken)?;
        let names = options.urls.iter().map(without_secrets).collect();
        Ok(Self { options, names, documents, blobs, resolver, clock, metrics })
    }

    async fn send(&self, request: &Request) -> Result<Answer, Failure> {
        let origin = self.options.urls.get(request.url).ok_or(Failure::Nonsense("no such URL".to_owned()))?;
        let mut url = below(origin, &request.path.to_url())?;
        let mut headers = self.options.headers.clone();
        for followed in 0.. {
            let response = self.send_once(&url, headers, &request.kind).await?;
            if !response.status().is_redirection() || response.status() == 304 {
                return self.answer(response);
            }
            let location = text(response.headers(), &LOCATION);
            let follow =
                redirect::decide(origin, &url, location.as_deref(), followed, self.options.redirects).map_err(Failure::Redirect)?;
            url = follow.url;
            self.resolver.led_to(origin, &url);
            headers = if follow.with_headers { self.options.headers.clone() } else { HeaderMap::new() };
        }
        Err(Failure::Redirect(redirect::Refused::TooMany))
    }

    async fn send_once(&self, url: &Url, headers: HeaderMap, kind: &Kind) -> Result<Response, Failure> {
        let client = if matches!(kind, Kind::Blob { .. }) { &self.blobs } else { &self.documents };
        let request = client.get(url.clone()).headers(headers).headers(conditions(kind)).send();
        let response = tokio::time::timeout(self.options.timeouts.answer, request).await;
        response.map_err(|_| Failure::Silent("before it answered"))?.map_err(|error| failure(&error))
    }

    fn answer(&self, response: Response) -> Result<Answer, Failure> {
        let status = response.status().as_u16();
        if !matches!(status, 200 | 206 | 304) {
            let retry_after = text(response.headers(), &RETRY_AFTER).and_then(|text| self.retry_after(&text));
            return Err(Failure::Status { code: status, retry_after });
        }
        let headers = response.headers();
        let (etag, last_modified) = (text(headers, &ETAG), text(headers, &LAST_MODIFIED));
        let range = text(headers, &CONTENT_RANGE).and_then(|field| ContentRange::parse(&field));
        let length = response.content_length();
        let (metrics, remote) = (Arc::clone(&self.metrics), self.options.remote.clone());
        let body = response.bytes_stream().map(move |chunk| {
            let chunk = chunk.map_err(|error| failure(&error))?;
            metrics.upstream_received(&remote, chunk.len());
            Ok(chunk)
        });
        Ok(Answer { status, length, range, etag, last_modified, body: body.boxed() })
    }

    /// Seconds, or a date (RFC 9110 §10.2.3).
    fn retry_after(&self, field: &str) -> Option<Duration> {
        let date = || httpdate::parse_http_date(field).ok()?.duration_since(self.clock.now().try_into().ok()?).ok();
        field.trim().parse().map(Duration::from_secs).ok().or_else(date)
    }
}

impl Upstream for HttpUpstream {
    fn urls(&self) -> &[String] {
        &self.names
    }

    fn get(&self, request: Request) -> BoxFuture<'_, Result<Answer, Failure>> {
        async move {
            let answer = self.send(&request).await;
            let code = match &answer {
                Ok(answer) => answer.status,
                Err(Failure::Status { code, .. }) => *code,
                Err(_) => 0,
            };
            self.metrics.upstream_requested(&self.options.remote, request.kind.label(), code);
            answer
        }
        .boxed()
    }
}

fn builder(options: &Options) -> Result<ClientBuilder, BadOptions> {
    let mut builder =
        Client::builder().user_agent(USER_AGENT).redirect(reqwest::redirect::Policy::none()).connect_timeout(options.timeouts.connect);
    if let Some(ca) = &options.ca {
        let ca = Certificate::from_pem_bundle(ca).map_err(|source| BadOptions::Ca { remote: options.remote.clone(), source })?;
        builder = builder.tls_certs_merge(ca);
    }
    if let Some(proxy) = &options.proxy {
        let proxy = Proxy::all(proxy.clone()).map_err(|source| BadOptions::Client { remote: options.remote.clone(), source })?;
        builder = builder.no_proxy().proxy(proxy);
    }
    Ok(builder)
}

fn below(top: &Url, path: &str) -> Result<Url, Failure> {
    let mut url = top.clone();
    url.set_path(&format!("{}/", top.path().trim_end_matches('/')));
    let joined = Url::parse(&format!("{}{path}", url.as_str().split(['?', '#']).next().unwrap_or_default()));
    joined.map_err(|error| Failure::Nonsense(error.to_string()))
}

fn conditions(kind: &Kind) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: &Option<String>| {
        let value = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok());
        value.into_iter().for_each(|value| drop(headers.insert(name.clone(), value)));
    };
    match kind {
        Kind::Document { etag, last_modified } => {
            set(IF_NONE_MATCH, etag);
            set(IF_MODIFIED_SINCE, last_modified);
        }
        Kind::Blob { from, if_range } => {
            set(ACCEPT_ENCODING, &Some("identity".to_owned()));
            if *from > 0 {
                set(RANGE, &Some(format!("bytes={from}-")));
                set(IF_RANGE, if_range);
            }
        }
    }
    headers
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned)
}

fn failure(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        return if error.is_connect() { Failure::Connect("timed out".to_owned()) } else { Failure::Silent("in the middle") };
    }
    if error.is_connect() {
        return Failure::Connect(innermost(error));
    }
    Failure::Cut(innermost(error))
}

/// The cause at the bottom says what happened; what is above it repeats the URL, which may hold a password.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn without_secrets(url: &Url) -> String {
    let mut url = url.clone();
    let stripped = url.set_username("").and_then(|()| url.set_password(None));
    stripped.map(|()| url.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use reqwest::Url;

    use crate::upstream::client::{below, without_secrets};

    #[test]
    fn a_path_is_asked_for_below_the_top_of_the_url() {
        for (top, expected) in [
            ("https://a.example", "https://a.example/x/y:z"),
            ("https://a.example/", "https://a.example/x/y:z"),
            ("https://a.example/releases", "https://a.example/releases/x/y:z"),
            ("http://a.example:8080/releases//", "http://a.example:8080/releases/x/y:z"),
        ] {
            assert_eq!(below(&Url::parse(top).unwrap(), "x/y:z").unwrap().as_str(), expected);
        }
    }

    #[test]
    fn a_password_in_a_url_is_never_shown() {
        assert_eq!(without_secrets(&Url::parse("https://me:secret@a.example/x").unwrap()), "https://a.example/x");
    }
}
