//! The room that one download may use.

use std::io;
use std::sync::Arc;

use crate::cache::room::{Promise, Room};
use crate::cache::{Cache, blocking};
use crate::ledger::NoRoom;

/// What is asked for at a time when nobody knows how large a file will be.
const STEP_BYTES: u64 = 64 << 20;

/// Promises of room, and what became of them. When it is dropped, what is in the file counts as held.
#[derive(Debug)]
pub struct Allowance {
    room: Arc<Room>,
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
    pub fn new(room: Arc<Room>, adopted: u64) -> Self {
        Self { room, promises: Vec::new(), bytes: adopted, adopted, written: 0 }
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
        let space = {
            let cache = Arc::clone(cache);
            blocking(move || cache.space()).await?
        };
        self.promises.push(self.room.promise(wanted - self.bytes, space.free)?);
        self.bytes = wanted;
        Ok(())
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
        self.room.lost(self.adopted);
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        self.promises.clear();
        self.room.found(self.written);
    }
}
