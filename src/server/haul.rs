//! Has the kernel send bytes of files to a socket, piece by piece as the host takes them.

use std::io;

use rustix::net::sockopt;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::cache::blocking;
use crate::disk::File;
use crate::metrics::Metrics;

/// So much is sent at once.
const PIECE_BYTES: u64 = 2 << 20;
/// After so many bytes it is others' turn, also if the socket takes more: a turn costs as much as a piece.
const TURN_BYTES: u64 = 16 << 20;

/// What goes to one host.
#[derive(Debug)]
pub struct Haul<'s> {
    stream: &'s TcpStream,
    metrics: &'s Metrics,
    /// Up to there the file is in memory.
    resident: u64,
    /// So far it goes until others have their turn.
    left: u64,
}

impl<'s> Haul<'s> {
    /// What goes to the host at the other end of this.
    pub fn to(stream: &'s TcpStream, metrics: &'s Metrics) -> Self {
        Self { stream, metrics, resident: 0, left: TURN_BYTES }
    }

    /// Only full segments travel from now on, and what is left at the end goes with the end of the connection.
    pub fn fill_segments(&self) -> io::Result<()> {
        Ok(sockopt::set_tcp_cork(self.stream, true)?)
    }

    /// Sends bytes that are in memory.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            self.stream.writable().await?;
            match self.stream.try_write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the host takes more.
    pub async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    /// Sees to it that the next piece of a file is in memory: the kernel would let everybody wait for the disk.
    pub async fn bring_in(&mut self, file: &File, position: u64, len: u64) -> io::Result<()> {
        let (start, end) = (self.resident.max(position), position + len.min(PIECE_BYTES));
        if start < end && !file.is_resident(start, end - start)? {
            let file = file.clone();
            blocking(move || file.read(usize::try_from(end - start).map_err(io::Error::other)?, start).map(drop)).await?;
        }
        self.resident = self.resident.max(end);
        Ok(())
    }

    /// Sends up to `len` bytes of a file at `position`; how many the host took, or `None` if it has to be waited for. It is 0 only
    /// where the file ends.
    pub async fn send(&mut self, file: &File, position: u64, len: u64) -> io::Result<Option<u64>> {
        match self.stream.try_io(Interest::WRITABLE, || file.send_to(self.stream, position, len.min(PIECE_BYTES))) {
            Ok(count) => Ok(Some(self.sent(count as u64).await)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // What is in memory now may not be when the host takes more.
                self.resident = position;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn sent(&mut self, count: u64) -> u64 {
        self.metrics.http_sendfile_bytes.inc_by(count);
        self.left = self.left.saturating_sub(count);
        if self.left == 0 {
            self.left = TURN_BYTES;
            tokio::task::yield_now().await;
        }
        count
    }
}
