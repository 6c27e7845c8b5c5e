//! Answers with a document: ready bytes, no parsing, no lock, no I/O.

use hyper::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED, VARY};
use hyper::{HeaderMap, Response, StatusCode};

use crate::catalog::document::Document;
use crate::http::condition::{Outcome, Validators};
use crate::http::encoding::accepts_gzip;
use crate::server::body::{self, Body};
use crate::server::problem::Problem;
use crate::server::respond::{self, CACHE_STATUS};

/// Answers a GET or a HEAD. `is_stale` says that upstream could not be asked lately whether it has a newer one.
pub fn answer(document: &Document, is_stale: bool, headers: &HeaderMap, is_head: bool) -> Result<Response<Body>, Problem> {
    let (bytes, etag, encoding) = match &document.gzip {
        Some(gzip) if accepts_gzip(headers) => (gzip, &document.gzip_etag, Some("gzip")),
        _ => (&document.plain, &document.etag, None),
    };
    let validators = Validators { etag: Some(etag), last_modified: Some(document.last_modified) };
    let status = match validators.evaluate(headers) {
        Outcome::Proceed => StatusCode::OK,
        Outcome::NotModified => StatusCode::NOT_MODIFIED,
        Outcome::PreconditionFailed => return Err(Problem::Precondition),
    };
    let mut head = respond::head(status)
        .header(ETAG, etag)
        .header(LAST_MODIFIED, httpdate::fmt_http_date(document.last_modified))
        .header(CACHE_CONTROL, "no-cache")
        .header(CACHE_STATUS, if is_stale { "cistern; fwd=stale" } else { "cistern; hit" })
        .header(VARY, "Accept-Encoding");
    if status == StatusCode::NOT_MODIFIED {
        return Ok(respond::without_body(head));
    }
    head = head.header(CONTENT_TYPE, document.content_type).header(CONTENT_LENGTH, bytes.len());
    if let Some(encoding) = encoding {
        head = head.header(CONTENT_ENCODING, encoding);
    }
    Ok(if is_head { respond::without_body(head) } else { respond::finish(head, body::full(bytes.clone())) })
}
