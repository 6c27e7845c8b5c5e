//! The room that one download may use.

use std::io;
use std::sync::Arc;

use crate::cache::books::{Books, Promise};
use crate::cache::{Cache, blocking};
use crate::ledger::account::NoRoom;

/// What is asked for at a time when nobody knows how large a file will be.
const STEP_BYTES: u64 = 64 << 20;

/// Promises of room, and what became of them. When it is dropped, what is in the file counts as held.
#[derive(Debug)]
pub struct Allowance {
    books: Arc<Books>,
    promises: Vec<Promise>,
    /// Promised, or in the file since before.
    bytes: u64,
    /// In the file since before.
    adopted: u64,
    /// Written to the file since.
    written: u64,
}

/// Why there is no room.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The ledger says so.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The file system cannot tell, or has none.
    #[error("the file system gives no room: {0}")]
    Disk(#[from] io::Error),
}

impl Allowance {
    /// No room but for `adopted` bytes, which are in the file since before.
    pub fn new(books: Arc<Books>, adopted: u64) -> Self {
        Self { books, promises: Vec::new(), bytes: adopted, adopted, written: 0 }
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
        self.promises.push(self.promise(cache, wanted - self.bytes).await?);
        self.bytes = wanted;
        Ok(())
    }

    /// Asks for room, and if there is none lets the cache make some.
    async fn promise(&self, cache: &Arc<Cache>, bytes: u64) -> Result<Promise, Denied> {
        let (cache, books) = (Arc::clone(cache), Arc::clone(&self.books));
        let promised = blocking(move || {
            if let Ok(promise) = books.promise(bytes, cache.space()?.free) {
                return Ok(Ok(promise));
            }
            cache.make_room(bytes)?;
            Ok(books.promise(bytes, cache.space()?.free))
        });
        Ok(promised.await??)
    }

    /// Notes that the file system has set aside all that was promised so far.
    pub fn reserved(&mut self) {
        self.promises.iter_mut().for_each(Promise::reserved);
    }

    /// Notes that the file has `len` bytes.
    pub fn reached(&mut self, len: u64) {
        self.written = len.saturating_sub(self.adopted);
    }

    /// The file is given up, with all that was in it.
    pub fn forfeit(mut self) {
        self.written = 0;
        self.books.lost(self.adopted);
    }

    /// The file is given up, and takes its room for as long as this is kept: its readers have it open.
    pub fn forfeit_later(self) -> Forfeit {
        Forfeit(Some(self))
    }
}

/// The room of a file that was given up.
#[derive(Debug)]
pub struct Forfeit(Option<Allowance>);

impl Drop for Forfeit {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Allowance::forfeit);
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        self.promises.clear();
        self.books.found(self.written);
    }
}
