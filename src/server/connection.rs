//! One connection of a host: TLS or plain HTTP, told apart by the first byte.
//!
//! LXD asks for each file over plain HTTP on the port of its HTTPS URL first, and opens and closes a connection without
//! a byte before each HTTPS request. Both are normal.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::server::door::{Door, Peer};
use crate::server::route;
use crate::server::stream::Rewound;
use crate::server::watch::{Verdict, Watch};

/// The first byte of a TLS handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;
/// What hyper and h2 hold back for a slow host: one frame.
const SEND_BUFFER: usize = 64 * 1024;
/// hyper takes no smaller one.
const LEAST_BUFFER: usize = 8192;
/// A host that was let in before the server is told to stop may ask within this time.
const LAST_CALL: Duration = Duration::from_secs(1);
/// How many requests an h2 connection may have at once.
const STREAMS: u32 = 64;

/// Why a connection ended before its time. None of this is our fault, and none of it is logged above debug.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// It was too slow, or broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It takes nothing, or asks nothing.
    #[error(transparent)]
    Verdict(#[from] Verdict),
    /// Its HTTP makes no sense, or the body that it was sent broke off.
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

/// Serves a connection until it ends; when `stop` is cancelled, after the request under way.
pub async fn serve<IO>(door: Arc<Door>, mut io: IO, peer: Peer, tls: Arc<ServerConfig>, stop: CancellationToken) -> Result<(), Broken>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no request came");
    let mut first = [0];
    let read = tokio::select! {
        read = timeout(door.bounds.header_timeout, io.read(&mut first)) => read.map_err(late)??,
        () = last_call(&stop) => 0,
    };
    if read == 0 {
        return Ok(());
    }
    let io = Rewound::new(Bytes::copy_from_slice(&first), io);
    if first[0] != HANDSHAKE {
        return http1(door, io, peer, stop).await;
    }
    let io = tokio::select! {
        io = timeout(door.bounds.header_timeout, TlsAcceptor::from(tls).accept(io)) => io.map_err(late)??,
        () = last_call(&stop) => return Ok(()),
    };
    let peer = Peer { is_tls: true, ..peer };
    if io.get_ref().1.alpn_protocol() == Some(b"h2") { http2(door, io, peer, stop).await } else { http1(door, io, peer, stop).await }
}

async fn http1<IO>(door: Arc<Door>, io: IO, peer: Peer, stop: CancellationToken) -> Result<(), Broken>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // A host that has said all that it has to say is answered all the same.
        .half_close(true)
        .header_read_timeout(door.bounds.header_timeout)
        .max_buf_size(door.bounds.header_bytes.max(LEAST_BUFFER));
    let has_asked = CancellationToken::new();
    let asks = has_asked.clone();
    let service = service_fn(move |request| {
        let door = Arc::clone(&door);
        asks.cancel();
        async move { Ok::<_, Infallible>(route::answer(&door, peer, request).await) }
    });
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = last_call(&stop) => if !has_asked.is_cancelled() { return Ok(()) },
        () = async { tokio::join!(stop.cancelled(), has_asked.cancelled()); } => {}
    }
    connection.as_mut().graceful_shutdown();
    Ok(connection.await?)
}

/// Returns when whoever has connected and asked nothing yet is not waited for any longer.
async fn last_call(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST_CALL).await;
}

async fn http2<IO>(door: Arc<Door>, io: IO, peer: Peer, stop: CancellationToken) -> Result<(), Broken>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(door.bounds.header_timeout)
        .keep_alive_timeout(door.bounds.header_timeout)
        .max_header_list_size(u32::try_from(door.bounds.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(SEND_BUFFER);
    let watch = Arc::new(Watch::default());
    let watching = Arc::clone(&watch);
    let (patience, idle) = (door.bounds.write_timeout, door.bounds.header_timeout);
    let service = service_fn(move |request| {
        let (door, watch) = (Arc::clone(&door), Arc::clone(&watching));
        async move {
            let watched = watch.begin();
            Ok::<_, Infallible>(route::answer(&door, peer, request).await.map(|body| watched.over(body)))
        }
    });
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut verdict = std::pin::pin!(watch.verdict(patience, idle));
    let verdict = tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        verdict = &mut verdict => verdict,
        () = stop.cancelled() => Verdict::Idle,
    };
    if verdict == Verdict::Stalled {
        return Err(verdict.into());
    }
    connection.as_mut().graceful_shutdown();
    // What is under way may end, and it is still the host's turn to take it.
    tokio::select! {
        ended = connection => Ok(ended?),
        verdict = watch.verdict(patience, patience) => Err(verdict.into()),
    }
}
