//! Blobs of what came in part: they are of no use yet, and stay for the rest to come.

use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::{HashMap, HashSet};

use crate::digest::Digest;

/// The blobs of everything that was begun, by the place that it is to have.
#[derive(Debug, Default)]
pub struct Begun(Mutex<HashMap<Digest, Parts>>);

/// What is to have a place.
#[derive(Debug)]
struct Parts {
    whole: Digest,
    blobs: HashSet<Digest>,
}

impl Begun {
    /// Keeps the blobs of `whole`, in the place of those before.
    pub fn keep(&self, place: Digest, whole: Digest, blobs: HashSet<Digest>) {
        self.lock().insert(place, Parts { whole, blobs });
    }

    /// Whether those of `whole` are kept for a place.
    pub fn keeps(&self, place: Digest, whole: Digest) -> bool {
        self.lock().get(&place).is_some_and(|parts| parts.whole == whole)
    }

    /// Keeps them no more: it is complete, or is not wanted. What they were.
    pub fn end(&self, place: Digest) -> HashSet<Digest> {
        self.lock().remove(&place).map(|parts| parts.blobs).unwrap_or_default()
    }

    /// Whether a blob is kept.
    pub fn has(&self, blob: Digest) -> bool {
        self.lock().values().any(|parts| parts.blobs.contains(&blob))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Parts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
