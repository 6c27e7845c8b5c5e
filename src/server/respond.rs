//! Puts answers together.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, SERVER,
};
use hyper::http::response::Builder;
use hyper::{Response, StatusCode};

use crate::server::body::{self, Body};
use crate::server::problem::Problem;

/// RFC 9211
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// RFC 9530
pub const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// The beginning of every answer.
pub fn head(status: StatusCode) -> Builder {
    Response::builder().status(status).header(SERVER, HeaderValue::from_static("cistern"))
}

/// Ends an answer. Headers of ours are good ones; if one is not, the answer is a 500.
pub fn finish(head: Builder, body: Body) -> Response<Body> {
    head.body(body).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer could not be put together");
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// An answer without a body of its own: 304, or that to a HEAD.
pub fn without_body(head: Builder) -> Response<Body> {
    finish(head, body::empty())
}

/// Says what is wrong, in one line.
pub fn problem(problem: &Problem, retry_wrong: Duration, is_head: bool) -> Response<Body> {
    let (status, retry_after) = problem.status(retry_wrong);
    let mut head = head(status).header(CONTENT_TYPE, "text/plain; charset=utf-8").header(CACHE_CONTROL, "no-store");
    if let Some(wait) = retry_after {
        head = head.header(RETRY_AFTER, wait.as_secs().max(1));
    }
    match problem {
        Problem::Method => head = head.header(ALLOW, "GET, HEAD"),
        Problem::Range(size) => head = head.header(CONTENT_RANGE, format!("bytes */{size}")),
        _ => {}
    }
    let text = Bytes::from(format!("{problem}\n"));
    head = head.header(CONTENT_LENGTH, text.len());
    if is_head { without_body(head) } else { finish(head, body::full(text)) }
}

/// Sends a host to the same thing over HTTPS.
pub fn redirect(location: &str) -> Response<Body> {
    without_body(head(StatusCode::PERMANENT_REDIRECT).header(LOCATION, location).header(CONTENT_LENGTH, 0))
}
