//! What Prometheus and load balancers ask, on a port of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::cache::standing::Standing;
use crate::metrics::Metrics;

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 64;

/// Whether load balancers may send hosts here. They may while the store takes nothing: what is held is served, and the
/// rest passes through memory.
#[derive(Debug)]
pub struct Readiness {
    is_ready: AtomicBool,
    standing: Arc<Standing>,
}

impl Readiness {
    /// Not yet.
    pub fn new(standing: Arc<Standing>) -> Self {
        Self { is_ready: AtomicBool::new(false), standing }
    }

    /// Says so, or that they may not.
    pub fn set(&self, is_ready: bool) {
        self.is_ready.store(is_ready, Ordering::Relaxed);
    }

    /// In a word, and with the reason if not all is well.
    fn told(&self) -> (StatusCode, String) {
        if !self.is_ready.load(Ordering::Relaxed) {
            return (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned());
        }
        let trouble = self.standing.trouble();
        (StatusCode::OK, trouble.map_or_else(|| "ready\n".to_owned(), |trouble| format!("ready, but nothing can be stored: {trouble}\n")))
    }
}

/// Answers `/metrics`, `/livez` and `/readyz` until it is aborted. None of them looks at the disk or at upstream.
pub async fn run(socket: TcpListener, metrics: Arc<Metrics>, readiness: Arc<Readiness>) {
    let turns = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        let Ok((stream, _)) = socket.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (metrics, readiness) = (Arc::clone(&metrics), Arc::clone(&readiness));
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &metrics, &readiness);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a connection for metrics broke");
            }
            drop(turn);
        });
    }
}

fn answer<B>(request: &Request<B>, metrics: &Metrics, readiness: &Readiness) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let (status, content_type, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.render()),
        (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, TEXT, "alive\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => {
            let (status, told) = readiness.told();
            (status, TEXT, told)
        }
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, TEXT, "here are /metrics, /livez and /readyz\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are allowed\n".to_owned()),
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type.parse().expect("the media types above are good ones"));
    response
}
