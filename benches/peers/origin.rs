//! The image server that all draw from: files in memory, sent as fast as asked for or at a steady rate.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How much is sent at a time.
const PIECE: usize = 256 << 10;

/// The image server. It runs for as long as the process.
#[derive(Clone)]
pub struct Origin {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Arc<Vec<u8>>>,
    /// Bytes in a second, if not as many as go.
    rate: Option<f64>,
    served: Served,
}

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// Requests.
    pub requests: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// When the first byte of the first body was sent.
    pub first: Option<Instant>,
}

impl Origin {
    /// Begins to listen.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a port");
        let address = listener.local_addr().expect("it is bound");
        let origin = Self { address, state: Arc::default() };
        let serving = origin.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let origin = serving.clone();
                std::thread::spawn(move || drop(origin.serve(&stream)));
            }
        });
        origin
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn put(&self, files: impl IntoIterator<Item = (String, Arc<Vec<u8>>)>) {
        self.state.lock().expect("nobody panicked").files.extend(files);
    }

    /// The bytes of a file.
    pub fn file(&self, path: &str) -> Option<Arc<Vec<u8>>> {
        self.state.lock().expect("nobody panicked").files.get(path).cloned()
    }

    /// From now on it sends so many bytes in a second.
    pub fn set_rate(&self, rate: Option<f64>) {
        self.state.lock().expect("nobody panicked").rate = rate;
    }

    /// What was asked for since this was called last.
    pub fn take_served(&self) -> Served {
        std::mem::take(&mut self.state.lock().expect("nobody panicked").served)
    }

    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let (mut head, mut line) = (Vec::new(), String::new());
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                head.push(line.to_ascii_lowercase());
            }
            let Some(path) = head[0].split(' ').nth(1).map(|path| path.trim_start_matches('/').to_owned()) else { return Ok(()) };
            let range = head.iter().find_map(|line| line.strip_prefix("range: bytes=")).map(|range| range.trim().to_owned());
            self.answer(stream, &path, range.as_deref())?;
        }
    }

    fn answer(&self, mut stream: &TcpStream, path: &str, range: Option<&str>) -> std::io::Result<()> {
        let (file, rate) = {
            let mut state = self.state.lock().expect("nobody panicked");
            state.served.requests += 1;
            (state.files.get(path).cloned(), state.rate)
        };
        let Some(file) = file else { return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") };
        let (start, end) = range.map_or((0, file.len()), |range| bounds(range, file.len()));
        let body = &file[start..end];
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        let range = range.map(|_| format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, file.len())).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{range}Accept-Ranges: bytes\r\nETag: \"{}\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nCache-Control: max-age=3600\r\n\r\n",
            body.len(),
            file.len()
        );
        stream.write_all(head.as_bytes())?;
        let started = Instant::now();
        self.state.lock().expect("nobody panicked").served.first.get_or_insert(started);
        let mut sent = 0;
        for piece in body.chunks(PIECE) {
            // Before it goes: whoever has all of it may ask for the sum at once.
            self.state.lock().expect("nobody panicked").served.bytes += piece.len() as u64;
            stream.write_all(piece)?;
            sent += piece.len();
            if let Some(rate) = rate {
                // The schedule is one of the whole file, so that a late piece does not make all others late.
                let due = Duration::from_secs_f64(sent as f64 / rate);
                std::thread::sleep(due.saturating_sub(started.elapsed()));
            }
        }
        Ok(())
    }
}

/// First byte, and the one after the last.
fn bounds(range: &str, len: usize) -> (usize, usize) {
    let (start, end) = range.split_once('-').unwrap_or((range, ""));
    (start.parse().unwrap_or(0), end.parse::<usize>().map_or(len, |end| (end + 1).min(len)))
}
