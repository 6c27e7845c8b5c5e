//! Where the bytes of a download go: into a partial file while there is room, through memory otherwise.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::cache::error::FetchError;
use crate::cache::flight::Pilot;
use crate::cache::{Cache, blocking};
use crate::digest::{Expected, Hasher};
use crate::disk::File;
use crate::fetch::allowance::{Allowance, Denied};
use crate::fetch::writer::{self, Batch, Writer, Written};
use crate::store::partial::Partial;

/// The bounds of downloads.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many there may be at once.
    pub fetches: usize,
    /// How many of them one host may have begun.
    pub client_fetches: usize,
    /// How many of them may go through memory, for want of room.
    pub unbuffered_fetches: usize,
    /// How much memory each of those gets.
    pub ring_bytes: u64,
    /// How long a download waits for its turn.
    pub turn: Duration,
    /// How long upstream may be silent in the middle of a file, and a reader of one that cannot be stored.
    pub silence: Duration,
    /// How often all URLs are tried again in the middle of a file.
    pub extra_rounds: u32,
}

/// What all downloads share.
#[derive(Debug)]
pub struct Means {
    /// Where blobs go.
    pub cache: Arc<Cache>,
    /// The bounds.
    pub options: Options,
    /// Turns to download.
    pub fetches: Arc<Semaphore>,
    /// Turns to go through memory.
    pub unbuffered: Arc<Semaphore>,
    /// Who is told that a listed file is gone: the remote's name. Dropped if nobody has time.
    pub gone: mpsc::Sender<Arc<str>>,
}

impl Means {
    /// The means of downloads within these bounds.
    pub fn new(cache: Arc<Cache>, options: Options, gone: mpsc::Sender<Arc<str>>) -> Self {
        let [fetches, unbuffered] = [options.fetches, options.unbuffered_fetches].map(|turns| Arc::new(Semaphore::new(turns)));
        Self { cache, options, fetches, unbuffered, gone }
    }
}

/// Where a download's bytes go.
#[derive(Debug)]
pub struct Sink {
    means: Arc<Means>,
    pilot: Arc<Pilot>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    File(OnDisk),
    Ring { hasher: Box<Hasher>, aside: Option<Aside>, _turn: OwnedSemaphorePermit },
    Closed,
}

#[derive(Debug)]
struct OnDisk {
    writer: Writer,
    file: File,
    allowance: Allowance,
}

/// A file with the beginning of what goes through memory, which stays for a later download if all of it turns out right.
pub type Aside = Box<(Partial, Allowance)>;

/// All bytes of a download.
#[derive(Debug)]
pub enum Whole {
    /// In a file, with the room that it uses.
    File(Box<Partial>, Allowance),
    /// Gone through memory.
    Ring(Box<Hasher>, Option<Aside>),
}

impl Sink {
    /// Opens the partial file of a download, with what an earlier one left in it.
    pub async fn open(means: Arc<Means>, pilot: Arc<Pilot>, expected: Expected) -> Result<Self, FetchError> {
        let store = Arc::clone(means.cache.store());
        let way = match blocking(move || store.partial(expected)).await {
            Ok(partial) => {
                means.cache.books().lost(partial.dropped());
                let allowance = Allowance::new(Arc::clone(means.cache.books()), partial.len());
                pilot.opened(partial.file(), partial.len());
                let file = partial.file().clone();
                Way::File(OnDisk { writer: Writer::start(partial, Arc::clone(&pilot)), file, allowance })
            }
            Err(error) => {
                tracing::warn!(%expected, %error, "cannot write to the store; passing the file through memory");
                means.cache.standing().refused(error.to_string());
                ring(&means, &pilot, Hasher::new(expected), None)?
            }
        };
        Ok(Self { means, pilot, way })
    }

    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        match &self.way {
            Way::File(on_disk) => on_disk.writer.len(),
            Way::Ring { hasher, .. } => hasher.len(),
            Way::Closed => 0,
        }
    }

    /// Sees to it that there is room for `size` bytes, or for some if nobody knows; or leaves the disk.
    pub async fn make_room(&mut self, size: Option<u64>) -> Result<(), FetchError> {
        let len = size.unwrap_or(self.len() + 1);
        self.make_room_for(len, size).await
    }

    /// Takes the next bytes.
    pub async fn put(&mut self, batch: Batch) -> Result<(), FetchError> {
        let len = self.len() + writer::len(&batch);
        if self.pilot.size().is_none_or(|size| size < len) {
            self.make_room_for(len, None).await?;
        }
        let put = match &mut self.way {
            Way::File(on_disk) => on_disk.put(batch).await,
            Way::Ring { .. } | Way::Closed => Err(batch),
        };
        match put {
            Ok(()) => Ok(()),
            Err(batch) => {
                self.leave_the_disk().await?;
                self.pass_on(batch).await
            }
        }
    }

    /// Ends it. The disk may have refused the last bytes, and then they go through memory.
    pub async fn finish(mut self) -> Result<Whole, FetchError> {
        if let Some((written, allowance)) = self.close().await? {
            if written.refused.is_none() {
                return Ok(Whole::File(Box::new(written.partial), allowance));
            }
            self.go_on_in_memory(written, allowance).await?;
        }
        match self.way {
            Way::Ring { hasher, aside, .. } => Ok(Whole::Ring(hasher, aside)),
            Way::File(_) | Way::Closed => Err(FetchError::Vanished),
        }
    }

    /// Gives up, and leaves what came so far for another download to go on with. When this returns nobody writes any
    /// more; until then no other download may open the file.
    pub async fn leave(mut self) {
        if let Way::Ring { aside, .. } = &mut self.way {
            return leave_aside(aside.take()).await;
        }
        let left = match self.close().await {
            Ok(Some((written, allowance))) if written.partial.is_spoilt() => {
                give_up(&self.pilot, (written.partial, allowance)).await.map(drop)
            }
            closed => closed.map(drop),
        };
        if let Err(error) = left {
            tracing::warn!(expected = %self.pilot.flight().expected(), %error, "a download did not end well");
        }
    }

    /// Gives up, and throws away what came so far.
    pub async fn discard(&mut self) -> Result<(), FetchError> {
        if let Way::Ring { aside, .. } = &mut self.way
            && let Some(aside) = aside.take()
        {
            return give_up(&self.pilot, *aside).await.map(drop);
        }
        let Some((written, allowance)) = self.close().await? else { return Ok(()) };
        give_up(&self.pilot, (written.partial, allowance)).await.map(drop)
    }

    async fn make_room_for(&mut self, len: u64, size: Option<u64>) -> Result<(), FetchError> {
        let Way::File(on_disk) = &mut self.way else { return Ok(()) };
        match on_disk.make_room(&self.means.cache, len, size).await {
            Ok(()) => Ok(()),
            Err(reason) => {
                if let Denied::Disk(error) = &reason {
                    self.means.cache.standing().refused(error.to_string());
                }
                tracing::info!(expected = %self.pilot.flight().expected(), %reason, "no room; passing the file through memory");
                if matches!(reason, Denied::Uncounted) { self.set_aside().await } else { self.leave_the_disk().await }
            }
        }
    }

    /// Goes on from the file's end in memory, and leaves the file for a later download: there may be room for it.
    async fn set_aside(&mut self) -> Result<(), FetchError> {
        let Some((written, allowance)) = self.close().await? else { return Ok(()) };
        if written.refused.is_some() {
            return self.go_on_in_memory(written, allowance).await;
        }
        let hasher = written.partial.hasher().clone();
        self.way = ring(&self.means, &self.pilot, hasher, Some(Box::new((written.partial, allowance))))?;
        Ok(())
    }

    async fn leave_the_disk(&mut self) -> Result<(), FetchError> {
        match self.close().await? {
            Some((written, allowance)) => self.go_on_in_memory(written, allowance).await,
            None => Ok(()),
        }
    }

    /// Waits for the file's writer, if there is one. A ring stays as it is.
    async fn close(&mut self) -> Result<Option<(Written, Allowance)>, FetchError> {
        match std::mem::replace(&mut self.way, Way::Closed) {
            Way::File(on_disk) => on_disk.close().await.map(Some),
            way @ (Way::Ring { .. } | Way::Closed) => {
                self.way = way;
                Ok(None)
            }
        }
    }

    /// Goes on from the file's end. What is in the file stays there for its readers, without a name.
    async fn go_on_in_memory(&mut self, written: Written, allowance: Allowance) -> Result<(), FetchError> {
        let Written { partial, refused } = written;
        let batch = refused.map(|(error, batch)| {
            tracing::warn!(expected = %partial.expected(), %error, "cannot write to the store; passing the file through memory");
            self.means.cache.standing().refused(error.to_string());
            batch
        });
        let hasher = give_up(&self.pilot, (partial, allowance)).await?;
        self.way = ring(&self.means, &self.pilot, hasher, None)?;
        self.pass_on(batch.unwrap_or_default()).await
    }

    async fn pass_on(&mut self, batch: Batch) -> Result<(), FetchError> {
        let Way::Ring { hasher, .. } = &mut self.way else { return Err(FetchError::Vanished) };
        for piece in batch {
            hasher.update(&piece);
            self.pilot.push(piece, self.means.options.silence).await?;
        }
        Ok(())
    }
}

impl OnDisk {
    async fn make_room(&mut self, cache: &Arc<Cache>, len: u64, size: Option<u64>) -> Result<(), Denied> {
        self.allowance.ensure(cache, len, size).await?;
        let Some(size) = size else { return Ok(()) };
        let (disk, file) = (Arc::clone(cache.store().disk()), self.file.clone());
        blocking(move || disk.reserve(&file, size)).await?;
        self.allowance.reserved();
        Ok(())
    }

    async fn put(&mut self, batch: Batch) -> Result<(), Batch> {
        self.writer.send(batch).await?;
        self.allowance.reached(self.writer.len());
        Ok(())
    }

    async fn close(self) -> Result<(Written, Allowance), FetchError> {
        let mut allowance = self.allowance;
        let written = self.writer.finish().await.map_err(|error| FetchError::Disk(error.to_string()))?;
        allowance.reached(written.partial.len());
        Ok((written, allowance))
    }
}

/// Leaves what was set aside for a later download. Waits for the disk, and for nothing else.
pub async fn leave_aside(aside: Option<Aside>) {
    let left = blocking(move || {
        drop(aside);
        Ok(())
    });
    if let Err(error) = left.await {
        tracing::warn!(%error, "what was left of a download could not be put away");
    }
}

/// Removes a file, which takes its room until its readers have closed it.
pub async fn give_up(pilot: &Pilot, (partial, allowance): (Partial, Allowance)) -> Result<Hasher, FetchError> {
    let hasher = blocking(move || Ok(partial.into_hasher())).await.map_err(|error| FetchError::Disk(error.to_string()))?;
    pilot.gave_up(allowance.forfeit());
    Ok(hasher)
}

fn ring(means: &Means, pilot: &Pilot, hasher: Hasher, aside: Option<Aside>) -> Result<Way, FetchError> {
    let turn = Arc::clone(&means.unbuffered).try_acquire_owned().map_err(|_| FetchError::Busy)?;
    pilot.open_ring(hasher.len(), means.options.ring_bytes);
    Ok(Way::Ring { hasher: Box::new(hasher), aside, _turn: turn })
}
