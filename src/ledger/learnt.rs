//! The files whose documents give another hash than their digest: what these claim, and which blob that means.

use foldhash::HashMap;

use crate::digest::{Claim, Digest};
use crate::ledger::record::Piece;

/// Claims and digests of the same files, both ways.
#[derive(Clone, Debug, Default)]
pub struct Learnt {
    claims: HashMap<Digest, Claim>,
    digests: HashMap<Claim, Digest>,
}

impl Learnt {
    /// Notes what documents claim of a blob, unless that is its digest.
    pub fn note(&mut self, claim: Claim, digest: Digest) {
        if claim != Claim::Sha256(digest) {
            self.claims.insert(digest, claim);
            self.digests.insert(claim, digest);
        }
    }

    /// Notes what is claimed of the files of an image. What is recorded can be found, also if everything else that tells what it is
    /// called was lost.
    pub fn note_pieces(&mut self, pieces: &[Piece]) {
        pieces.iter().for_each(|piece| self.note(piece.expected().claim, piece.digest));
    }

    /// The digest of the file of which this is claimed, if the claim or an earlier download told.
    pub fn digest_of(&self, claim: Claim) -> Option<Digest> {
        match claim {
            Claim::Sha256(digest) => Some(digest),
            claim => self.digests.get(&claim).copied(),
        }
    }

    /// What documents may claim of a blob.
    pub fn claims_of(&self, digest: Digest) -> impl Iterator<Item = Claim> {
        [Claim::Sha256(digest)].into_iter().chain(self.claims.get(&digest).copied())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Claim, Digest)> {
        self.digests.iter().map(|(claim, digest)| (*claim, *digest))
    }
}
