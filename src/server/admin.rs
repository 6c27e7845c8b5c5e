//! What people's commands ask, over a Unix socket. Whoever may open the socket may do everything, as with LXD.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{ErrorBody, RefreshRequest};
use crate::cache::Cache;
use crate::cache::current::Current;
use crate::disk::Disk;
use crate::refresh::desk::{Desk, NoRefresh};
use crate::refresh::status::StatusBoard;
use crate::server::images::{self, Wish};

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// As with LXD's socket: who may open it may do everything.
const SOCKET_MODE: u32 = 0o660;
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// What people's commands reach.
#[derive(Debug)]
pub struct Office {
    /// How remotes are doing.
    pub status: Arc<StatusBoard>,
    /// Who refreshes them.
    pub desk: Arc<Desk>,
    /// What is served.
    pub current: Current,
    /// What is held of it.
    pub cache: Arc<Cache>,
}

type Answer = (StatusCode, Vec<u8>);

/// Binds the socket, in the place of one that a killed process left. Its owner and group may open it.
pub async fn bind(disk: &dyn Disk, path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        disk.create_directory(folder)?;
    }
    let socket = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another cistern answers there"));
            }
            if !disk.is_socket(path)? {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else of that name"));
            }
            disk.remove(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }?;
    disk.restrict(path, SOCKET_MODE)?;
    Ok(socket)
}

/// Answers commands until it is stopped.
pub async fn run(socket: UnixListener, office: Arc<Office>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        connections.spawn(serve(stream, Arc::clone(&office)));
    }
}

async fn serve(stream: UnixStream, office: Arc<Office>) {
    let service = service_fn(|request| {
        let office = Arc::clone(&office);
        async move {
            let (status, json) = answer(&office, request).await;
            let mut response = Response::new(Full::new(Bytes::from(json)));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().expect("a media type is a header value"));
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection of a command broke");
    }
}

async fn answer(office: &Office, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (request.method(), segments.as_slice()) {
        (&Method::GET, ["1.0", "remotes"]) => json(StatusCode::OK, &office.status.all(&office.current.load())),
        (&Method::POST, ["1.0", "remotes", name, "refresh"]) => refresh(office, name, request).await,
        (&Method::GET, ["1.0", "images"]) => {
            let wish = Wish::read(request.uri().query());
            of_images(images::list(&office.cache, wish).await)
        }
        (&Method::GET, ["1.0", "images", name]) => {
            let (name, wish) = (percent_decode_str(name).decode_utf8_lossy().into_owned(), Wish::read(request.uri().query()));
            of_images(images::find(&office.cache, name, wish).await)
        }
        _ => error(StatusCode::NOT_FOUND, "this cistern has no such command; is the program of another version than the server?"),
    }
}

fn of_images<T: Serialize>(answer: Result<T, images::Problem>) -> Answer {
    match answer {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(reason @ images::Problem::NoImage(_)) => error(StatusCode::NOT_FOUND, &reason.to_string()),
        Err(reason @ images::Problem::Store(_)) => error(StatusCode::INTERNAL_SERVER_ERROR, &reason.to_string()),
    }
}

async fn refresh(office: &Office, name: &str, request: Request<Incoming>) -> Answer {
    let body = match Limited::new(request.into_body(), MAX_REQUEST_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(reason) => return error(StatusCode::BAD_REQUEST, &reason.to_string()),
    };
    let wish: RefreshRequest = match serde_json::from_slice(&body) {
        Ok(wish) => wish,
        Err(reason) => return error(StatusCode::BAD_REQUEST, &reason.to_string()),
    };
    match office.desk.refresh(name, wish.accept).await {
        Ok(report) => json(StatusCode::OK, &report),
        Err(NoRefresh::NoRemote) => error(StatusCode::NOT_FOUND, &format!("there is no remote '{name}'; cistern remote list shows them")),
        Err(reason @ NoRefresh::Offline) => error(StatusCode::CONFLICT, &format!("remote '{name}' cannot be refreshed: {reason}")),
        Err(reason @ NoRefresh::Stopped) => error(StatusCode::SERVICE_UNAVAILABLE, &reason.to_string()),
    }
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(json) => (status, json),
        Err(reason) => (StatusCode::INTERNAL_SERVER_ERROR, reason.to_string().into_bytes()),
    }
}

fn error(status: StatusCode, text: &str) -> Answer {
    json(status, &ErrorBody { error: text.to_owned() })
}
