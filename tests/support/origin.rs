//! An image server that can be told, request by request, to misbehave.
//!
//! It writes its answers by hand: no HTTP library would send what broken servers send. Every answer closes its
//! connection, and every request is remembered.

#![allow(dead_code, reason = "each test target uses another part")]

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cistern::clock::{Clock as _, SystemClock};
use cistern::digest::Digest;
use cistern::disk::OsDisk;
use cistern::tls::authority::Authority;
use cistern::tls::config;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What is done with one request instead of answering it well.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answer well.
    Well,
    /// Answer with this status and these header lines.
    Status(u16, &'static str),
    /// Answer with 200 and this page.
    Page(&'static str),
    /// Send so many bytes of the body and close the connection.
    CutAt(usize),
    /// Send so many bytes of the body, then nothing for so long, then the rest.
    StallAt(usize, Duration),
    /// Take the request and say nothing for so long.
    Silence(Duration),
    /// Send the body with its last byte changed.
    WrongBytes,
    /// Send so many bytes less than there are, and call that the length.
    Short(usize),
    /// Send so many bytes more than there are.
    Long(usize),
    /// Send without a length; the end of the connection is the end of the body.
    NoLength,
    /// Answer a range with another one.
    WrongRange,
    /// Answer 200 with everything to a request for a range.
    NoRanges,
    /// Send so many bytes of the body at a time, and wait for so long after each.
    Dribble(usize, Duration),
    /// Send the body again and again, without a length, for as long as anybody takes it.
    Endless,
    /// Send zeros that unpack to so many bytes, and say that they are packed.
    Packed(usize),
}

impl Act {
    /// One of the ways in which servers fail.
    fn some_failure() -> Self {
        let moment = Duration::from_millis(fastrand::u64(..3000));
        match fastrand::u8(..12) {
            0 => Self::Status(500, ""),
            1 => Self::Status(503, "Retry-After: 1\r\n"),
            2 => Self::Status(429, "Retry-After: 2\r\n"),
            3 => Self::Page("<html>not now</html>"),
            4 => Self::CutAt(fastrand::usize(..1000)),
            5 => Self::StallAt(fastrand::usize(..1000), moment),
            6 => Self::Silence(moment),
            7 => Self::WrongBytes,
            8 => Self::Short(1),
            9 => Self::NoLength,
            10 => Self::WrongRange,
            _ => Self::NoRanges,
        }
    }
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its path, without the leading `/`.
    pub path: String,
    /// Its head, as it came.
    pub head: String,
    /// When it came.
    pub at: std::time::Instant,
}

/// A file and its entity tag, both ready: what an origin does of its own is none of a mirror's time.
#[derive(Clone, Debug)]
struct File {
    bytes: Bytes,
    etag: String,
}

impl File {
    fn new(bytes: Vec<u8>) -> Self {
        let etag = format!("\"{}\"", &Digest::of(&bytes).to_string()[..16]);
        Self { bytes: bytes.into(), etag }
    }
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<String, File>,
    acts: HashMap<String, VecDeque<Act>>,
    seen: Vec<Seen>,
    /// One request in so many that are not told otherwise goes wrong, in some way.
    fails_one_in: Option<u32>,
}

/// A running image server. It stops when this is dropped.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: Option<JoinHandle<()>>,
    ca: Option<String>,
}

impl Origin {
    /// A server over plain HTTP.
    pub async fn start() -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").await.unwrap(), None, None)
    }

    /// A server over TLS, for clients that insist on it.
    pub async fn start_tls() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(&OsDisk, folder.path());
        let names = ["localhost", "127.0.0.1"].map(ToOwned::to_owned).into();
        let pair = authority.server(&names, SystemClock.now(), false).unwrap();
        let mut tls = config::server(&pair).unwrap();
        tls.alpn_protocols.clear();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let ca = authority.ca(SystemClock.now()).unwrap();
        Self::listen(TcpListener::bind("127.0.0.1:0").await.unwrap(), Some(acceptor), Some(ca))
    }

    fn listen(socket: TcpListener, tls: Option<TlsAcceptor>, ca: Option<String>) -> Self {
        let address = socket.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let task = Some(tokio::spawn(accept(socket, tls, Arc::clone(&state))));
        Self { address, state, task, ca }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        if self.ca.is_some() { format!("https://localhost:{}", self.address.port()) } else { format!("http://{}", self.address) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The CA of a server over TLS.
    pub fn ca(&self) -> &str {
        self.ca.as_deref().unwrap()
    }

    /// Puts files there, in the place of those with the same paths.
    pub fn put(&self, files: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let files: Vec<_> = files.into_iter().map(|(path, bytes)| (path, File::new(bytes))).collect();
        self.state.lock().unwrap().files.extend(files);
    }

    /// Removes a file.
    pub fn remove(&self, path: &str) {
        self.state.lock().unwrap().files.remove(path);
    }

    /// What to do with the next requests for a path, one after the other; after that they are answered well.
    pub fn act(&self, path: &str, acts: impl IntoIterator<Item = Act>) {
        self.state.lock().unwrap().acts.insert(path.to_owned(), acts.into_iter().collect());
    }

    /// From now on one request in so many goes wrong, in some way.
    pub fn fail_one_in(&self, requests: u32) {
        self.state.lock().unwrap().fails_one_in = Some(requests);
    }

    /// The requests for a path.
    pub fn requests(&self, path: &str) -> Vec<Seen> {
        self.state.lock().unwrap().seen.iter().filter(|seen| seen.path == path).cloned().collect()
    }

    /// How many requests there were.
    pub fn total(&self) -> usize {
        self.state.lock().unwrap().seen.len()
    }

    /// Stops listening: connections are refused from now on.
    pub async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Listens again, at the same address.
    pub async fn resume(&mut self) {
        assert!(self.ca.is_none(), "only a server over plain HTTP can be resumed");
        let socket = TcpListener::bind(self.address).await.unwrap();
        self.task = Some(tokio::spawn(accept(socket, None, Arc::clone(&self.state))));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn accept(socket: TcpListener, tls: Option<TlsAcceptor>, state: Arc<Mutex<State>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = socket.accept().await {
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        connections.spawn(async move {
            // What becomes of a connection is the business of the test that looks at the other end.
            let _ = match tls {
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => answer(stream, &state).await,
                    Err(error) => Err(error),
                },
                None => answer(stream, &state).await,
            };
        });
    }
}

async fn answer<IO: AsyncRead + AsyncWrite + Unpin>(mut stream: IO, state: &Mutex<State>) -> std::io::Result<()> {
    let head = read_head(&mut stream).await?;
    let target = head.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
    let path = percent_encoding::percent_decode_str(&target).decode_utf8_lossy().into_owned();
    let (file, act) = {
        let mut state = state.lock().unwrap();
        let fails = state.fails_one_in.is_some_and(|requests| fastrand::u32(..requests) == 0);
        if state.fails_one_in.is_none() {
            state.seen.push(Seen { path: path.clone(), head: head.clone(), at: std::time::Instant::now() });
        }
        let told = state.acts.get_mut(&path).and_then(VecDeque::pop_front);
        let act = told.unwrap_or_else(|| if fails { Act::some_failure() } else { Act::Well });
        (state.files.get(&path).cloned(), act)
    };
    let sent = send(&mut stream, &head, file, act).await;
    stream.shutdown().await?;
    sent
}

async fn read_head<IO: AsyncRead + Unpin>(stream: &mut IO) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// The value of a header, if the head has it.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

async fn send<IO: AsyncWrite + Unpin>(stream: &mut IO, head: &str, file: Option<File>, act: Act) -> std::io::Result<()> {
    match &act {
        Act::Status(code, headers) => {
            return write(stream, &format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n")).await;
        }
        Act::Page(page) => {
            return write(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}", page.len())).await;
        }
        Act::Silence(time) => tokio::time::sleep(*time).await,
        Act::Packed(len) => {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut packer, &vec![b' '; *len])?;
            let body = packer.finish()?;
            write(
                stream,
                &format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()),
            )
            .await?;
            stream.write_all(&body).await?;
            return stream.flush().await;
        }
        _ => {}
    }
    let Some(File { bytes: mut file, etag }) = file else {
        return write(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    };
    if header(head, "if-none-match") == Some(etag.as_str()) {
        return write(stream, &format!("HTTP/1.1 304 Not Modified\r\nETag: {etag}\r\nConnection: close\r\n\r\n")).await;
    }
    if matches!(act, Act::WrongBytes) {
        let mut wrong = file.to_vec();
        *wrong.last_mut().unwrap() ^= 1;
        file = wrong.into();
    }
    let total = file.len();
    let from = header(head, "range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from: Option<usize> = from.filter(|_| !matches!(act, Act::NoRanges));
    if from.is_some_and(|from| from >= total) {
        return write(
            stream,
            &format!("HTTP/1.1 416 X\r\nContent-Range: bytes */{total}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        )
        .await;
    }
    let mut body = file.split_off(from.unwrap_or(0));
    match act {
        Act::Short(less) => body.truncate(body.len().saturating_sub(less)),
        Act::Long(more) => body = [&*body, &vec![b'x'; more]].concat().into(),
        _ => {}
    }
    let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
    let shift = usize::from(matches!(act, Act::WrongRange));
    let range = from.map(|from| format!("Content-Range: bytes {}-{}/{total}\r\n", from + shift, total - 1)).unwrap_or_default();
    let length = if matches!(act, Act::NoLength | Act::Long(_) | Act::Endless) {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    write(stream, &format!("HTTP/1.1 {status}\r\nETag: {etag}\r\n{length}{range}Connection: close\r\n\r\n")).await?;
    send_body(stream, &body, &act).await
}

async fn send_body<IO: AsyncWrite + Unpin>(stream: &mut IO, body: &[u8], act: &Act) -> std::io::Result<()> {
    match act {
        Act::CutAt(at) => stream.write_all(&body[..(*at).min(body.len())]).await?,
        Act::StallAt(at, time) => {
            let (first, rest) = body.split_at((*at).min(body.len()));
            stream.write_all(first).await?;
            stream.flush().await?;
            tokio::time::sleep(*time).await;
            stream.write_all(rest).await?;
        }
        Act::Dribble(size, pause) => {
            for piece in body.chunks(*size) {
                stream.write_all(piece).await?;
                stream.flush().await?;
                tokio::time::sleep(*pause).await;
            }
        }
        Act::Endless => loop {
            stream.write_all(body).await?;
        },
        _ => stream.write_all(body).await?,
    }
    stream.flush().await
}

async fn write<IO: AsyncWrite + Unpin>(stream: &mut IO, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await
}
