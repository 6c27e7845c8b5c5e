//! Whether a blob is still what it is called.

use std::collections::HashSet;
use std::io;

use crate::cache::{Cache, Event, lock};
use crate::digest::{Claim, Digest, Expected, Fingerprint, Hasher};
use crate::ledger::record::Record;
use crate::store::blob::Blob;

const READ_BYTES: usize = 256 * 1024;

/// A blob that is read again, piece by piece.
pub struct Reading {
    blob: Blob,
    hasher: Hasher,
    buffer: Vec<u8>,
}

impl Cache {
    /// Reads a blob again: the file, if its bytes do not have its digest. One that is not there is none that is broken. Waits for
    /// the disk.
    pub fn wrong(&self, digest: Digest) -> io::Result<Option<Blob>> {
        let Some(mut reading) = self.reread(digest)? else { return Ok(None) };
        while reading.advance()? > 0 {}
        Ok(reading.into_wrong())
    }

    /// Begins to read a blob again, if it is there; if not, the ledger knows then. Waits for the disk.
    pub fn reread(&self, digest: Digest) -> io::Result<Option<Reading>> {
        let blob = self.store.blob(digest)?;
        if !self.broken.contains_key(&digest) {
            self.correct(digest, blob.as_ref().map(|blob| blob.size))?;
        }
        Ok(blob.map(Reading::of))
    }

    /// Takes a blob out of the store whose bytes were found to be wrong, with the images that need it. Whoever reads it is cut off.
    /// While it was read another file may have taken its place, and that one stays: whether this one was there.
    pub fn discard_broken(&self, wrong: &Blob) -> io::Result<bool> {
        let digest = wrong.digest;
        let (lost, taken) = {
            let _flights = lock(&self.flights);
            // Whoever has just taken it, or still reads it after another one took its place, is to know.
            if let Some(open) = self.open.get(&digest).filter(|open| open.is_same_file(wrong)) {
                open.note_wrong();
                self.open.invalidate(&digest);
            }
            if !self.store.blob(digest)?.is_some_and(|blob| blob.is_same_file(wrong)) {
                return Ok(false);
            }
            // Also if it cannot be taken away nobody gets it any more.
            self.broken.insert(digest, ());
            self.open.invalidate(&digest);
            self.leases.call_in(digest);
            let (size, lost) = self.books.change(|ledger| {
                let size = ledger.blob(digest).map_or(0, |held| held.size);
                (size, ledger.strike_lost(digest))
            });
            // Before the lock is free: a good one may take its place right after. One that stays where it is counts no more, for
            // a good one will take its place.
            let taken = self.take_away(digest, size).inspect_err(|_| self.books.lost(size));
            (lost, taken)
        };
        self.metrics.digest_mismatched("scrub");
        for record in lost {
            self.forget_record(record.fingerprint);
            self.miss(&record);
            self.tell(Event::Left(record.remote));
        }
        taken?;
        self.broken.invalidate(&digest);
        self.empty_trash()?;
        Ok(true)
    }

    /// Notes that an image left because of its bytes, and not because anybody wanted it gone.
    pub fn miss(&self, record: &Record) {
        if record.stays() {
            lock(&self.missed).insert(record.fingerprint);
        }
    }

    /// The images that did.
    pub fn missed(&self) -> HashSet<Fingerprint> {
        lock(&self.missed).clone()
    }

    /// Notes that an image is here again.
    pub fn found_again(&self, fingerprint: Fingerprint) {
        lock(&self.missed).remove(&fingerprint);
    }
}

impl Reading {
    fn of(blob: Blob) -> Self {
        let expected = Expected { claim: Claim::Sha256(blob.digest), size: Some(blob.size) };
        Self { blob, hasher: Hasher::new(expected), buffer: vec![0; READ_BYTES] }
    }

    /// Reads the next piece; how many bytes it has, none at the end. Waits for the disk.
    pub fn advance(&mut self) -> io::Result<u64> {
        let read = self.blob.file().read_at(&mut self.buffer, self.hasher.len())?;
        self.hasher.update(&self.buffer[..read]);
        Ok(read as u64)
    }

    /// The file, if what was read, which is all of it, does not have its digest.
    pub fn into_wrong(self) -> Option<Blob> {
        self.hasher.verify().is_err().then_some(self.blob)
    }
}
