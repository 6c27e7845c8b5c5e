//! Whether a blob is still what it is called.

use std::io;

use crate::cache::{Cache, Event, lock};
use crate::digest::{Claim, Digest, Expected, Hasher};
use crate::store::blob::Blob;

const READ_BYTES: usize = 256 * 1024;

impl Cache {
    /// Whether the bytes of a blob have its digest. One that is not there is none that is broken. Waits for the disk.
    pub fn is_intact(&self, digest: Digest) -> io::Result<bool> {
        match self.store.blob(digest)? {
            Some(blob) => hash(&blob).map(|actual| actual == Some(digest)),
            None => Ok(true),
        }
    }

    /// Takes a broken blob out of the store, with the images that need it; whether nobody reads it.
    pub fn discard_broken(&self, digest: Digest) -> io::Result<bool> {
        let lost = {
            let _flights = lock(&self.flights);
            if self.leases.has(digest) {
                return Ok(false);
            }
            self.open.invalidate(&digest);
            self.store.discard_blob(digest)?;
            self.books.change(|ledger| {
                let size = ledger.blob(digest).map_or(0, |held| held.size);
                ledger.account.release(size);
                ledger.strike_lost(digest)
            })
        };
        self.store.remove_discarded(digest)?;
        self.metrics.digest_mismatched("scrub");
        for record in lost {
            self.forget_record(record.fingerprint);
            self.tell(Event::Left(record.remote));
        }
        Ok(true)
    }
}

fn hash(blob: &Blob) -> io::Result<Option<Digest>> {
    let mut hasher = Hasher::new(Expected { claim: Claim::Sha256(blob.digest), size: Some(blob.size) });
    let mut buffer = vec![0; READ_BYTES];
    while hasher.len() < blob.size {
        let read = blob.file().read_at(&mut buffer, hasher.len())?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    Ok(hasher.verify().ok())
}
