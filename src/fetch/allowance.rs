//! The room that one download may use.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::books::{Books, Promise};
use crate::cache::{Cache, blocking};
use crate::ledger::account::NoRoom;

/// What is asked for at a time when nobody knows how large a file will be.
const STEP_BYTES: u64 = 64 << 20;

/// How long a download waits until all that lies in the store is counted. Hosts wait meanwhile.
const COUNTING_PATIENCE: Duration = Duration::from_secs(5);

/// Promised room, and what becomes of it. When it is dropped, what is in the file counts as held.
#[derive(Debug)]
pub struct Allowance {
    promise: Promise,
    /// Promised, or in the file since before.
    bytes: u64,
    /// In the file since before.
    adopted: u64,
}

/// Why there is no room.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The ledger says so.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// Nobody knows yet how much there is.
    #[error("the store is still being looked through")]
    Uncounted,
    /// The file system cannot tell, or has none.
    #[error("the file system gives no room: {0}")]
    Disk(#[from] io::Error),
}

impl Allowance {
    /// No room but for `adopted` bytes, which are in the file since before.
    pub fn new(books: Arc<Books>, adopted: u64) -> Self {
        Self { promise: Promise::none(books), bytes: adopted, adopted }
    }

    /// What was in the file before.
    pub fn adopted(&self) -> u64 {
        self.adopted
    }

    /// Sees to it that a file of `len` bytes fits; of `size` bytes at once, if that is known.
    pub async fn ensure(&mut self, cache: &Arc<Cache>, len: u64, size: Option<u64>) -> Result<(), Denied> {
        if len <= self.bytes {
            return Ok(());
        }
        let wanted = size.unwrap_or(self.bytes + STEP_BYTES).max(len);
        self.promise.join(promise(cache, wanted - self.bytes).await?);
        self.bytes = wanted;
        Ok(())
    }

    /// Notes that the file system has set aside all that was promised so far.
    pub fn reserved(&mut self) {
        self.promise.reserved();
    }

    /// Notes that the file has `len` bytes.
    pub fn reached(&mut self, len: u64) {
        self.promise.becomes(len.saturating_sub(self.adopted), 0);
    }

    /// The file is given up, and is removed by now: the room that it takes for as long as its readers have it open.
    pub fn forfeit(mut self) -> Promise {
        self.promise.becomes(0, self.adopted);
        self.promise
    }
}

/// Asks for room, and if there is none lets the cache make some.
async fn promise(cache: &Arc<Cache>, bytes: u64) -> Result<Promise, Denied> {
    let cache = Arc::clone(cache);
    tokio::time::timeout(COUNTING_PATIENCE, cache.books().counted()).await.map_err(|_| Denied::Uncounted)?;
    let promised = blocking(move || {
        if let Ok(promise) = cache.books().promise(bytes, cache.space()?.free) {
            return Ok(Ok(promise));
        }
        cache.make_room(bytes)?;
        Ok(cache.books().promise(bytes, cache.space()?.free))
    });
    Ok(promised.await??)
}
