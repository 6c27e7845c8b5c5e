//! Blobs that are being read, which therefore stay.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use foldhash::HashMap;

use crate::cache::books::Promise;
use crate::digest::Digest;
use crate::store::blob::{Blob, Identity};

/// Which blobs somebody reads. Of one name there may be two files: a good one that took the place of another, and the one that
/// hosts were reading then.
#[derive(Debug, Default)]
pub struct Leases(Mutex<HashMap<Digest, Files>>);

/// The files of one name that somebody reads.
type Files = Vec<(Identity, Weak<Lease>)>;

/// A blob that stays for as long as somebody has this.
#[derive(Clone, Debug)]
pub struct Lent {
    blob: Blob,
    lease: Arc<Lease>,
}

/// The readers of other files than one.
#[derive(Debug)]
pub struct Others(Vec<Arc<Lease>>);

/// What all readers of one file have in common.
#[derive(Debug)]
struct Lease {
    digest: Digest,
    is_broken: AtomicBool,
    leases: Arc<Leases>,
    /// The room of a file that another one took the place of.
    room: OnceLock<Arc<Promise>>,
}

impl Leases {
    /// Lends a blob.
    pub fn lend(self: &Arc<Self>, blob: Blob) -> Lent {
        let mut leases = self.lock();
        let known = leases.get(&blob.digest).and_then(|files| find(files, &blob));
        let lease = known.unwrap_or_else(|| {
            let (digest, file) = (blob.digest, blob.identity());
            let lease = Arc::new(Lease { digest, is_broken: AtomicBool::new(false), leases: Arc::clone(self), room: OnceLock::new() });
            leases.entry(digest).or_default().push((file, Arc::downgrade(&lease)));
            lease
        });
        drop(leases);
        Lent { blob, lease }
    }

    /// Whether somebody has a blob.
    pub fn has(&self, digest: Digest) -> bool {
        self.lock().get(&digest).is_some_and(|files| files.iter().any(|(_, lease)| lease.strong_count() > 0))
    }

    /// Tells everybody who has this file that its bytes are wrong, also if another one has its name by now.
    pub fn call_in(&self, blob: &Blob) {
        // The last one to let go of it takes the lock: not while it is held here.
        let lease = self.lock().get(&blob.digest).and_then(|files| find(files, blob));
        if let Some(lease) = lease {
            lease.is_broken.store(true, Ordering::Release);
        }
    }

    /// Whoever has another file of this name now.
    pub fn others(&self, blob: &Blob) -> Others {
        let leases = self.lock();
        let files = leases.get(&blob.digest).into_iter().flatten();
        Others(files.filter(|(file, _)| *file != blob.identity()).filter_map(|(_, lease)| lease.upgrade()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Files>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Others {
    /// Gives them the room of what they have, which is free when the last of them has let go of it; at once, if there is none.
    pub fn take(self, room: Promise) {
        let room = Arc::new(room);
        // A name that is taken again and again leaves several files; the first of these rooms is the one that is theirs.
        self.0.iter().filter(|lease| lease.room.get().is_none()).for_each(|lease| drop(lease.room.set(Arc::clone(&room))));
    }

    /// Tells them that nobody knows of what they have.
    pub fn call_in(&self) {
        self.0.iter().for_each(|lease| lease.is_broken.store(true, Ordering::Release));
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
        let Some(files) = leases.get_mut(&self.digest) else { return };
        files.retain(|(_, lease)| lease.strong_count() > 0);
        if files.is_empty() {
            leases.remove(&self.digest);
        }
    }
}

/// The lease of a blob's file, if somebody has it. No other one is held for a moment: to let go of the last one of it takes the lock.
fn find(files: &Files, blob: &Blob) -> Option<Arc<Lease>> {
    files.iter().filter(|(file, _)| *file == blob.identity()).find_map(|(_, lease)| lease.upgrade())
}
