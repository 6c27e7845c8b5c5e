//! Room in the store: promised before it is used, and given back when it is not.

use std::sync::{Arc, Mutex, PoisonError};

use crate::ledger::{Ledger, Limits, NoRoom};
use crate::metrics::Metrics;

/// The ledger of a store, shared by all fetches.
#[derive(Debug)]
pub struct Room {
    limits: Limits,
    ledger: Mutex<Ledger>,
    metrics: Arc<Metrics>,
}

/// Room that a fetch may use. Dropped, it is given back whole.
#[derive(Debug)]
pub struct Promise {
    room: Arc<Room>,
    bytes: u64,
    unreserved: u64,
}

impl Room {
    /// The room of a store of which nothing is known yet.
    pub fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self { limits, ledger: Mutex::default(), metrics }
    }

    /// Notes bytes that turned out to be in the store.
    pub fn found(&self, bytes: u64) {
        self.change(|ledger| ledger.settle(0, 0, bytes));
    }

    /// Notes bytes that left the store.
    pub fn lost(&self, bytes: u64) {
        self.change(|ledger| ledger.release(bytes));
    }

    /// Promises `bytes`, if they fit; `free` is what the file system has left.
    pub fn promise(self: &Arc<Self>, bytes: u64, free: u64) -> Result<Promise, NoRoom> {
        self.change(|ledger| ledger.promise(bytes, free, &self.limits))?;
        Ok(Promise { room: Arc::clone(self), bytes, unreserved: bytes })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = change(&mut ledger);
        self.metrics.cache_size.set(i64::try_from(ledger.held()).unwrap_or(i64::MAX));
        outcome
    }
}

impl Promise {
    /// Notes that the file system has set the room aside.
    pub fn reserved(&mut self) {
        let bytes = std::mem::take(&mut self.unreserved);
        self.room.change(|ledger| ledger.reserve(bytes));
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.room.change(|ledger| ledger.settle(self.bytes, self.unreserved, 0));
    }
}
