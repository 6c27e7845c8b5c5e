//! The thread that writes a file and hashes it on the way.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cache::flight::Pilot;
use crate::store::partial::Partial;

/// How many batches may wait for the disk; upstream is not read faster than that.
const QUEUED_BATCHES: usize = 4;
/// So much is written before it is synced beside the writing, so that the sync at the end has little left to do.
const SYNC_BYTES: u64 = 32 << 20;

/// Pieces of a body that came together.
pub type Batch = Vec<Bytes>;

/// A file that is being written.
#[derive(Debug)]
pub struct Writer {
    batches: mpsc::Sender<Batch>,
    thread: JoinHandle<Written>,
    sent: u64,
}

/// What came of the writing.
#[derive(Debug)]
pub struct Written {
    /// The file.
    pub partial: Partial,
    /// What could not be written, and why.
    pub refused: Option<(io::Error, Batch)>,
}

impl Writer {
    /// Goes on with a partial file. Readers are told of every batch that is in it.
    pub fn start(partial: Partial, pilot: Arc<Pilot>) -> Self {
        let (batches, queue) = mpsc::channel(QUEUED_BATCHES);
        let sent = partial.len();
        let thread = tokio::task::spawn_blocking(move || write(partial, queue, &pilot));
        Self { batches, thread, sent }
    }

    /// How many bytes the file will have when everything sent is written.
    pub fn len(&self) -> u64 {
        self.sent
    }

    /// Hands over a batch; `false` if the writing has stopped, and then the batch was not taken.
    pub async fn send(&mut self, batch: Batch) -> Result<(), Batch> {
        let len = len(&batch);
        self.batches.send(batch).await.map_err(|refused| refused.0)?;
        self.sent += len;
        Ok(())
    }

    /// Waits until everything is written, or cannot be.
    pub async fn finish(self) -> io::Result<Written> {
        drop(self.batches);
        self.thread.await.map_err(io::Error::other)
    }
}

/// How many bytes a batch has.
pub fn len(batch: &[Bytes]) -> u64 {
    batch.iter().map(|piece| piece.len() as u64).sum()
}

fn write(mut partial: Partial, mut queue: mpsc::Receiver<Batch>, pilot: &Pilot) -> Written {
    let mut syncing = Syncing::default();
    while let Some(batch) = queue.blocking_recv() {
        let written = match syncing.beside(&partial) {
            Ok(()) => append(&mut partial, batch),
            Err(error) => {
                partial.spoil();
                Err((error, batch))
            }
        };
        pilot.received(partial.len());
        if let Err((error, mut unwritten)) = written {
            queue.close();
            while let Some(batch) = queue.blocking_recv() {
                unwritten.extend(batch);
            }
            return Written { partial, refused: Some((error, unwritten)) };
        }
    }
    let refused = syncing.finish().err().map(|error| {
        partial.spoil();
        (error, Batch::new())
    });
    Written { partial, refused }
}

fn append(partial: &mut Partial, batch: Batch) -> Result<(), (io::Error, Batch)> {
    let mut pieces = batch.into_iter();
    while let Some(piece) = pieces.next() {
        if let Err(error) = partial.append(&piece) {
            return Err((error, [piece].into_iter().chain(pieces).collect()));
        }
    }
    Ok(())
}

/// Syncs beside the writing. The system reports a failure to write back once, to whoever syncs first; so what a sync says
/// here is kept, and a file of which one failed is never committed.
#[derive(Default)]
struct Syncing {
    synced: u64,
    under_way: Option<JoinHandle<io::Result<()>>>,
}

impl Syncing {
    /// Starts a sync if enough was written since the last one, and that one is over.
    fn beside(&mut self, partial: &Partial) -> io::Result<()> {
        let is_under_way = self.under_way.as_ref().is_some_and(|sync| !sync.is_finished());
        if partial.len() < self.synced + SYNC_BYTES || is_under_way {
            return Ok(());
        }
        self.finish()?;
        self.synced = partial.len();
        let syncer = partial.syncer();
        self.under_way = Some(Handle::current().spawn_blocking(move || syncer.sync()));
        Ok(())
    }

    /// What came of the last sync.
    fn finish(&mut self) -> io::Result<()> {
        match self.under_way.take() {
            Some(sync) => Handle::current().block_on(sync).map_err(io::Error::other)?,
            None => Ok(()),
        }
    }
}
