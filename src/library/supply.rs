//! Where the bytes of a file come from that a command sends: through a queue, or out of a file that it handed over open.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::cache::blocking;
use crate::disk::File;
use crate::library::error::LibraryError;

/// Where nothing comes for so long, nothing is waited for.
pub const SILENCE: Duration = Duration::from_mins(1);
/// So much of a file is read at once.
const READ_BYTES: u64 = 256 * 1024;
/// So many handed files are read at once. A medium that does not answer keeps the thread of each, and hosts need some too.
const FILES_AT_ONCE: usize = 8;
/// How long a file waits for others before its bytes are sent instead.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who may read what was handed over.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

/// One file's turn. It is over when its medium has answered everything that it was asked.
#[derive(Clone, Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is held")] Arc<OwnedSemaphorePermit>);

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
    turn: Turn,
}

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(FILES_AT_ONCE)))
    }
}

impl Turns {
    /// A turn, or why there is none.
    pub async fn take(&self) -> Result<Turn, LibraryError> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.0).acquire_owned()).await;
        let busy = || LibraryError::NotSent("too many other files are read, or do not answer".to_owned());
        turn.ok().and_then(Result::ok).map(|turn| Turn(Arc::new(turn))).ok_or_else(busy)
    }
}

impl Turn {
    /// Does what may wait for a medium of somebody else's where it delays nobody. Whoever waits for it may give up.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, LibraryError> {
        let turn = self.clone();
        let work = blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        let done = tokio::time::timeout(SILENCE, work).await.map_err(|_| LibraryError::NotSent(silent()))?;
        done.map_err(|error| LibraryError::NotSent(error.to_string()))
    }
}

impl Supply {
    /// Bytes that come through a queue, one file after the other.
    pub fn queued(queue: mpsc::Receiver<Result<Bytes, String>>) -> Self {
        Self(Source::Queue { queue, rest: Bytes::new() })
    }

    /// The bytes of an open file, until whoever handed it over left.
    pub fn open(file: File, left: CancellationToken, turn: Turn) -> Self {
        Self(Source::Open(Opened { file: Some(file), offset: 0, left, turn }))
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
        let reading = self.turn.run(move || {
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
        let (file, turn) = (self.file.take(), self.turn.clone());
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop((file, turn))));
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
    use crate::library::supply::{FILES_AT_ONCE, PATIENCE, READ_BYTES, SILENCE, Supply, Turns};

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
        let mut supply = Supply::open(file.clone(), CancellationToken::new(), Turns::default().take().await.unwrap());
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
        let (turns, answers) = (Turns::default(), Arc::new(Barrier::new(FILES_AT_ONCE + 1)));
        let mut hung = Vec::new();
        for _ in 0..FILES_AT_ONCE {
            let (turn, answers) = (turns.take().await.unwrap(), Arc::clone(&answers));
            hung.push(tokio::spawn(async move { turn.run(move || Ok(answers.wait().is_leader())).await.map(drop) }));
        }
        let late = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take().await.map(drop) }
        });
        tokio::task::yield_now().await;
        tokio::time::advance(PATIENCE).await;
        let error = late.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("too many other files"), "{error}");
        tokio::time::advance(SILENCE).await;
        for hung in hung {
            let error = hung.await.unwrap().unwrap_err().to_string();
            assert!(error.contains("nothing came for 60 seconds"), "{error}");
        }
        assert_eq!(turns.0.available_permits(), 0, "their threads are not back");
        answers.wait();
        turns.take().await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_read_for_whoever_left() {
        let left = CancellationToken::new();
        let mut supply = Supply::open(file(), left.clone(), Turns::default().take().await.unwrap());
        supply.next(1).await.unwrap();
        drop(left.drop_guard());
        let error = supply.next(1).await.unwrap_err().to_string();
        assert!(error.contains("left"), "{error}");
    }
}
