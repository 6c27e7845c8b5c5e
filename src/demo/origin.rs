//! The sample image server: a few files over plain HTTP.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running image server. It ends when this is dropped.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    requests: Arc<Mutex<HashMap<String, usize>>>,
    task: JoinHandle<()>,
}

impl Origin {
    /// Starts a server of these files on any free port of loopback.
    pub async fn start(files: Vec<(String, Vec<u8>)>) -> std::io::Result<Self> {
        let socket = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let files: Arc<HashMap<String, Bytes>> = Arc::new(files.into_iter().map(|(path, bytes)| (path, bytes.into())).collect());
        let requests = Arc::new(Mutex::default());
        let task = tokio::spawn(accept(socket, files, Arc::clone(&requests)));
        Ok(Self { address, requests, task })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often a path was asked for.
    pub fn requests_for(&self, path: &str) -> usize {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied().unwrap_or_default()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(socket: TcpListener, files: Arc<HashMap<String, Bytes>>, requests: Arc<Mutex<HashMap<String, usize>>>) {
    while let Ok((stream, _)) = socket.accept().await {
        let (files, requests) = (Arc::clone(&files), Arc::clone(&requests));
        tokio::spawn(async move {
            let service = service_fn(|request: Request<_>| {
                let response = answer(&request, &files, &requests);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            if let Err(error) = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a connection to the sample image server broke");
            }
        });
    }
}

fn answer(
    request: &Request<hyper::body::Incoming>,
    files: &HashMap<String, Bytes>,
    requests: &Mutex<HashMap<String, usize>>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let file = files.get(&path).cloned();
    *requests.lock().unwrap_or_else(PoisonError::into_inner).entry(path).or_default() += 1;
    let mut response = Response::new(Full::new(file.clone().unwrap_or_default()));
    if file.is_none() {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response
}
