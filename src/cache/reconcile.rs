//! The ledger and the names in the store. A ledger out of a whole database is nearly always true, and what is not is found out
//! while hosts are served: a large store on a slow disk takes long to look through.

use std::ops::RangeInclusive;

use foldhash::HashSet;

use crate::cache::Cache;
use crate::digest::Digest;

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
    /// Makes the ledger true of the blobs that begin with these bytes, while files come and go; what the differences were. Waits for
    /// the disk.
    pub fn reconcile(&self, folders: RangeInclusive<u8>) -> Differences {
        let (mut there, mut seen) = (HashSet::default(), HashSet::default());
        for folder in folders {
            match self.store().digests(folder) {
                Ok(digests) => {
                    there.extend(digests);
                    seen.insert(folder);
                }
                // Nobody knows then that what it does not know is not there.
                Err(error) => {
                    tracing::error!(folder, %error, "a folder of the store could not be looked through; what its database does not know of counts when it is asked for");
                }
            }
        }
        let was_seen = |digest: &Digest| seen.contains(&digest.as_bytes()[0]);
        let known = self.books().read(|ledger| ledger.blobs().map(|(digest, _)| digest).filter(was_seen).collect());
        let differences = Differences::between(&known, &there);
        for digest in differences.found.iter().chain(&differences.lost) {
            if let Err(error) = self.look_at(*digest) {
                tracing::warn!(%digest, %error, "a blob could not be looked at");
            }
        }
        differences
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
