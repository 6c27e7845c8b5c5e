//! TLS as a host speaks it, opened where it was received. rustls's own stream asks the system for 4 KiB at a time and moves what
//! it has not opened yet, which made the host the slower of the two, and it was the host that was measured.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::ConnectionState;

/// So much is received at a time at most.
const RECEIVED_BYTES: usize = 256 << 10;
/// A greeting or a request, and what TLS adds to it.
const SENT_BYTES: usize = 16 << 10;

/// A connection. It shakes hands when it is first written to.
pub struct Secure {
    stream: TcpStream,
    tls: UnbufferedClientConnection,
    received: Vec<u8>,
    /// Where in `received` stands what is not opened yet.
    unopened: Range<usize>,
    sending: Vec<u8>,
    /// What was opened and not read yet.
    opened: Vec<u8>,
}

/// What came of a look at what was received.
enum Step {
    Again,
    /// So many bytes are where the reader wants them.
    Opened(usize),
    Sent,
    Starved,
    Over,
}

impl Secure {
    pub fn new(config: &Arc<ClientConfig>, stream: TcpStream) -> io::Result<Self> {
        let name = ServerName::try_from("localhost").expect("it is a name");
        let tls = UnbufferedClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let (received, sending) = (vec![0; RECEIVED_BYTES], vec![0; SENT_BYTES]);
        Ok(Self { stream, tls, received, unopened: 0..0, sending, opened: Vec::new() })
    }

    /// Looks at what was received: opens a record into `buffer`, or sends `request` where its time has come.
    fn step(&mut self, request: &[u8], buffer: &mut [u8]) -> io::Result<Step> {
        let status = self.tls.process_tls_records(&mut self.received[self.unopened.clone()]);
        let mut discard = status.discard;
        let step = match status.state.map_err(io::Error::other)? {
            ConnectionState::ReadTraffic(mut traffic) => {
                let record = traffic.next_record().expect("that is what it says").map_err(io::Error::other)?;
                discard += record.discard;
                let (now, later) = record.payload.split_at(record.payload.len().min(buffer.len()));
                buffer[..now.len()].copy_from_slice(now);
                self.opened.extend_from_slice(later);
                Step::Opened(now.len())
            }
            ConnectionState::EncodeTlsData(mut greeting) => {
                let len = greeting.encode(&mut self.sending).map_err(io::Error::other)?;
                self.stream.write_all(&self.sending[..len])?;
                Step::Again
            }
            ConnectionState::TransmitTlsData(greeted) => {
                greeted.done();
                Step::Again
            }
            ConnectionState::WriteTraffic(mut traffic) if !request.is_empty() => {
                let len = traffic.encrypt(request, &mut self.sending).map_err(io::Error::other)?;
                self.stream.write_all(&self.sending[..len])?;
                Step::Sent
            }
            ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake => Step::Starved,
            _ => Step::Over,
        };
        self.unopened.start += discard;
        Ok(step)
    }

    /// Waits for more. Only what stands at the very end of the memory is moved, which is the beginning of a record.
    fn receive(&mut self) -> io::Result<()> {
        if self.unopened.is_empty() {
            self.unopened = 0..0;
        } else if self.unopened.end == self.received.len() {
            self.received.copy_within(self.unopened.clone(), 0);
            self.unopened = 0..self.unopened.len();
        }
        let count = self.stream.read(&mut self.received[self.unopened.end..])?;
        self.unopened.end += count;
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl Read for Secure {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.opened.is_empty() {
            let len = buffer.len().min(self.opened.len());
            buffer[..len].copy_from_slice(&self.opened[..len]);
            self.opened.drain(..len);
            return Ok(len);
        }
        loop {
            match self.step(&[], buffer)? {
                Step::Opened(len) => return Ok(len),
                Step::Starved => self.receive()?,
                Step::Over => return Ok(0),
                Step::Again | Step::Sent => {}
            }
        }
    }
}

impl Write for Secure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.step(bytes, &mut [])? {
                Step::Sent => return Ok(bytes.len()),
                Step::Starved => self.receive()?,
                Step::Over => return Err(io::ErrorKind::BrokenPipe.into()),
                Step::Again | Step::Opened(_) => {}
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
