//! Speaks with the running server over its admin socket.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::ErrorBody;
use crate::cli::exit::{FAILED, Failure, NO_SERVER, TRY_AGAIN};
use crate::config::Config;
use crate::disk::OsDisk;

/// The socket to speak to: as it was said, or as the configuration says.
pub fn socket(said: Option<PathBuf>, config: Option<&Path>) -> Result<PathBuf, Failure> {
    match said {
        Some(path) => Ok(path),
        None => Ok(Config::load(&OsDisk, config)?.file.server.admin_socket),
    }
}

/// Sends one request and reads the answer.
pub async fn ask<T: DeserializeOwned>(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<T, Failure> {
    let stream = UnixStream::connect(socket).await.map_err(|error| not_running(socket, &error))?;
    let broken = |error: hyper::Error| Failure::new(TRY_AGAIN, format!("the server broke off: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let driver = tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header(HOST, "cistern").header(CONTENT_TYPE, "application/json");
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| Failure::new(FAILED, error))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(broken)?.to_bytes();
    driver.abort();
    read(status, &bytes)
}

fn read<T: DeserializeOwned>(status: StatusCode, bytes: &[u8]) -> Result<T, Failure> {
    let unreadable = |error| Failure::new(FAILED, format!("the server's answer cannot be read, is it of another version? {error}"));
    if status.is_success() {
        return serde_json::from_slice(bytes).map_err(unreadable);
    }
    let ErrorBody { error } = serde_json::from_slice(bytes).map_err(unreadable)?;
    Err(Failure::new(if status == StatusCode::SERVICE_UNAVAILABLE { TRY_AGAIN } else { FAILED }, error))
}

fn not_running(socket: &Path, error: &std::io::Error) -> Failure {
    let path = socket.display();
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            Failure::new(FAILED, format!("you may not open {path}; run this as root or as a member of its group"))
        }
        _ => Failure::new(
            NO_SERVER,
            format!("no server answers at {path} ({error}); start it with 'cistern serve', or name its socket with --socket"),
        ),
    }
}
