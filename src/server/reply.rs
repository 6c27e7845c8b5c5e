//! What commands send and are answered: one JSON value, lines about work under way, or the bytes of a file.

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::api::{ErrorBody, Step};
use crate::server::body::{self, Body};

/// An answer to a command.
pub type Reply = Response<Body>;

/// Reads the body of a request, of so many bytes at most.
pub async fn collect(request: Request<Incoming>, most: usize) -> Result<Bytes, Reply> {
    let body = Limited::new(request.into_body(), most).collect().await;
    let too_long = |reason| error(StatusCode::BAD_REQUEST, format!("what was sent cannot be taken: {reason}; {most} bytes are the most"));
    Ok(body.map_err(too_long)?.to_bytes())
}

/// Reads what a command wants.
pub async fn read<T: DeserializeOwned>(request: Request<Incoming>, most: usize) -> Result<T, Reply> {
    let body = collect(request, most).await?;
    serde_json::from_slice(&body).map_err(|reason| error(StatusCode::BAD_REQUEST, reason))
}

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
