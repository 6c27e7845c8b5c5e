//! The ledger at the start: out of the database, and out of what lies in the store where the database does not know.

use std::io;

use jiff::Timestamp;

use crate::cache::{Cache, Event, lock};
use crate::database::rows::Rows;
use crate::digest::Digest;
use crate::ledger::Ledger;
use crate::ledger::record::Record;
use crate::store::{Store, decisions, facts, records};

/// What a look through the store changed in the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Blobs that the ledger did not know of.
    pub found: usize,
    /// Blobs that are not there any more, or are not what they were.
    pub lost: usize,
}

/// Makes a ledger. Images that the database does not know of, because it is new or was not written to the end, are read
/// from their own files; that they are used now is better than that they go at once.
pub fn restore(store: &Store, rows: Rows, now: Timestamp) -> io::Result<Ledger> {
    let mut ledger = Ledger::of(rows.blobs, rows.images);
    for (claim, digest) in facts::all_learnt(&**store.disk(), store.layout())? {
        ledger.learn(claim, digest);
    }
    // The database may be a batch behind what people decided.
    for fingerprint in decisions::list(&**store.disk(), store.layout())? {
        let decision = decisions::load(&**store.disk(), store.layout(), fingerprint)?;
        ledger.amend(fingerprint, |record| decision.apply(record));
    }
    let partials: u64 = store.partials()?.iter().map(|partial| partial.len).sum();
    ledger.account.settle(0, 0, partials);
    for fingerprint in records::list(&**store.disk(), store.layout())? {
        if ledger.image(fingerprint).is_none()
            && let Some(record) = records::load(&**store.disk(), store.layout(), fingerprint)
        {
            // One that cannot be looked at now is looked at by the next start; nobody knows that it is not there.
            if let Err(error) = adopt(&mut ledger, store, Record { last_used_at: now, ..record }, now) {
                tracing::warn!(%fingerprint, %error, "an image could not be looked at");
            }
        }
    }
    Ok(ledger)
}

/// Notes an image, if all its files are there.
fn adopt(ledger: &mut Ledger, store: &Store, mut record: Record, now: Timestamp) -> io::Result<()> {
    decisions::load(&**store.disk(), store.layout(), record.fingerprint)?.apply(&mut record);
    for piece in &record.pieces {
        if ledger.blob(piece.digest).is_none()
            && let Some(blob) = store.blob(piece.digest)?.filter(|blob| blob.size == piece.size)
        {
            admit(ledger, blob.digest, blob.size, now);
        }
    }
    let fingerprint = record.fingerprint;
    if !ledger.record(record) {
        records::remove(&**store.disk(), store.layout(), fingerprint)?;
    }
    Ok(())
}

fn admit(ledger: &mut Ledger, digest: Digest, size: u64, at: Timestamp) {
    let before = ledger.admit(digest, size, at).unwrap_or_default();
    ledger.account.release(before);
    ledger.account.settle(0, 0, size);
}

impl Cache {
    /// Compares the ledger with what lies in the store, which is right, and mends the ledger. Waits for the disk.
    pub fn reconcile(&self) -> io::Result<Difference> {
        let mut difference = Difference::default();
        let mut there = self.store.blobs()?;
        there.sort_unstable();
        for (digest, size) in &there {
            if self.books.read(|ledger| ledger.blob(*digest).is_none_or(|held| held.size != *size)) {
                difference.found += usize::from(self.correct(*digest)?);
            }
        }
        let held: Vec<Digest> = self.books.read(|ledger| ledger.blobs().map(|(digest, _)| digest).collect());
        for digest in held.into_iter().filter(|digest| there.binary_search_by_key(digest, |(there, _)| *there).is_err()) {
            difference.lost += usize::from(self.correct(digest)?);
        }
        if difference.found > 0 {
            self.tell(Event::Found);
        }
        Ok(difference)
    }

    /// Makes the ledger true of one blob; whether it was not. Meanwhile nothing goes, and what arrives is seen.
    fn correct(&self, digest: Digest) -> io::Result<bool> {
        let _flights = lock(&self.flights);
        let there = self.store.blob(digest)?.map(|blob| blob.size);
        let known = self.books.read(|ledger| ledger.blob(digest).map(|held| held.size));
        if there == known {
            return Ok(false);
        }
        self.open.invalidate(&digest);
        let now = self.now();
        let lost = self.books.change(|ledger| {
            let lost = ledger.strike_lost(digest);
            ledger.account.release(known.unwrap_or_default());
            there.into_iter().for_each(|size| admit(ledger, digest, size, now));
            lost
        });
        for record in lost {
            tracing::warn!(fingerprint = %record.fingerprint, %digest, "an image is not whole any more: one of its files is gone or damaged");
            self.forget_record(record.fingerprint);
            self.tell(Event::Left(record.remote));
        }
        Ok(true)
    }
}
