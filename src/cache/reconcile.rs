//! The ledger and the names in the store. A ledger out of a whole database is nearly always true, and what is not is found out
//! while hosts are served: a large store on a slow disk takes long to look through.

use std::io;

use foldhash::HashSet;

use crate::cache::Cache;
use crate::cache::books::Counting;
use crate::digest::Digest;

/// So many folders of blobs are looked at together: of a large store no more than a part is in memory twice.
const FOLDERS: u8 = 4;

/// Where the ledger and the store differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// What lies in the store, and the ledger does not know of it.
    pub found: Vec<Digest>,
    /// What the ledger knows of, and it is not there.
    pub lost: Vec<Digest>,
}

impl Differences {
    /// What only one of both has.
    pub fn between(known: &HashSet<Digest>, there: &HashSet<Digest>) -> Self {
        Self { found: there.difference(known).copied().collect(), lost: known.difference(there).copied().collect() }
    }
}

impl Cache {
    /// Makes the ledger true of the store, while files come and go. Until it is, nobody is promised room. Waits for the disk.
    pub fn reconcile(&self, _counting: Counting) {
        let (mut found, mut lost) = (0, 0);
        for first in (0..=u8::MAX).step_by(usize::from(FOLDERS)) {
            let Differences { found: strangers, lost: missing } = match self.differences(first) {
                Ok(differences) => differences,
                // Nobody knows then that what it does not know is not there.
                Err(error) => {
                    tracing::error!(%error, "the store could not be looked through; what its database does not know of counts when it is asked for");
                    return;
                }
            };
            (found, lost) = (found + strangers.len(), lost + missing.len());
            strangers.into_iter().chain(missing).for_each(|digest| self.look_at(digest));
        }
        if (found, lost) != (0, 0) {
            tracing::warn!(found, lost, "the store had other files than its database knew of; now it knows");
        }
    }

    /// The differences in some folders, from this one on.
    fn differences(&self, first: u8) -> io::Result<Differences> {
        let folders = first..=first.saturating_add(FOLDERS - 1);
        let is_in = |digest: &Digest| folders.contains(&digest.as_bytes()[0]);
        let known = self.books().read(|ledger| ledger.blobs().map(|(digest, _)| digest).filter(is_in).collect());
        let mut there = HashSet::default();
        for folder in folders.clone() {
            there.extend(self.store().digests(folder)?);
        }
        Ok(Differences::between(&known, &there))
    }

    fn look_at(&self, digest: Digest) {
        let seen = self.store().blob(digest).map(|blob| blob.map(|blob| blob.size));
        if let Err(error) = seen.and_then(|seen| self.correct(digest, seen)) {
            tracing::warn!(%digest, %error, "a blob could not be looked at");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cache::reconcile::Differences;
    use crate::digest::Digest;

    #[test]
    fn what_only_one_of_both_has_is_the_difference() {
        let [one, both, other] = ["one", "both", "other"].map(|name| Digest::of(name.as_bytes()));
        let differences = Differences::between(&[one, both].into_iter().collect(), &[both, other].into_iter().collect());
        assert_eq!(differences, Differences { found: vec![other], lost: vec![one] });
    }
}
