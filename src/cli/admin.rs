//! Speaks with the running server over its admin socket.

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Url;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::{ErrorBody, Step};
use crate::cli::exit::{FAILED, Failure, NO_SERVER, TRY_AGAIN};
use crate::config::Config;
use crate::disk::{File, OsDisk};
use crate::passing::Passage;

/// The socket to speak to: as it was said, or as the configuration says.
pub fn socket(said: Option<PathBuf>, config: Option<&Path>) -> Result<PathBuf, Failure> {
    match said {
        Some(path) => Ok(path),
        None => Ok(Config::load(&OsDisk, config)?.file.server.admin_socket),
    }
}

/// A path and a query, escaped as they have to be.
#[derive(Debug)]
pub struct Target(Url);

impl Target {
    /// A path of these segments.
    pub fn new(segments: &[&str]) -> Result<Self, Failure> {
        let mut url = Url::parse("http://admin/").map_err(|error| Failure::new(FAILED, error))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        Ok(Self(url))
    }

    /// With a query, if there is a value.
    pub fn with(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.0.query_pairs_mut().append_pair(name, value);
        }
        self
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.path())?;
        self.0.query().map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

/// What is sent, as JSON.
pub fn body<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| Failure::new(FAILED, error))
}

/// Sends one request and reads the answer.
pub async fn ask<T: DeserializeOwned>(socket: &Path, method: Method, target: &str, body: Vec<u8>) -> Result<T, Failure> {
    let reply = request(socket, method, target, body).await?;
    serde_json::from_slice(&collect(reply).await?).map_err(unreadable)
}

/// Sends one request; the answer, if it is a good one.
pub async fn request(socket: &Path, method: Method, target: &str, body: Vec<u8>) -> Result<Response<Incoming>, Failure> {
    send(socket, method, target, Full::new(Bytes::from(body))).await
}

/// Sends one request whose body may be long; the answer, if it is a good one.
pub async fn send<B>(socket: &Path, method: Method, target: &str, body: B) -> Result<Response<Incoming>, Failure>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    good(exchange(socket, method, target, body, None).await?).await
}

/// Sends one request, and hands over an open file with it; the answer, whatever it is.
pub async fn exchange<B>(socket: &Path, method: Method, target: &str, body: B, file: Option<File>) -> Result<Response<Incoming>, Failure>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = UnixStream::connect(socket).await.map_err(|error| not_running(socket, &error))?;
    let passage = Passage::sending(stream, file);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(passage)).await.map_err(broken)?;
    // It ends with the answer; an error in it is one in the answer too.
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(target).header(HOST, "cistern").header(CONTENT_TYPE, "application/json");
    let request = request.body(Box::pin(body)).map_err(|error| Failure::new(FAILED, error))?;
    sender.send_request(request).await.map_err(broken)
}

/// An answer, if it is a good one.
pub async fn good(response: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let ErrorBody { error } = serde_json::from_slice(&collect(response).await?).map_err(unreadable)?;
    Err(Failure::new(if status == StatusCode::SERVICE_UNAVAILABLE { TRY_AGAIN } else { FAILED }, error))
}

/// Follows long work to its end: a bar on a terminal, notes on their own lines; how it ended.
pub async fn follow(reply: Response<Incoming>, what: &str) -> Result<String, Failure> {
    follow_with(reply, what, &|note| println!("{note}")).await
}

/// The same, with notes where they are wanted.
pub async fn follow_with(reply: Response<Incoming>, what: &str, note: &dyn Fn(&str)) -> Result<String, Failure> {
    let bar = bar(what);
    let (mut body, mut text) = (reply.into_body(), Vec::new());
    let ended = loop {
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            match serde_json::from_slice(&line).map_err(unreadable)? {
                Step::Progress { done, total } => {
                    bar.set_length(total);
                    bar.set_position(done);
                }
                Step::Note { text } => bar.suspend(|| note(&text)),
                Step::Done { text } => {
                    bar.finish_and_clear();
                    return Ok(text);
                }
                Step::Failed { error } => {
                    bar.finish_and_clear();
                    return Err(Failure::new(FAILED, error));
                }
            }
        }
        match body.frame().await {
            Some(frame) => text.extend(frame.map_err(broken)?.into_data().unwrap_or_default()),
            None => break text,
        }
    };
    // Work that was done at once has no lines.
    match serde_json::from_slice(&ended) {
        Ok(Step::Done { text }) => Ok(text),
        _ => Err(Failure::new(TRY_AGAIN, "the server broke off")),
    }
}

/// Bytes, rate and time left; nothing where nobody looks.
pub fn bar(what: &str) -> ProgressBar {
    const FORM: &str = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_message(what.to_owned());
    bar.with_style(ProgressStyle::with_template(FORM).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The whole body of an answer.
pub async fn collect(reply: Response<Incoming>) -> Result<Bytes, Failure> {
    reply.into_body().collect().await.map(http_body_util::Collected::to_bytes).map_err(broken)
}

#[expect(clippy::needless_pass_by_value, reason = "errors are given away where they are turned into others")]
fn broken(error: hyper::Error) -> Failure {
    Failure::new(TRY_AGAIN, format!("the server broke off: {error}"))
}

#[expect(clippy::needless_pass_by_value, reason = "errors are given away where they are turned into others")]
fn unreadable(error: serde_json::Error) -> Failure {
    Failure::new(FAILED, format!("the server's answer cannot be read, is it of another version? {error}"))
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
