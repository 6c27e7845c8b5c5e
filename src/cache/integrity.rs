//! Whether a blob is still what it is called.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use crate::cache::{Cache, lock};
use crate::digest::{Claim, Digest, Expected, Fingerprint, Hasher};
use crate::ledger::decision::Decision;
use crate::ledger::record::Record;
use crate::store::blob::{Blob, Identity};
use crate::store::{Store, decisions, records};

const READ_BYTES: usize = 256 * 1024;

/// A blob that is read again, piece by piece. It is open only for as long as a piece takes: one that leaves the store between two
/// of them would take room, hours long, that nobody counts.
pub struct Reading {
    store: Arc<Store>,
    digest: Digest,
    file: Identity,
    hasher: Hasher,
    buffer: Vec<u8>,
}

/// What came of reading a piece.
pub enum Piece {
    /// So many bytes, and there may be more.
    Read(u64, Box<Reading>),
    /// That was all.
    Over(Verdict),
}

/// What came of reading a file: the verdict is on that file, and on no other one that has its name by then.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is what it is called.
    Right(Blob),
    /// It is not.
    Wrong(Blob),
    /// It left while it was read, or another one took its place.
    Gone,
}

impl Cache {
    /// Reads a blob again, if it is there. Waits for the disk.
    pub fn examine(&self, digest: Digest) -> io::Result<Option<Verdict>> {
        let mut next = self.reread(digest)?;
        while let Some(reading) = next {
            match reading.advance()? {
                Piece::Read(_, reading) => next = Some(*reading),
                Piece::Over(verdict) => return Ok(Some(verdict)),
            }
        }
        Ok(None)
    }

    /// Begins to read a blob again, if it is there; if not, the ledger knows then. Waits for the disk.
    pub fn reread(&self, digest: Digest) -> io::Result<Option<Reading>> {
        Ok(self.look_at(digest)?.map(|blob| Reading::of(&blob, Arc::clone(&self.store))))
    }

    /// Looks for a blob, of which the ledger knows then whether it is there. Waits for the disk.
    pub fn look_at(&self, digest: Digest) -> io::Result<Option<Blob>> {
        let blob = self.store.blob(digest)?;
        // One that is wrong and could not be taken away counts no more, and is not to be found again.
        if blob.is_none() || !self.broken.contains_key(&digest) {
            self.correct(digest, blob.as_ref().map(|blob| blob.size))?;
        }
        Ok(blob)
    }

    /// Gives a blob to nobody whose bytes were found to be wrong, until a good one takes its place. Whoever reads it is cut off.
    /// While it was read another file may have taken its place, and that one stays: whether this one was there. Waits for the disk.
    pub fn withhold(&self, wrong: &Blob) -> io::Result<bool> {
        let _flights = lock(&self.flights);
        self.withhold_now(wrong)
    }

    /// The same for whoever has the lock.
    fn withhold_now(&self, wrong: &Blob) -> io::Result<bool> {
        let digest = wrong.digest;
        // Whoever has just taken it, or still reads it after another one took its place, is to know.
        if let Some(open) = self.open.get(digest).filter(|open| open.is_same_file(wrong)) {
            open.note_wrong();
            self.open.close(digest);
        }
        self.leases.call_in(wrong);
        // Before that look: who gets a good one that takes its place after it is none of them.
        let others = self.leases.others(wrong);
        let is_there = self.is_there(wrong);
        // Also whoever opened it and has not got it yet.
        self.renamings.note(digest);
        if matches!(is_there, Ok(false)) {
            return Ok(false);
        }
        // Also if nobody knows, or if it cannot be taken away.
        self.broken.insert(digest, ());
        self.open.close(digest);
        others.call_in();
        is_there
    }

    /// Takes a blob out of the store whose bytes were found to be wrong, with the images that need it. Whether it was there.
    pub fn discard_broken(&self, wrong: &Blob) -> io::Result<bool> {
        let digest = wrong.digest;
        let (lost, taken) = {
            let _flights = lock(&self.flights);
            if !self.withhold_now(wrong)? {
                return Ok(false);
            }
            let (size, lost) = self.books.change(|ledger| {
                let size = ledger.blob(digest).map_or(0, |held| held.size);
                (size, ledger.strike_lost(digest))
            });
            // One that stays where it is counts no more, for a good one will take its place. One that has done so since that look
            // goes with it, and is fetched again.
            let taken = self.take_away(digest, size).inspect_err(|_| self.books.lost(size));
            (lost, taken)
        };
        self.metrics.digest_mismatched("scrub");
        self.tell_changed(digest, lost);
        taken?;
        self.broken.invalidate(&digest);
        self.empty_trash()?;
        Ok(true)
    }

    /// Gives nobody another file than this one, which was read: somebody put it in the place of the one that is open, and nobody
    /// knows what that one is by now. Whoever reads it is cut off.
    pub fn forget_others(&self, read: &Blob) {
        self.renamings.note(read.digest);
        if self.open.get(read.digest).is_some_and(|open| !open.is_same_file(read)) {
            self.open.close(read.digest);
        }
        self.leases.others(read).call_in();
    }

    /// Whether a file still has its name. Waits for the disk.
    pub fn is_there(&self, blob: &Blob) -> io::Result<bool> {
        Ok(self.store.blob(blob.digest)?.is_some_and(|there| there.is_same_file(blob)))
    }

    /// Tells of a blob that came, went or is another one now, and lets go of the images that cannot be had without it.
    pub fn tell_changed(&self, digest: Digest, lost: Vec<Record>) {
        for record in &lost {
            if !self.was_let_go(record.fingerprint) {
                tracing::warn!(fingerprint = %record.fingerprint, %digest, "an image is not whole any more: one of its files is gone or damaged");
                self.forget_record(record.fingerprint);
                self.miss(record);
            }
        }
        self.tell(&[digest], lost.into_iter().map(|record| record.remote));
    }

    /// Whether an image went before, and only the database had not heard of it: it has no record, and nobody wants to keep it.
    fn was_let_go(&self, fingerprint: Fingerprint) -> bool {
        let (disk, layout) = (&**self.store.disk(), self.store.layout());
        let is_kept = |decision: Decision| decision.kept && !decision.is_over(self.now());
        !records::exists(disk, layout, fingerprint) && !decisions::load(disk, layout, fingerprint).is_ok_and(is_kept)
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
    fn of(blob: &Blob, store: Arc<Store>) -> Self {
        let expected = Expected { claim: Claim::Sha256(blob.digest), size: Some(blob.size) };
        Self { store, digest: blob.digest, file: blob.identity(), hasher: Hasher::new(expected), buffer: vec![0; READ_BYTES] }
    }

    /// Reads the next piece. Waits for the disk.
    pub fn advance(mut self) -> io::Result<Piece> {
        let Some(blob) = self.store.blob(self.digest)?.filter(|blob| blob.identity() == self.file) else {
            return Ok(Piece::Over(Verdict::Gone));
        };
        let read = blob.file().read_at(&mut self.buffer, self.hasher.len())?;
        if read > 0 {
            self.hasher.update(&self.buffer[..read]);
            return Ok(Piece::Read(read as u64, Box::new(self)));
        }
        let is_right = self.hasher.verify().is_ok();
        Ok(Piece::Over(if is_right { Verdict::Right(blob) } else { Verdict::Wrong(blob) }))
    }
}
