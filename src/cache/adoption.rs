//! Blobs that lie in the store and of which the database knows nothing: it is new, or a crash came before it was written, or
//! somebody put them there. Each is read once before anybody gets it, and adopted if it is what it is called.

use std::io;
use std::sync::Arc;

use crate::cache::lease::Lent;
use crate::cache::{Cache, blocking, lock};
use crate::digest::{Digest, Expected};

impl Cache {
    /// The blobs that nobody has read yet.
    pub fn strangers(&self) -> Vec<Digest> {
        lock(&self.strangers).iter().copied().collect()
    }

    /// Notes that a blob is what it is called, or that it is gone.
    pub fn adopt(&self, digest: Digest) {
        lock(&self.strangers).remove(&digest);
    }

    /// Finds a blob that is held, and has it read first if nobody has. Those who want the same one meanwhile wait.
    pub(in crate::cache) async fn find_with_a_look(self: &Arc<Self>, expected: Expected) -> io::Result<Option<Lent>> {
        let turn = match self.digest(expected).filter(|digest| self.is_stranger(*digest)) {
            Some(_) => Some(self.adopting.acquire().await.map_err(io::Error::other)?),
            None => None,
        };
        let cache = Arc::clone(self);
        let found = blocking(move || cache.find_on_disk(expected)).await;
        drop(turn);
        found
    }

    /// Whether a blob may be given to hosts: it is no stranger, or it is adopted now. One that is not what it is called leaves
    /// the store. Waits for the disk.
    pub(in crate::cache) fn may_be_given(&self, digest: Digest) -> io::Result<bool> {
        if !self.is_stranger(digest) {
            return Ok(true);
        }
        let is_right = self.is_intact(digest)?;
        if is_right {
            tracing::info!(%digest, "a file that the database did not know is adopted");
        } else {
            tracing::error!(%digest, "a file that the database did not know is not what it is called; it leaves the store");
            self.discard_broken(digest)?;
        }
        self.adopt(digest);
        Ok(is_right)
    }

    fn is_stranger(&self, digest: Digest) -> bool {
        lock(&self.strangers).contains(&digest)
    }
}
