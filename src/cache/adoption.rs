//! Blobs that lie in the store and that nobody remembers to have verified: the database is new, or a crash came before it was
//! written, or somebody put them there. Each is read once before anybody gets it, and adopted if it is what it is called.

use std::io;
use std::sync::Arc;

use crate::cache::integrity::Verdict;
use crate::cache::lease::Lent;
use crate::cache::{Cache, blocking, lock};
use crate::digest::{Digest, Expected};
use crate::store::blob::Blob;

/// What is no larger than this is read in a moment, and does not wait for what takes minutes.
const SMALL_BYTES: u64 = 64 << 20;

impl Cache {
    /// Whether the blob that is meant has to be read before anybody gets it.
    pub fn is_stranger(&self, expected: Expected) -> bool {
        // Nearly always there is none.
        self.digest(expected).is_some_and(|digest| self.books.read(|ledger| ledger.is_stranger(digest)))
    }

    /// All blobs that have to be.
    pub fn strangers(&self) -> Vec<Digest> {
        self.books.read(|ledger| ledger.strangers().collect())
    }

    /// Finds a blob that is held, and has it read first if it is a stranger. Whoever calls this does so once for all who wait.
    pub async fn find_or_adopt(self: &Arc<Self>, expected: Expected) -> io::Result<Option<Lent>> {
        self.adopt_if_strange(expected).await?;
        let found = self.find(expected).await?;
        // Nobody knew of it before that look, if it was put there while the program runs.
        if found.is_some() || !self.adopt_if_strange(expected).await? {
            return Ok(found);
        }
        self.find(expected).await
    }

    /// Has a blob read in its turn if it is a stranger; whether it was.
    async fn adopt_if_strange(self: &Arc<Self>, expected: Expected) -> io::Result<bool> {
        let Some(digest) = self.digest(expected).filter(|_| self.is_stranger(expected)) else { return Ok(false) };
        let is_large = self.books.read(|ledger| ledger.blob(digest).is_some_and(|held| held.size > SMALL_BYTES));
        let turns = Arc::clone(&self.adopting[usize::from(is_large)]);
        let turn = turns.acquire_owned().await.map_err(io::Error::other)?;
        let cache = Arc::clone(self);
        // The turn is over when the reading is, whoever still waits for it.
        let read = move || {
            let _turn = turn;
            cache.adopt(digest)
        };
        blocking(read).await.map(|()| true)
    }

    /// Reads a stranger. One that is not what it is called leaves the store. Waits for the disk.
    pub fn adopt(&self, digest: Digest) -> io::Result<()> {
        if !self.books.read(|ledger| ledger.is_stranger(digest)) {
            return Ok(());
        }
        match self.examine(digest)? {
            None | Some(Verdict::Gone) => {}
            Some(Verdict::Right(blob)) => {
                let is_adopted = self.vouch(&blob)?;
                tracing::info!(%digest, is_adopted, "a file that the database did not know is what it is called");
            }
            Some(Verdict::Wrong(blob)) => {
                tracing::error!(%digest, "a file that the database did not know is not what it is called; it leaves the store");
                self.discard_broken(&blob)?;
            }
        }
        Ok(())
    }

    /// Notes that a file was read and is right, unless another one has its name by now: a stranger is adopted, and nobody gets
    /// what was open under that name before. Whether it is there. Waits for the disk.
    pub fn vouch(&self, right: &Blob) -> io::Result<bool> {
        loop {
            let renamed = self.renamings.count(right.digest);
            if !self.is_there(right)? {
                return Ok(false);
            }
            let _flights = lock(&self.flights);
            if self.renamings.count(right.digest) == renamed {
                self.forget_others(right);
                // Somebody may have put it there in the place of one that was wrong.
                self.broken.invalidate(&right.digest);
                if self.books.read(|ledger| ledger.is_stranger(right.digest)) {
                    self.books.change(|ledger| ledger.adopt(right.digest));
                }
                return Ok(true);
            }
        }
    }
}
