//! What the store holds, at one moment.

use foldhash::HashMap;

use crate::digest::{Claim, Digest, Expected};

/// All blobs, and the digests that were learnt of files whose documents give other hashes.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    sizes: HashMap<Digest, u64>,
    learnt: HashMap<Claim, Digest>,
}

impl Holdings {
    /// These blobs, with their sizes, and what was learnt.
    pub fn new(blobs: impl IntoIterator<Item = (Digest, u64)>, learnt: impl IntoIterator<Item = (Claim, Digest)>) -> Self {
        Self { sizes: blobs.into_iter().collect(), learnt: learnt.into_iter().collect() }
    }

    /// Whether a file is held, with the size that its document says.
    pub fn has(&self, expected: Expected) -> bool {
        let digest = expected.digest().or_else(|| self.learnt.get(&expected.claim).copied());
        let held = digest.and_then(|digest| self.sizes.get(&digest));
        held.is_some_and(|held| expected.allows(*held))
    }
}

#[cfg(test)]
mod tests {
    use crate::digest::{Claim, Digest, Expected};
    use crate::ledger::holdings::Holdings;

    #[test]
    fn a_file_is_held_by_its_digest_or_by_one_that_was_learnt_and_in_its_size() {
        let (digest, md5) = (Digest::of(b"abc"), Claim::Md5([7; 16]));
        let holdings = Holdings::new([(digest, 3)], [(md5, digest)]);
        for (claim, size, expected) in [
            (Claim::Sha256(digest), Some(3), true),
            (Claim::Sha256(digest), None, true),
            (Claim::Sha256(digest), Some(4), false),
            (md5, None, true),
            (Claim::Md5([8; 16]), None, false),
            (Claim::Sha256(Digest::of(b"abd")), None, false),
        ] {
            assert_eq!(holdings.has(Expected { claim, size }), expected, "{claim} {size:?}");
        }
    }
}
