//! An HTTP proxy that opens tunnels, and remembers to where.

#![allow(dead_code, reason = "each test target uses another part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running proxy. It stops when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy that brings everybody to `target`, whatever they call it.
    pub async fn to(target: SocketAddr) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(accept(socket, target, Arc::clone(&asked)));
        Self { address, asked, task }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whom it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(socket: TcpListener, target: SocketAddr, asked: Arc<Mutex<Vec<String>>>) {
    while let Ok((stream, _)) = socket.accept().await {
        let asked = Arc::clone(&asked);
        // What becomes of a tunnel is the business of the test that looks at its ends.
        tokio::spawn(async move { drop(tunnel(stream, target, &asked).await) });
    }
}

async fn tunnel(mut host: TcpStream, target: SocketAddr, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(host.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let (method, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    asked.lock().unwrap().push(name.to_owned());
    let mut server = TcpStream::connect(target).await?;
    if method == "CONNECT" {
        host.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    } else {
        // A plain request names its server in the target.
        let path = name.splitn(4, '/').nth(3).unwrap_or_default();
        server.write_all(head.replacen(name, &format!("/{path}"), 1).as_bytes()).await?;
    }
    copy_bidirectional(&mut host, &mut server).await?;
    Ok(())
}
