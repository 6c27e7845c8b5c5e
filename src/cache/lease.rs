//! Blobs that are being read, which therefore stay.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;

use crate::digest::Digest;
use crate::store::blob::Blob;

/// How many readers each blob has.
#[derive(Debug, Default)]
pub struct Leases(Mutex<HashMap<Digest, usize>>);

/// A blob that stays for as long as somebody has this.
#[derive(Debug)]
pub struct Lent {
    blob: Blob,
    leases: Arc<Leases>,
}

impl Leases {
    /// Lends a blob.
    pub fn lend(self: &Arc<Self>, blob: Blob) -> Lent {
        *self.lock().entry(blob.digest).or_default() += 1;
        Lent { blob, leases: Arc::clone(self) }
    }

    /// Whether somebody has a blob.
    pub fn has(&self, digest: Digest) -> bool {
        self.lock().contains_key(&digest)
    }

    fn give_back(&self, digest: Digest) {
        let mut leases = self.lock();
        if let Some(readers) = leases.get_mut(&digest) {
            *readers -= 1;
            if *readers == 0 {
                leases.remove(&digest);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Lent {
    type Target = Blob;

    fn deref(&self) -> &Blob {
        &self.blob
    }
}

impl Clone for Lent {
    fn clone(&self) -> Self {
        self.leases.lend(self.blob.clone())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.leases.give_back(self.blob.digest);
    }
}
