//! Blobs of what came in part: they are of no use yet, and stay for the rest to come.

use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::{HashMap, HashSet};

use crate::digest::Digest;

/// The blobs of everything that was begun, by what tells it from the rest.
#[derive(Debug, Default)]
pub struct Begun(Mutex<HashMap<Digest, HashSet<Digest>>>);

impl Begun {
    /// Keeps these blobs, in the place of those before.
    pub fn keep(&self, whole: Digest, blobs: HashSet<Digest>) {
        self.lock().insert(whole, blobs);
    }

    /// Keeps them no more: it is complete, or is not wanted. What they were.
    pub fn end(&self, whole: Digest) -> HashSet<Digest> {
        self.lock().remove(&whole).unwrap_or_default()
    }

    /// Whether a blob is kept.
    pub fn has(&self, blob: Digest) -> bool {
        self.lock().values().any(|blobs| blobs.contains(&blob))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, HashSet<Digest>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
