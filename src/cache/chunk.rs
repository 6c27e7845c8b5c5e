//! Reads a piece of a file for a host: at once if it is in memory, on a thread that may wait otherwise.

use std::io;

use bytes::Bytes;

use crate::disk::{File, Immediate};

/// Reads at most `len` bytes at `offset`; fewer than that only if fewer are in memory, or at the end of the file.
pub async fn read(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; len];
    if let Immediate::Read(count) = file.read_resident(&mut buffer, offset)? {
        buffer.truncate(count);
        return Ok(buffer.into());
    }
    let file = file.clone();
    let read = tokio::task::spawn_blocking(move || {
        let count = file.read_at(&mut buffer, offset)?;
        buffer.truncate(count);
        Ok(buffer.into())
    });
    read.await.map_err(io::Error::other)?
}
