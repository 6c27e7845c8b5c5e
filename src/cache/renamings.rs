//! How often names of blobs came to mean another file, or none. Whoever opened one by its name sees by this whether that is old.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::Digest;

/// A count for all digests that begin alike: others that come and go matter little then.
#[derive(Debug)]
pub struct Renamings(Vec<AtomicU64>);

impl Default for Renamings {
    fn default() -> Self {
        Self((0..256).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Renamings {
    /// How often that was so of digests like this one.
    pub fn count(&self, digest: Digest) -> u64 {
        self.of(digest).load(Ordering::Acquire)
    }

    /// Notes that the name means another file from now on, or none.
    pub fn note(&self, digest: Digest) {
        self.of(digest).fetch_add(1, Ordering::AcqRel);
    }

    fn of(&self, digest: Digest) -> &AtomicU64 {
        &self.0[usize::from(digest.as_bytes()[0])]
    }
}
