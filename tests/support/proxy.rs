//! An HTTP proxy that opens tunnels, remembers to where, and can be told to let one break.

#![allow(dead_code, reason = "each test target uses another part")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running proxy. It stops when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

/// What becomes of a tunnel.
#[derive(Clone, Copy, Debug)]
pub enum Break {
    /// It is cut after so many bytes from the server.
    CutAfter(u64),
    /// After so many bytes from the server nothing goes through it any more, and it stays open.
    StallAfter(u64),
}

#[derive(Debug, Default)]
struct State {
    asked: Vec<String>,
    breaks: VecDeque<Break>,
}

impl Proxy {
    /// A proxy that brings everybody to `target`, whatever they call it.
    pub async fn to(target: SocketAddr) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let task = tokio::spawn(accept(socket, target, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whom it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }

    /// What becomes of the next tunnels, one after the other; the others hold.
    pub fn break_next(&self, breaks: impl IntoIterator<Item = Break>) {
        self.state.lock().unwrap().breaks.extend(breaks);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(socket: TcpListener, target: SocketAddr, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = socket.accept().await {
        let state = Arc::clone(&state);
        // What becomes of a tunnel is the business of the test that looks at its ends.
        tokio::spawn(async move { drop(tunnel(stream, target, &state).await) });
    }
}

async fn tunnel(mut host: TcpStream, target: SocketAddr, state: &Mutex<State>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(host.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let (method, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let breaks = {
        let mut state = state.lock().unwrap();
        state.asked.push(name.to_owned());
        state.breaks.pop_front()
    };
    let mut server = TcpStream::connect(target).await?;
    if method == "CONNECT" {
        host.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    } else {
        // A plain request names its server in the target.
        let path = name.splitn(4, '/').nth(3).unwrap_or_default();
        server.write_all(head.replacen(name, &format!("/{path}"), 1).as_bytes()).await?;
    }
    let Some(breaks) = breaks else {
        copy_bidirectional(&mut host, &mut server).await?;
        return Ok(());
    };
    let (Break::CutAfter(bytes) | Break::StallAfter(bytes)) = breaks;
    let (mut from_server, mut to_server) = server.split();
    let (mut from_host, mut to_host) = host.split();
    let mut first = (&mut from_server).take(bytes);
    tokio::select! {
        _ = tokio::io::copy(&mut from_host, &mut to_server) => {}
        _ = tokio::io::copy(&mut first, &mut to_host) => {}
    }
    if matches!(breaks, Break::StallAfter(_)) {
        std::future::pending::<()>().await;
    }
    Ok(())
}
