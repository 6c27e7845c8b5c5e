//! What commands are answered: one JSON value, lines about work under way, or the bytes of a file.

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::header::CONTENT_TYPE;
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::api::{ErrorBody, Step};
use crate::server::body::{self, Body};

/// An answer to a command.
pub type Reply = Response<Body>;

/// A value.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(json) => with(status, "application/json", body::full(json.into())),
        Err(reason) => with(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", body::full(reason.to_string().into())),
    }
}

/// Why it cannot be done.
pub fn error(status: StatusCode, reason: impl std::fmt::Display) -> Reply {
    json(status, &ErrorBody { error: reason.to_string() })
}

/// Lines of JSON, as work goes on. The one that did the work goes on when nobody reads them.
pub fn steps(steps: mpsc::Receiver<Step>) -> Reply {
    let lines = stream::unfold(steps, |mut steps| async move {
        let step = steps.recv().await?;
        let mut line = serde_json::to_vec(&step).unwrap_or_default();
        line.push(b'\n');
        Some((Ok(Frame::data(Bytes::from(line))), steps))
    });
    with(StatusCode::OK, "application/x-ndjson", Body::Frames(StreamBody::new(lines).boxed_unsync()))
}

/// The bytes of a file.
pub fn bytes(body: Body) -> Reply {
    with(StatusCode::OK, "application/octet-stream", body)
}

fn with(status: StatusCode, content_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    reply
}
