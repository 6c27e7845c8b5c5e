//! Asks image servers for documents and blobs.
//!
//! One request, one answer: which URL comes next, when to try again and what to make of the bytes is decided elsewhere.

pub mod client;
pub mod redirect;
pub mod resolver;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::http::path::StreamPath;

/// An image server, under all of its URLs.
pub trait Upstream: fmt::Debug + Send + Sync + 'static {
    /// Its URLs, in the configured order and without secrets.
    fn urls(&self) -> &[String];
    /// Sends one request to one of its URLs.
    fn get(&self, request: Request) -> BoxFuture<'_, Result<Answer, Failure>>;
}

/// What is asked of an image server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which of its URLs, counted from 0.
    pub url: usize,
    /// What, below the top of the URL.
    pub path: StreamPath,
    /// How.
    pub kind: Kind,
}

/// The kinds of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A document, unless it is still what these validators say.
    Document {
        /// `If-None-Match`
        etag: Option<String>,
        /// `If-Modified-Since`
        last_modified: Option<String>,
    },
    /// A blob from this byte on.
    Blob {
        /// The first byte; 0 asks for all of it.
        from: u64,
        /// `If-Range`: an entity tag of this URL.
        if_range: Option<String>,
    },
}

impl Kind {
    /// What metrics call it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Document { .. } => "document",
            Self::Blob { .. } => "blob",
        }
    }
}

/// An answer of 200, 206 or 304.
pub struct Answer {
    /// 200, 206 or 304.
    pub status: u16,
    /// `Content-Length`, where it is the length of the bytes that come.
    pub length: Option<u64>,
    /// `Content-Range` of a 206.
    pub range: Option<crate::http::range::ContentRange>,
    /// `ETag`
    pub etag: Option<String>,
    /// `Last-Modified`
    pub last_modified: Option<String>,
    /// The bytes.
    pub body: BoxStream<'static, Result<Bytes, Failure>>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {:?} bytes)", self.status, self.length)
    }
}

/// Why there is no answer, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection, or none that can be trusted.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Nothing came for too long.
    #[error("silent for too long {0}")]
    Silent(&'static str),
    /// The connection broke.
    #[error("cut off: {0}")]
    Cut(String),
    /// Another status than 200, 206 or 304.
    #[error("answered {code}")]
    Status {
        /// Which.
        code: u16,
        /// `Retry-After`
        retry_after: Option<Duration>,
    },
    /// A redirect that is not followed.
    #[error("redirects: {0}")]
    Redirect(redirect::Refused),
    /// More bytes than we take.
    #[error("sends more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// An answer that makes no sense.
    #[error("answers nonsense: {0}")]
    Nonsense(String),
}

impl Failure {
    /// What metrics call it: one of [`crate::metrics::FAILURES`].
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Silent(_) => "timeout",
            Self::Cut(_) => "cut",
            Self::Status { .. } => "status",
            Self::Redirect(_) => "redirect",
            Self::TooLarge { .. } => "size",
            Self::Nonsense(_) => "protocol",
        }
    }

    /// Whether the server says, in so many words, that it has no such thing.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Status { code: 404 | 410, .. })
    }

    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
