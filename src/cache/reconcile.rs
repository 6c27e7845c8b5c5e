//! The ledger and the names in the store. A ledger out of a whole database is nearly always true, and what is not is found out
//! while hosts are served: a large store on a slow disk takes long to look through.

use std::io;

use crate::cache::Cache;
use crate::cache::books::Counting;
use crate::digest::Digest;
use crate::store::Store;

/// Where the ledger and the store differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// What lies in the store, and the ledger does not know of it.
    pub found: Vec<Digest>,
    /// What the ledger knows of, and it is not there.
    pub lost: Vec<Digest>,
}

impl Differences {
    /// Looks through the names of a store; no file is touched.
    pub fn between(store: &Store, mut known: Vec<Digest>) -> io::Result<Self> {
        known.sort_unstable();
        let (mut is_there, mut found) = (vec![false; known.len()], Vec::new());
        store.each_digest(|digest| match known.binary_search(&digest) {
            Ok(at) => is_there[at] = true,
            Err(_) => found.push(digest),
        })?;
        let lost = known.into_iter().zip(is_there).filter(|(_, is_there)| !is_there).map(|(digest, _)| digest).collect();
        Ok(Self { found, lost })
    }

    /// Says so in the log, if there are any.
    pub fn say(&self) {
        let (found, lost) = (self.found.len(), self.lost.len());
        if (found, lost) != (0, 0) {
            tracing::warn!(found, lost, "the store has other files than its database knew of; now it knows");
        }
    }
}

impl Cache {
    /// Makes the ledger true of the store, while files come and go. Until it is, nobody is promised room. Waits for the disk.
    pub fn reconcile(&self, _counting: Counting) {
        let known = self.books().read(|ledger| ledger.blobs().map(|(digest, _)| digest).collect());
        match Differences::between(self.store(), known) {
            Ok(differences) => {
                differences.say();
                differences.found.into_iter().chain(differences.lost).for_each(|digest| self.look_at(digest));
            }
            // Nobody knows then that what it does not know is not there.
            Err(error) => {
                tracing::error!(%error, "the store could not be looked through; what its database does not know of counts when it is asked for");
            }
        }
    }

    fn look_at(&self, digest: Digest) {
        let seen = self.store().blob(digest).map(|blob| blob.map(|blob| blob.size));
        if let Err(error) = seen.and_then(|seen| self.correct(digest, seen)) {
            tracing::warn!(%digest, %error, "a blob could not be looked at");
        }
    }
}
