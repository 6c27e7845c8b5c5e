//! Why a request is not answered with what it asks for: one match from every error to a status.

use std::time::Duration;

use hyper::StatusCode;

use crate::cache::error::FetchError;
use crate::fetch::NotFound;
use crate::http::path::BadPath;

/// How long a host is asked to wait when nobody said how long.
const DEFAULT_RETRY: Duration = Duration::from_secs(10);

/// What goes wrong with a request. What hosts are told is one short line; the log has the rest.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The path cannot be read.
    #[error("{0}")]
    BadPath(#[from] BadPath),
    /// It does not say which host it is for, or says so twice.
    #[error("a request has one Host header, with a name or an address")]
    Host,
    /// No document names it.
    #[error("not found")]
    NotFound,
    /// Only GET and HEAD are.
    #[error("only GET and HEAD are allowed")]
    Method,
    /// 412
    #[error("a precondition does not hold")]
    Precondition,
    /// 416, with the size of the file.
    #[error("the range lies outside of the file")]
    Range(u64),
    /// Plain HTTP, and the operator turned that off.
    #[error("plain HTTP is off here; use https")]
    PlainHttp,
    /// Very many hosts read the file already.
    #[error("too many hosts read this file at the moment; try again later")]
    Crowded,
    /// Upstream or the disk.
    #[error("{}", told(.0))]
    Fetch(#[from] FetchError),
    /// It turned out lately that the file cannot be had.
    #[error("{}", told(.0))]
    Refused(FetchError),
    /// Nobody knows yet: the remote has no documents so far.
    #[error("this mirror has no documents of that image server yet; try again later")]
    Awaited,
    /// The store cannot be read, or the remote is gone.
    #[error("the mirror is in trouble; try again later")]
    Store(String),
}

impl From<NotFound> for Problem {
    fn from(error: NotFound) -> Self {
        match error {
            NotFound::Refused(error) => Self::Refused(error),
            NotFound::Busy => Self::Fetch(FetchError::Busy),
            // It is listed: there was nothing wrong with asking.
            NotFound::NoRemote => Self::Fetch(FetchError::Disk("it is not held, and there is nobody to have it from".to_owned())),
            NotFound::Disk(error) => Self::Store(error.to_string()),
        }
    }
}

impl Problem {
    /// The status, and how long to wait before trying again; `retry_wrong` is for a file that came with wrong bytes.
    ///
    /// 404 means that the file is not there, and clients then forget their index; so trouble is never 404.
    pub fn status(&self, retry_wrong: Duration) -> (StatusCode, Option<Duration>) {
        match self {
            Self::BadPath(_) | Self::Host => (StatusCode::BAD_REQUEST, None),
            Self::NotFound => (StatusCode::NOT_FOUND, None),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, None),
            Self::Precondition => (StatusCode::PRECONDITION_FAILED, None),
            Self::Range(_) => (StatusCode::RANGE_NOT_SATISFIABLE, None),
            Self::PlainHttp => (StatusCode::FORBIDDEN, None),
            Self::Awaited | Self::Crowded | Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, Some(DEFAULT_RETRY)),
            Self::Fetch(error) | Self::Refused(error) => status(error, retry_wrong),
        }
    }
}

fn status(error: &FetchError, retry_wrong: Duration) -> (StatusCode, Option<Duration>) {
    match error {
        FetchError::Gone => (StatusCode::NOT_FOUND, None),
        FetchError::Upstream { retry_after: Some(wait), .. } => (StatusCode::SERVICE_UNAVAILABLE, Some(*wait)),
        FetchError::Upstream { retry_after: None, .. } | FetchError::Vanished => (StatusCode::BAD_GATEWAY, None),
        FetchError::Wrong(_) => (StatusCode::BAD_GATEWAY, Some(retry_wrong)),
        FetchError::TimedOut => (StatusCode::GATEWAY_TIMEOUT, None),
        FetchError::Busy | FetchError::TooSlow | FetchError::Abandoned | FetchError::Disk(_) | FetchError::Broken => {
            (StatusCode::SERVICE_UNAVAILABLE, Some(DEFAULT_RETRY))
        }
    }
}

/// What a host is told: nothing of addresses, paths or other hosts.
fn told(error: &FetchError) -> &'static str {
    match error {
        FetchError::Gone => "the image server does not have this file any more",
        FetchError::Upstream { .. } | FetchError::Vanished => "the image server is in trouble",
        FetchError::TimedOut => "the image server did not answer in time",
        FetchError::Wrong(_) => "the image server sent another file than its documents say",
        FetchError::Busy => "too many downloads are under way",
        FetchError::TooSlow | FetchError::Abandoned | FetchError::Disk(_) | FetchError::Broken => {
            "the mirror is in trouble; try again later"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::cache::error::FetchError;
    use crate::digest::Mismatch;
    use crate::server::problem::Problem;

    /// T18
    #[test]
    fn only_what_is_gone_is_not_found() {
        let upstream = |retry_after| FetchError::Upstream { reason: "secret.example refused".to_owned(), retry_after };
        for (error, code) in [
            (FetchError::Gone, 404),
            (upstream(None), 502),
            (upstream(Some(Duration::from_secs(7))), 503),
            (FetchError::TimedOut, 504),
            (FetchError::Wrong(Mismatch::Size { expected: 1, actual: 2 }), 502),
            (FetchError::Busy, 503),
            (FetchError::Vanished, 502),
            (FetchError::Disk("EIO on /var/lib".to_owned()), 503),
        ] {
            let problem = Problem::from(error);
            assert_eq!(problem.status(Duration::ZERO).0, code, "{problem:?}");
            assert!(!problem.to_string().contains("secret") && !problem.to_string().contains("/var"), "{problem}");
        }
    }
}
