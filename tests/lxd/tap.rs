//! Stands between hosts and a mirror, and notes how each connection begins.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How a connection began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It was closed without a byte.
    Empty,
    /// With a TLS handshake.
    Tls,
    /// With this line of plain HTTP.
    Plain(String),
}

/// A tap. It goes with the runtime that it was made in.
pub struct Tap {
    address: SocketAddr,
    openings: Arc<Mutex<Vec<Opening>>>,
}

impl Tap {
    /// A tap in front of `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let openings = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&openings);
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                tokio::spawn(pass(stream, target, Arc::clone(&noted)));
            }
        });
        Self { address, openings }
    }

    /// Where hosts connect.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// How connections began since this was asked last.
    pub fn take(&self) -> Vec<Opening> {
        std::mem::take(&mut self.openings.lock().unwrap())
    }
}

async fn pass(mut host: TcpStream, target: SocketAddr, openings: Arc<Mutex<Vec<Opening>>>) {
    let mut first = vec![0; 4096];
    let len = host.read(&mut first).await.unwrap_or(0);
    let opening = match first[0] {
        _ if len == 0 => Opening::Empty,
        0x16 => Opening::Tls,
        _ => Opening::Plain(String::from_utf8_lossy(&first[..len]).lines().next().unwrap_or_default().to_owned()),
    };
    openings.lock().unwrap().push(opening);
    let Ok(mut mirror) = TcpStream::connect(target).await else { return };
    if mirror.write_all(&first[..len]).await.is_ok() {
        // Either end may hang up whenever it likes.
        let _ = tokio::io::copy_bidirectional(&mut host, &mut mirror).await;
    }
}
