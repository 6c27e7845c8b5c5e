//! Where the bytes of a file come from that a command sends: through a queue, or out of a file that it handed over open.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cache::blocking;
use crate::disk::File;
use crate::library::error::LibraryError;

/// Where nothing comes for so long, nothing is waited for.
pub const SILENCE: Duration = Duration::from_mins(1);
/// So much of a file is read at once.
const READ_BYTES: u64 = 256 * 1024;

/// Where the bytes come from.
#[derive(Debug)]
pub struct Supply(Source);

#[derive(Debug)]
enum Source {
    /// One file after the other.
    Queue { queue: mpsc::Receiver<Result<Bytes, String>>, rest: Bytes },
    /// One file, as long as whoever handed it over is there.
    Open { file: File, offset: u64, left: CancellationToken },
}

impl Supply {
    /// Bytes that come through a queue, one file after the other.
    pub fn queued(queue: mpsc::Receiver<Result<Bytes, String>>) -> Self {
        Self(Source::Queue { queue, rest: Bytes::new() })
    }

    /// The bytes of an open file, until whoever handed it over left.
    pub fn open(file: File, left: CancellationToken) -> Self {
        Self(Source::Open { file, offset: 0, left })
    }

    /// The next bytes, `most` at most; an error if there are none.
    pub async fn next(&mut self, most: u64) -> Result<Bytes, LibraryError> {
        match &mut self.0 {
            Source::Queue { queue, rest } => {
                while rest.is_empty() {
                    let bytes = queue.recv().await.ok_or_else(ended)?;
                    *rest = bytes.map_err(LibraryError::NotSent)?;
                }
                let most = usize::try_from(most).unwrap_or(usize::MAX).min(rest.len());
                Ok(rest.split_to(most))
            }
            Source::Open { left, .. } if left.is_cancelled() => Err(LibraryError::NotSent("whoever sent it left".to_owned())),
            Source::Open { file, offset, .. } => {
                let bytes = read(file.clone(), *offset, most.min(READ_BYTES)).await?;
                *offset += bytes.len() as u64;
                Ok(bytes)
            }
        }
    }

    /// Passes bytes over.
    pub async fn skip(&mut self, mut bytes: u64) -> Result<(), LibraryError> {
        if let Source::Open { offset, .. } = &mut self.0 {
            *offset += bytes;
            return Ok(());
        }
        while bytes > 0 {
            bytes -= self.next(bytes).await?.len() as u64;
        }
        Ok(())
    }
}

/// Reads where waiting delays nobody, and shows whoever handed the file over how far that went.
async fn read(file: File, offset: u64, most: u64) -> Result<Bytes, LibraryError> {
    let reading = blocking(move || {
        let bytes = file.read(usize::try_from(most).map_err(io::Error::other)?, offset)?;
        file.mark(offset + bytes.len() as u64)?;
        Ok(Bytes::from(bytes))
    });
    let read = tokio::time::timeout(SILENCE, reading).await;
    let bytes = read.map_err(|_| LibraryError::NotSent(silent()))?.map_err(|error| LibraryError::NotSent(error.to_string()))?;
    if bytes.is_empty() { Err(ended()) } else { Ok(bytes) }
}

/// What is said where nothing came for too long.
pub fn silent() -> String {
    format!("nothing came for {} seconds", SILENCE.as_secs())
}

fn ended() -> LibraryError {
    LibraryError::NotSent("it ended early".to_owned())
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use crate::disk::{Disk as _, File, OsDisk};
    use crate::library::supply::{READ_BYTES, Supply};

    const LEN: usize = 300_000;

    fn file() -> File {
        let folder = tempfile::tempdir().unwrap();
        let file = OsDisk.create(&folder.path().join("file")).unwrap();
        let bytes: Vec<u8> = (0..LEN).map(|place| u8::try_from(place % 251).unwrap()).collect();
        OsDisk.write_at(&file, &bytes, 0).unwrap();
        file
    }

    #[tokio::test]
    async fn an_open_file_is_read_piece_by_piece_and_shows_how_far() {
        let file = file();
        let mut supply = Supply::open(file.clone(), CancellationToken::new());
        assert_eq!(supply.next(2).await.unwrap()[..], [0, 1]);
        supply.skip(8).await.unwrap();
        let bytes = supply.next(u64::MAX).await.unwrap();
        assert_eq!((bytes[0], bytes.len() as u64), (10, READ_BYTES));
        assert_eq!(file.marked().unwrap(), 10 + READ_BYTES);
        assert_eq!(supply.next(u64::MAX).await.unwrap().len() as u64, LEN as u64 - 10 - READ_BYTES);
        let error = supply.next(1).await.unwrap_err().to_string();
        assert!(error.contains("it ended early"), "{error}");
    }

    #[tokio::test]
    async fn nothing_is_read_for_whoever_left() {
        let left = CancellationToken::new();
        let mut supply = Supply::open(file(), left.clone());
        supply.next(1).await.unwrap();
        drop(left.drop_guard());
        let error = supply.next(1).await.unwrap_err().to_string();
        assert!(error.contains("left"), "{error}");
    }
}
