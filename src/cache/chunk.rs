//! Reads pieces of a file for one host: at once if they are in memory, on a thread that may wait otherwise.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};

use crate::disk::{File, Immediate};

/// So many pieces of a host are on their way at most; it takes no more at once.
const PIECES: usize = 4;

/// One host's pieces. The memory of one that the host has taken is used again: to ask for it each time, and to have it made
/// empty, would be half of what a file costs over TLS.
#[derive(Debug, Default)]
pub struct Chunks {
    given: VecDeque<Bytes>,
}

impl Chunks {
    /// Reads at most `len` bytes at `offset`; fewer than that only if fewer are in memory, or at the end of the file.
    pub async fn read(&mut self, file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = self.buffer(len);
        let (count, buffer) = match file.read_resident(&mut buffer[..len], offset)? {
            Immediate::Read(count) => (count, buffer),
            Immediate::WouldWait => {
                let file = file.clone();
                let read = move || file.read_at(&mut buffer[..len], offset).map(|count| (count, buffer));
                tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??
            }
        };
        let whole = buffer.freeze();
        let piece = whole.slice(..count);
        self.given.push_back(whole);
        self.given.truncate(PIECES);
        Ok(piece)
    }

    /// Memory of at least so many bytes: that of the piece that was given first, if the host has it all and it is large enough.
    fn buffer(&mut self, len: usize) -> BytesMut {
        match self.given.pop_front().map(Bytes::try_into_mut) {
            Some(Ok(buffer)) if buffer.len() >= len => buffer,
            Some(Err(given)) => {
                self.given.push_front(given);
                BytesMut::zeroed(len)
            }
            _ => BytesMut::zeroed(len),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cache::chunk::{Chunks, PIECES};
    use crate::disk::{Disk as _, OsDisk};

    #[tokio::test]
    async fn the_memory_of_what_was_taken_is_used_again_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (file, mut chunks) = (OsDisk.create(&folder.path().join("file")).unwrap(), Chunks::default());
        OsDisk.write_at(&file, b"0123456789", 0).unwrap();
        let first = chunks.read(&file, 0, 4).await.unwrap();
        let second = chunks.read(&file, 4, 4).await.unwrap();
        assert_eq!((&first[..], &second[..]), (&b"0123"[..], &b"4567"[..]), "what is on its way stays as it is");
        let place = first.as_ptr();
        drop(first);
        let third = chunks.read(&file, 8, 4).await.unwrap();
        assert_eq!((&third[..], third.as_ptr(), &second[..]), (&b"89"[..], place, &b"4567"[..]));
        let larger = chunks.read(&file, 0, 10).await.unwrap();
        assert_eq!(&larger[..], b"0123456789");
        for _ in 0..10 {
            drop(chunks.read(&file, 0, 10).await.unwrap());
        }
        assert!(chunks.given.len() <= PIECES);
    }
}
