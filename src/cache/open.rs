//! Files that stay open for the next reader.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache as Moka;

use crate::digest::Digest;
use crate::store::blob::Blob;

/// Open files by their digests. One that leaves is closed in that moment, for a file without a name takes room for as long as it
/// is open; the cache below drops what leaves it some time later.
#[derive(Debug)]
pub struct OpenFiles(Moka<Digest, Arc<Slot>>);

/// An open file, until it leaves.
#[derive(Debug)]
struct Slot(Mutex<Option<Blob>>);

impl OpenFiles {
    /// Keeps so many files open, none of them for longer than `idle` without being asked for.
    pub fn new(most: u64, idle: Duration) -> Self {
        let files = Moka::builder().max_capacity(most).time_to_idle(idle);
        Self(files.eviction_listener(|_, slot: Arc<Slot>, _| slot.close()).build())
    }

    /// The open file of this digest.
    pub fn get(&self, digest: Digest) -> Option<Blob> {
        self.0.get(&digest).and_then(|slot| slot.blob())
    }

    /// Keeps a file open, in the place of any other with its digest.
    pub fn insert(&self, blob: Blob) {
        self.0.insert(blob.digest, Arc::new(Slot(Mutex::new(Some(blob)))));
    }

    /// Closes what nobody has asked for lately: the cache below looks at that only while it is used.
    pub fn close_idle(&self) {
        self.0.run_pending_tasks();
    }

    /// Gives an open file to nobody any more. It is closed, unless somebody reads it.
    pub fn close(&self, digest: Digest) {
        self.0.invalidate(&digest);
    }
}

impl Slot {
    fn blob(&self) -> Option<Blob> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
