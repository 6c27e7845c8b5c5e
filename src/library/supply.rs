//! Where the bytes of a file come from that a command sends: through a queue, or out of a file that it handed over open.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::cache::blocking;
use crate::disk::File;
use crate::library::error::LibraryError;

/// Where nothing comes for so long, nothing is waited for.
pub const SILENCE: Duration = Duration::from_mins(1);
/// So much of a file is read at once.
const READ_BYTES: u64 = 256 * 1024;
/// So many reads of handed files are under way at once. A medium that does not answer keeps the thread of each, and hosts need
/// some too.
const READS_AT_ONCE: usize = 8;

/// Who may read what was handed over.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

/// Where the bytes come from.
#[derive(Debug)]
pub struct Supply(Source);

#[derive(Debug)]
enum Source {
    /// One file after the other.
    Queue { queue: mpsc::Receiver<Result<Bytes, String>>, rest: Bytes },
    /// One file.
    Open(Opened),
}

/// A file that was handed over, for as long as whoever did is there.
#[derive(Debug)]
struct Opened {
    /// There until this ends.
    file: Option<File>,
    offset: u64,
    left: CancellationToken,
    turns: Turns,
}

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READS_AT_ONCE)))
    }
}

impl Turns {
    /// Does what may wait for a medium of somebody else's where it delays nobody. Whoever waits for it may give up; the turn is
    /// over when the medium answers.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, LibraryError> {
        let waited = async {
            let turn = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
            let work = move || {
                let done = work();
                drop(turn);
                done
            };
            blocking(work).await
        };
        let waited = tokio::time::timeout(SILENCE, waited).await.map_err(|_| LibraryError::NotSent(silent()))?;
        waited.map_err(|error| LibraryError::NotSent(error.to_string()))
    }
}

impl Supply {
    /// Bytes that come through a queue, one file after the other.
    pub fn queued(queue: mpsc::Receiver<Result<Bytes, String>>) -> Self {
        Self(Source::Queue { queue, rest: Bytes::new() })
    }

    /// The bytes of an open file, until whoever handed it over left.
    pub fn open(file: File, left: CancellationToken, turns: Turns) -> Self {
        Self(Source::Open(Opened { file: Some(file), offset: 0, left, turns }))
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
            Source::Open(opened) => opened.next(most).await,
        }
    }

    /// Passes bytes over.
    pub async fn skip(&mut self, mut bytes: u64) -> Result<(), LibraryError> {
        if let Source::Open(opened) = &mut self.0 {
            opened.offset += bytes;
            return Ok(());
        }
        while bytes > 0 {
            bytes -= self.next(bytes).await?.len() as u64;
        }
        Ok(())
    }

    /// Begins anew, if that can be.
    pub fn rewind(&mut self) -> bool {
        match &mut self.0 {
            Source::Queue { .. } => false,
            Source::Open(opened) => {
                opened.offset = 0;
                true
            }
        }
    }
}

impl Opened {
    /// Reads on, and shows whoever handed the file over how far that went.
    async fn next(&mut self, most: u64) -> Result<Bytes, LibraryError> {
        if self.left.is_cancelled() {
            return Err(LibraryError::NotSent("whoever sent it left".to_owned()));
        }
        let (file, offset) = (self.file.clone(), self.offset);
        let reading = self.turns.run(move || {
            let Some(file) = file else { return Ok(Bytes::new()) };
            let bytes = file.read(usize::try_from(most.min(READ_BYTES)).map_err(io::Error::other)?, offset)?;
            file.mark(offset + bytes.len() as u64)?;
            Ok(Bytes::from(bytes))
        });
        let bytes = reading.await?;
        self.offset += bytes.len() as u64;
        if bytes.is_empty() { Err(ended()) } else { Ok(bytes) }
    }
}

impl Drop for Opened {
    /// To close it may wait for its medium, too.
    fn drop(&mut self) {
        let file = self.file.take();
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(file)));
        }
    }
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
    use std::sync::{Arc, Barrier};

    use tokio_util::sync::CancellationToken;

    use crate::disk::{Disk as _, File, OsDisk};
    use crate::library::supply::{READ_BYTES, READS_AT_ONCE, SILENCE, Supply, Turns};

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
        let mut supply = Supply::open(file.clone(), CancellationToken::new(), Turns::default());
        assert_eq!(supply.next(2).await.unwrap()[..], [0, 1]);
        supply.skip(8).await.unwrap();
        let bytes = supply.next(u64::MAX).await.unwrap();
        assert_eq!((bytes[0], bytes.len() as u64), (10, READ_BYTES));
        assert_eq!(file.marked().unwrap(), 10 + READ_BYTES);
        assert_eq!(supply.next(u64::MAX).await.unwrap().len() as u64, LEN as u64 - 10 - READ_BYTES);
        let error = supply.next(1).await.unwrap_err().to_string();
        assert!(error.contains("it ended early"), "{error}");
        assert!(supply.rewind());
        assert_eq!(supply.next(2).await.unwrap()[..], [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_medium_that_does_not_answer_is_gone_on_without_and_keeps_so_many_threads() {
        let (turns, answers) = (Turns::default(), Arc::new(Barrier::new(READS_AT_ONCE + 1)));
        let read = |answers: Option<Arc<Barrier>>| {
            let turns = turns.clone();
            tokio::spawn(async move { turns.run(move || Ok(answers.map(|answers| answers.wait().is_leader()))).await.map(drop) })
        };
        let mut waiting: Vec<_> = (0..READS_AT_ONCE).map(|_| read(Some(Arc::clone(&answers)))).collect();
        while turns.0.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        waiting.push(read(None));
        tokio::task::yield_now().await;
        tokio::time::advance(SILENCE).await;
        for waiting in waiting {
            let error = waiting.await.unwrap().unwrap_err().to_string();
            assert!(error.contains("nothing came for 60 seconds"), "{error}");
        }
        assert_eq!(turns.0.available_permits(), 0, "their threads are not back");
        answers.wait();
        read(None).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn nothing_is_read_for_whoever_left() {
        let left = CancellationToken::new();
        let mut supply = Supply::open(file(), left.clone(), Turns::default());
        supply.next(1).await.unwrap();
        drop(left.drop_guard());
        let error = supply.next(1).await.unwrap_err().to_string();
        assert!(error.contains("left"), "{error}");
    }
}
