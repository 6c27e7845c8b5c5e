//! Answers with a file: out of the store, or while it is fetched.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, RANGE};
use hyper::http::response::Builder;
use hyper::{HeaderMap, Response, StatusCode, Version};
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use crate::cache::error::FetchError;
use crate::cache::lease::Lent;
use crate::cache::reader::Reader;
use crate::catalog::document::content_type;
use crate::catalog::files::File;
use crate::digest::Digest;
use crate::fetch::Found;
use crate::fetch::download::Wanted;
use crate::http::condition::{Outcome, Validators};
use crate::http::range::{ByteRange, Selected};
use crate::server::body::{self, Body};
use crate::server::door::Door;
use crate::server::problem::Problem;
use crate::server::respond::{self, CACHE_STATUS, REPR_DIGEST};

/// A request for a file.
#[derive(Debug)]
pub struct Asked<'a> {
    /// What all connections share.
    pub door: &'a Door,
    /// The remote that has the file.
    pub remote: &'a Arc<str>,
    /// The file.
    pub file: &'a File,
    /// Whether it was asked for by its digest, so that the answer never changes.
    pub by_digest: bool,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The version of HTTP.
    pub version: Version,
    /// Whether it is a HEAD.
    pub is_head: bool,
    /// The host.
    pub host: IpAddr,
    /// Since when it waits.
    pub since: Instant,
}

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Out of the store, or nothing of it was needed.
    Hit,
    /// Fetched for this host.
    Miss,
    /// Fetched for another host.
    Collapsed,
    /// Fetched, and not stored.
    Bypass,
}

impl Via {
    /// What metrics call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Bypass => "bypass",
        }
    }

    /// What `Cache-Status` says (RFC 9211).
    fn cache_status(self) -> &'static str {
        match self {
            Self::Hit => "cistern; hit",
            Self::Miss => "cistern; fwd=uri-miss; stored",
            Self::Collapsed => "cistern; fwd=uri-miss; collapsed",
            Self::Bypass => "cistern; fwd=uri-miss",
        }
    }
}

/// A disk that takes longer than this to say whether the root of a delta is held is not asked.
const A_MOMENT: Duration = Duration::from_secs(1);

/// An answer and how it came about.
type Answer = Result<(Response<Body>, Via), Problem>;

/// Answers a GET or a HEAD.
pub async fn answer(asked: Asked<'_>) -> Answer {
    let digest = asked.door.cache.digest(asked.file.expected);
    let etag = digest.map(|digest| format!("\"{digest}\""));
    let validators = Validators { etag: etag.as_deref(), last_modified: asked.file.modified };
    match validators.evaluate(asked.headers) {
        Outcome::Proceed => {}
        Outcome::PreconditionFailed => return Err(Problem::Precondition),
        Outcome::NotModified => return Ok((respond::without_body(asked.head(StatusCode::NOT_MODIFIED, Via::Hit, digest)), Via::Hit)),
    }
    let range = asked.headers.get(RANGE).and_then(|value| value.to_str().ok()).and_then(ByteRange::parse);
    let range = range.filter(|_| validators.range_applies(asked.headers));
    if asked.is_head {
        return asked.head_only(range, digest).await;
    }
    let start = asked.file.expected.size.map_or(Ok(0), |size| select(range, size).map(|range| range.start))?;
    let expected = asked.file.expected;
    let seat = asked.door.readers.try_take(expected).ok_or(Problem::Crowded)?;
    let wanted = Wanted { remote: Arc::clone(asked.remote), path: asked.file.path.clone(), expected, host: Some(asked.host) };
    let (response, via) = asked.get(&wanted, start, range, digest).await?;
    asked.note_delta().await;
    Ok((response.map(|body| body::with_seat(body, seat)), via))
}

/// The bytes of a file that are asked for.
fn select(range: Option<ByteRange>, size: u64) -> Result<Range<u64>, Problem> {
    match range.map(|range| range.select(size)) {
        None | Some(Selected::Whole) => Ok(0..size),
        Some(Selected::Part(part)) => Ok(part),
        Some(Selected::Unsatisfiable) => Err(Problem::Range(size)),
    }
}

impl Asked<'_> {
    async fn get(&self, wanted: &Wanted, start: u64, range: Option<ByteRange>, digest: Option<Digest>) -> Answer {
        match self.find(wanted, start).await? {
            Found::Held(blob) => {
                self.door.cache.used(blob.digest);
                self.held(blob, range)
            }
            Found::Fetched(reader) => self.fetched(reader, range, Via::Miss, digest).await,
            Found::Collapsed(reader) => match self.fetched(reader, range, Via::Collapsed, digest).await {
                // That was said of another path or remote with the same bytes, perhaps; of this one it is known by now.
                Err(Problem::Fetch(FetchError::Gone | FetchError::Wrong(_))) => self.alone(wanted, start, range, digest).await,
                answer => answer,
            },
        }
    }

    /// Finds the file, before its host gives up: a disk that does not answer may never do.
    async fn find(&self, wanted: &Wanted, start: u64) -> Result<Found, Problem> {
        let found = tokio::time::timeout(self.patience(), self.door.fetcher.find(wanted, start)).await;
        Ok(found.map_err(late)??)
    }

    /// How long its host still waits for an answer.
    fn patience(&self) -> Duration {
        self.door.bounds.answer_timeout.saturating_sub(self.since.elapsed())
    }

    /// Looks again after a fetch that this request had joined came to nothing.
    async fn alone(&self, wanted: &Wanted, start: u64, range: Option<ByteRange>, digest: Option<Digest>) -> Answer {
        match self.find(wanted, start).await? {
            Found::Held(blob) => self.held(blob, range),
            Found::Fetched(reader) | Found::Collapsed(reader) => self.fetched(reader, range, Via::Miss, digest).await,
        }
    }

    /// A delta stands for the root that it makes: that is used too, and brought in if it is not held, because the next host
    /// may not have what the delta is based on.
    async fn note_delta(&self) {
        let door = self.door;
        let root = door.current.load().root_of(self.file.expected).map(|(remote, root)| (Arc::clone(remote), root.clone()));
        let Some((remote, root)) = root else { return };
        let wanted = Wanted { remote, path: root.path, expected: root.expected, host: Some(self.host) };
        // Its host is not kept waiting for what it did not ask for.
        let found = tokio::time::timeout(A_MOMENT, door.fetcher.find_within(&wanted, 0, Duration::ZERO)).await;
        match found {
            Ok(Ok(Found::Held(root))) => door.cache.used(root.digest),
            // The download goes on without this reader.
            Ok(Ok(Found::Fetched(_) | Found::Collapsed(_))) => {}
            Err(_) => tracing::debug!(path = %wanted.path, "the disk does not say whether the root of a delta is held"),
            Ok(Err(error)) => tracing::debug!(path = %wanted.path, %error, "the root of a delta cannot be had"),
        }
    }

    /// A HEAD fetches nothing. Without a size by the document's word or the store's there is none.
    async fn head_only(&self, range: Option<ByteRange>, digest: Option<Digest>) -> Answer {
        let held = tokio::time::timeout(self.patience(), self.door.cache.find(self.file.expected)).await;
        let held = held.map_err(late)?.map_err(|error| Problem::Store(error.to_string()))?;
        let via = if held.is_some() { Via::Hit } else { Via::Bypass };
        let size = held.map(|blob| blob.size).or(self.file.expected.size);
        let Some(size) = size else { return Ok((respond::without_body(self.head(StatusCode::OK, via, digest)), via)) };
        let part = select(range, size)?;
        Ok((respond::without_body(self.sized(range, &part, size, via, digest)), via))
    }

    fn held(&self, blob: Lent, range: Option<ByteRange>) -> Answer {
        let part = select(range, blob.size)?;
        let head = self.sized(range, &part, blob.size, Via::Hit, Some(blob.digest));
        Ok((respond::finish(head, body::of_blob(blob, part)), Via::Hit))
    }

    async fn fetched(&self, mut reader: Reader, range: Option<ByteRange>, via: Via, digest: Option<Digest>) -> Answer {
        let mut size = reader.answered(self.patience()).await?;
        if size.is_none() && self.version < Version::HTTP_11 {
            // Such a host could not tell a body that broke off from one that is over.
            size = Some(reader.verified().await?);
        }
        let via = if reader.is_stored() { via } else { Via::Bypass };
        let Some(size) = size else {
            let head = self.head(StatusCode::OK, via, digest);
            return Ok((respond::finish(head, body::of_reader(reader)), via));
        };
        let part = select(range, size)?;
        let head = self.sized(range, &part, size, via, digest);
        reader.select(part);
        Ok((respond::finish(head, body::of_reader(reader)), via))
    }

    fn sized(&self, range: Option<ByteRange>, part: &Range<u64>, size: u64, via: Via, digest: Option<Digest>) -> Builder {
        let head = self.head(status(range), via, digest).header(CONTENT_LENGTH, part.end - part.start);
        match range {
            Some(_) => head.header(CONTENT_RANGE, format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1))),
            None => head,
        }
    }

    fn head(&self, status: StatusCode, via: Via, digest: Option<Digest>) -> Builder {
        let cache_control = if self.by_digest { "public, max-age=31536000, immutable" } else { "public, no-cache" };
        let mut head = respond::head(status)
            .header(ACCEPT_RANGES, "bytes")
            .header(CACHE_CONTROL, cache_control)
            .header(CACHE_STATUS, via.cache_status());
        if let Some(digest) = digest {
            head = head.header(ETAG, format!("\"{digest}\"")).header(REPR_DIGEST, digest.repr_digest());
        }
        if let Some(modified) = self.file.modified {
            head = head.header(LAST_MODIFIED, httpdate::fmt_http_date(modified));
        }
        if status == StatusCode::NOT_MODIFIED { head } else { head.header(CONTENT_TYPE, content_type(self.file.path.basename())) }
    }
}

fn late(_: Elapsed) -> Problem {
    Problem::Store("it did not answer in time".to_owned())
}

fn status(range: Option<ByteRange>) -> StatusCode {
    if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK }
}
