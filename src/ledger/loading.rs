//! A ledger in the making, row by row out of what was written down: putting all in order at once at the end takes a
//! fraction of the time that one by one would take, and nothing is in memory twice.

use jiff::Timestamp;

use crate::digest::Digest;
use crate::ledger::record::Record;
use crate::ledger::{Held, Ledger, Unit, own_digests};

/// A ledger that is not in order yet. Its account is made when it is known what is really there.
#[derive(Debug, Default)]
pub struct Loading(Ledger);

impl Loading {
    /// A ledger with room for so many blobs and images.
    pub fn with_room(blobs: usize, images: usize) -> Self {
        let mut ledger = Ledger::default();
        ledger.blobs.reserve(blobs);
        ledger.images.reserve(images);
        Self(ledger)
    }

    /// Takes a blob.
    pub fn blob(&mut self, digest: Digest, size: u64, last_used_at: Timestamp) {
        self.0.blobs.insert(digest, Held { size, last_used_at, images: Box::default() });
    }

    /// Takes an image, after all blobs. One of which a blob is missing is left out.
    pub fn image(&mut self, record: Record) {
        let Ledger { blobs, images, learnt, .. } = &mut self.0;
        if record.pieces.iter().all(|piece| blobs.contains_key(&piece.digest)) {
            for digest in own_digests(&record) {
                blobs.entry(digest).and_modify(|held| held.add_image(record.fingerprint));
            }
            learnt.note_pieces(&record.pieces);
            images.insert(record.fingerprint, record);
        }
    }

    /// The ledger, in order.
    pub fn finish(self) -> Ledger {
        let mut ledger = self.0;
        let images = ledger.images.values().map(|record| (record.last_used_at, Unit::Image(record.fingerprint)));
        let loose = ledger.blobs.iter().filter(|(_, held)| held.images.is_empty());
        ledger.by_last_use = images.chain(loose.map(|(digest, held)| (held.last_used_at, Unit::Blob(*digest)))).collect();
        ledger
    }
}
