//! Blobs that are being read, which therefore stay.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use foldhash::HashMap;

use crate::digest::Digest;
use crate::store::blob::Blob;

/// Which blobs somebody reads.
#[derive(Debug, Default)]
pub struct Leases(Mutex<HashMap<Digest, Weak<Lease>>>);

/// A blob that stays for as long as somebody has this.
#[derive(Clone, Debug)]
pub struct Lent {
    blob: Blob,
    lease: Arc<Lease>,
}

/// What all readers of one blob have in common.
#[derive(Debug)]
struct Lease {
    digest: Digest,
    is_broken: AtomicBool,
    leases: Arc<Leases>,
}

impl Leases {
    /// Lends a blob.
    pub fn lend(self: &Arc<Self>, blob: Blob) -> Lent {
        let mut leases = self.lock();
        let known = leases.get(&blob.digest).and_then(Weak::upgrade);
        let lease = known.unwrap_or_else(|| {
            let lease = Lease { digest: blob.digest, is_broken: AtomicBool::new(false), leases: Arc::clone(self) };
            let lease = Arc::new(lease);
            leases.insert(blob.digest, Arc::downgrade(&lease));
            lease
        });
        drop(leases);
        Lent { blob, lease }
    }

    /// Whether somebody has a blob.
    pub fn has(&self, digest: Digest) -> bool {
        self.lock().get(&digest).is_some_and(|lease| lease.strong_count() > 0)
    }

    /// Tells everybody who has a blob that its bytes are wrong. It is not lent any more then.
    pub fn call_in(&self, digest: Digest) {
        // The last one to let go of it takes the lock: not while it is held here.
        let lease = self.lock().remove(&digest).and_then(|lease| lease.upgrade());
        if let Some(lease) = lease {
            lease.is_broken.store(true, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Weak<Lease>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent {
    /// Whether its bytes turned out to be wrong since it was lent.
    pub fn is_broken(&self) -> bool {
        self.lease.is_broken.load(Ordering::Acquire) || self.blob.is_wrong()
    }
}

impl Deref for Lent {
    type Target = Blob;

    fn deref(&self) -> &Blob {
        &self.blob
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.leases.lock();
        // Another one may have taken its place meanwhile.
        if leases.get(&self.digest).is_some_and(|lease| lease.strong_count() == 0) {
            leases.remove(&self.digest);
        }
    }
}
