//! What hosts do: they ask, read everything into a buffer, and note when the first byte came.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::secure::Secure;

/// So much is read at a time.
const BUFFER: usize = 256 << 10;

/// Whom to ask, and how.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// With TLS, if this says how.
    pub tls: Option<Arc<ClientConfig>>,
    /// The path, with what stands before it.
    pub path: String,
    /// Further header lines.
    pub headers: &'static str,
    /// What every byte is compared with, where that is the point.
    pub bytes: Option<Arc<Vec<u8>>>,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Got {
    pub bytes: u64,
    /// When the first byte of the body was there.
    pub first: Instant,
    /// From the request, or the connection if there was none before, to that.
    pub first_after: Duration,
    /// The same to the last byte.
    pub total: Duration,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// TLS 1.3 as LXD speaks it: X25519, HTTP/1.1, and no connection is taken up again.
pub fn tls(ca: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(ca).expect("it is PEM")).expect("it is a certificate");
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    provider.cipher_suites = vec![rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut config = builder.expect("TLS 1.3 is there").with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

impl Target {
    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        Ok(Box::new(Secure::new(tls, stream)?))
    }

    /// Asks once, on a connection of its own.
    pub fn get(&self) -> io::Result<Got> {
        let started = Instant::now();
        let mut stream = self.connect()?;
        self.ask(&mut *stream, started, "close")
    }

    /// Asks so often on one connection.
    pub fn get_often(&self, times: usize) -> io::Result<Vec<Got>> {
        let mut stream = self.connect()?;
        (0..times).map(|_| self.ask(&mut *stream, Instant::now(), "keep-alive")).collect()
    }

    /// Asks, reads one byte of the body, and leaves the rest where it is.
    pub fn begin(&self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(self.request("close").as_bytes())?;
        head(&mut stream)?;
        Ok(stream)
    }

    /// That these are the bytes that stand there.
    fn compare(&self, at: u64, read: &[u8]) -> io::Result<()> {
        let Some(bytes) = &self.bytes else { return Ok(()) };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let is_right = bytes.get(at..).is_some_and(|rest| rest.starts_with(read));
        if is_right { Ok(()) } else { Err(io::Error::other(format!("wrong bytes after byte {at} of {}", self.path))) }
    }

    fn request(&self, connection: &str) -> String {
        format!(
            "GET {} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: LXD 5.0.2\r\n{}Connection: {connection}\r\n\r\n",
            self.path, self.headers
        )
    }

    fn ask(&self, stream: &mut dyn Stream, started: Instant, connection: &str) -> io::Result<Got> {
        stream.write_all(self.request(connection).as_bytes())?;
        let (length, begun) = head(stream)?;
        self.compare(0, &begun)?;
        let mut left = length.saturating_sub(begun.len() as u64);
        let mut first = (!begun.is_empty()).then(Instant::now);
        let mut buffer = vec![0; BUFFER.min(usize::try_from(length).unwrap_or(BUFFER).max(1))];
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = stream.read(&mut buffer[..most])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            first.get_or_insert_with(Instant::now);
            self.compare(length - left, &buffer[..read])?;
            left -= read as u64;
        }
        let first = first.unwrap_or_else(Instant::now);
        Ok(Got { bytes: length, first, first_after: first - started, total: started.elapsed() })
    }
}

/// Reads the head of an answer, and what came with it: the length of the body, and what of it was read.
fn head(stream: &mut (impl Read + ?Sized)) -> io::Result<(u64, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..read]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        return Err(io::Error::other(text.lines().next().unwrap_or_default().to_owned()));
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).and_then(|length| length.trim().parse().ok());
    Ok((length.ok_or_else(|| io::Error::other("no length"))?, bytes.split_off(end)))
}

/// So many hosts at once, each asking by `ask`; everything that they got.
pub fn hosts(count: usize, ask: impl Fn(usize) -> io::Result<Vec<Got>> + Sync) -> Vec<Got> {
    std::thread::scope(|scope| {
        let ask = &ask;
        let hosts: Vec<_> = (0..count).map(|number| scope.spawn(move || ask(number))).collect();
        hosts.into_iter().flat_map(|host| host.join().expect("it does not panic").expect("the server answers")).collect()
    })
}
