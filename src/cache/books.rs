//! The ledger, shared by everybody: what is held, and room that is promised before it is used.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

use crate::digest::{Digest, Fingerprint};
use crate::ledger::account::{Limits, NoRoom};
use crate::ledger::record::Record;
use crate::ledger::{Ledger, Unit};
use crate::metrics::Metrics;
use crate::retention::Need;

/// Room is made in steps of this share of the capacity, so that not every fetch has to make some.
const STEP_PERCENT: u64 = 5;

/// The ledger of a store, shared by all.
#[derive(Debug)]
pub struct Books {
    limits: Limits,
    ledger: Mutex<Ledger>,
    /// Held by whoever counts what lies there.
    counting: Arc<RwLock<()>>,
    metrics: Arc<Metrics>,
}

/// The count of what lies in the store. It is over when this is dropped.
#[derive(Debug)]
pub struct Counting(#[expect(dead_code, reason = "it is held")] OwnedRwLockWriteGuard<()>);

/// Room that a fetch may use. Dropped, it is given back but for what is held from then on.
#[derive(Debug)]
pub struct Promise {
    books: Arc<Books>,
    bytes: u64,
    unreserved: u64,
    kept: u64,
    left: u64,
}

impl Books {
    /// The books of a store that holds this.
    pub fn new(limits: Limits, ledger: Ledger, metrics: Arc<Metrics>) -> Self {
        let books = Self { limits, ledger: Mutex::new(ledger), counting: Arc::default(), metrics };
        books.change(|_| ());
        books
    }

    /// What the store may hold.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whoever has this counts what lies there, and until that is done nobody knows how much room there is; `None` if somebody
    /// does.
    pub fn begin_to_count(&self) -> Option<Counting> {
        Arc::clone(&self.counting).try_write_owned().ok().map(Counting)
    }

    /// Whether all that lies there is counted.
    pub fn is_counted(&self) -> bool {
        self.counting.try_read().is_ok()
    }

    /// Waits until all that lies there is counted, which a slow disk makes long.
    pub async fn counted(&self) {
        drop(self.counting.read().await);
    }

    /// Looks at the ledger.
    pub fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the ledger.
    pub fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = change(&mut ledger);
        self.metrics.cache_size.set(i64::try_from(ledger.account.held()).unwrap_or(i64::MAX));
        self.metrics.cache_blobs.set(i64::try_from(ledger.blobs().len()).unwrap_or(i64::MAX));
        outcome
    }

    /// Notes that a host asked for a blob.
    pub fn touch(&self, digest: Digest, now: Timestamp) {
        self.change(|ledger| ledger.touch(digest, now));
    }

    /// An image that is held.
    pub fn image(&self, fingerprint: Fingerprint) -> Option<Record> {
        self.read(|ledger| ledger.image(fingerprint).cloned())
    }

    /// Whether a unit is held and was not used since.
    pub fn is_unused_since(&self, unit: Unit, last_used_at: Timestamp) -> bool {
        self.read(|ledger| match unit {
            Unit::Blob(digest) => ledger.blob(digest).is_some_and(|held| held.images.is_empty() && held.last_used_at == last_used_at),
            Unit::Image(fingerprint) => ledger.image(fingerprint).is_some_and(|record| record.last_used_at == last_used_at),
        })
    }

    /// Notes bytes that left the store.
    pub fn lost(&self, bytes: u64) {
        self.change(|ledger| ledger.account.release(bytes));
    }

    /// Promises `bytes`, if they fit; `free` is what the file system has left.
    pub fn promise(self: &Arc<Self>, bytes: u64, free: u64) -> Result<Promise, NoRoom> {
        self.change(|ledger| ledger.account.promise(bytes, free, &self.limits))?;
        Ok(Promise { books: Arc::clone(self), bytes, unreserved: bytes, kept: 0, left: 0 })
    }

    /// What is to be freed so that `wanted` bytes fit.
    pub fn need(&self, wanted: u64, free: u64) -> Need {
        let least = self.read(|ledger| ledger.account.shortage(wanted, free, &self.limits));
        Need { least, enough: least.saturating_add(self.limits.capacity_bytes / 100 * STEP_PERCENT) }
    }
}

impl Promise {
    /// No room.
    pub fn none(books: Arc<Books>) -> Self {
        Self { books, bytes: 0, unreserved: 0, kept: 0, left: 0 }
    }

    /// Takes the room of another one.
    pub fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
        self.unreserved += std::mem::take(&mut other.unreserved);
    }

    /// Notes what is to be held when it ends: `kept` more bytes, and `left` fewer.
    pub fn becomes(&mut self, kept: u64, left: u64) {
        (self.kept, self.left) = (kept, left);
    }

    /// Notes that the file system has set the room aside.
    pub fn reserved(&mut self) {
        let bytes = std::mem::take(&mut self.unreserved);
        self.books.change(|ledger| ledger.account.reserve(bytes));
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        // In one step: between two, another fetch would be promised what is in use.
        self.books.change(|ledger| {
            ledger.account.settle(self.bytes, self.unreserved, self.kept);
            ledger.account.release(self.left);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::cache::books::{Books, Promise};
    use crate::ledger::Ledger;
    use crate::ledger::account::Limits;

    const LIMITS: Limits = Limits { capacity_bytes: 100, min_free_bytes: 0 };

    #[test]
    fn what_is_promised_is_free_or_held_when_the_promise_ends() {
        let books = Arc::new(Books::new(LIMITS, Ledger::default(), Arc::default()));
        let taken = |books: &Books| books.need(LIMITS.capacity_bytes, u64::MAX).least;
        let mut promise = books.promise(30, u64::MAX).unwrap();
        promise.join(books.promise(40, u64::MAX).unwrap());
        assert_eq!(taken(&books), 70);
        promise.becomes(50, 0);
        drop(promise);
        assert_eq!((taken(&books), books.read(|ledger| ledger.account.held())), (50, 50));
        let mut none = Promise::none(Arc::clone(&books));
        none.becomes(0, 20);
        drop(none);
        assert_eq!(taken(&books), 30);
    }
}
