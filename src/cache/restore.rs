//! The ledger at the start: what the database had, and what it may not know of yet.

use std::io;

use jiff::Timestamp;

use crate::cache::{Cache, lock};
use crate::digest::Digest;
use crate::ledger::Ledger;
use crate::ledger::account::Account;
use crate::ledger::record::Record;
use crate::store::{Store, decisions, facts, records};

/// Makes a ledger of what the database had, and of what it may not know of: what people decided since, and images whose own files
/// say that they are held; that these are used now is better than that they go at once. Without a database it is made of all that
/// lies in the store.
pub fn restore(store: &Store, known: Option<Ledger>, now: Timestamp) -> io::Result<Ledger> {
    let is_new = known.is_none();
    let mut ledger = known.unwrap_or_default();
    for (claim, digest) in facts::all_learnt(&**store.disk(), store.layout())? {
        ledger.learn(claim, digest);
    }
    // The database may be a batch behind what people decided.
    for fingerprint in decisions::list(&**store.disk(), store.layout())? {
        let decision = decisions::load(&**store.disk(), store.layout(), fingerprint)?;
        ledger.amend(fingerprint, |record| decision.apply(record));
    }
    if is_new {
        gather(&mut ledger, store, now);
    }
    for fingerprint in records::list(&**store.disk(), store.layout())? {
        if ledger.image(fingerprint).is_none()
            && let Some(record) = records::load(&**store.disk(), store.layout(), fingerprint)
            // The next start looks at it again.
            && let Err(error) = adopt(&mut ledger, store, Record { last_used_at: now, ..record }, now)
        {
            tracing::warn!(%fingerprint, %error, "an image could not be looked at");
        }
    }
    let partials: u64 = store.partials()?.iter().filter(|partial| !partial.is_directory).map(|partial| partial.len).sum();
    let held = ledger.blobs().fold(partials, |held, (_, blob)| held.saturating_add(blob.size));
    ledger.account = Account::new(held);
    Ok(ledger)
}

/// Notes all blobs that are there. If they cannot be seen, nobody knows that what the ledger does not know of is not there.
fn gather(ledger: &mut Ledger, store: &Store, now: Timestamp) {
    let mut found = Vec::new();
    if let Err(error) = store.each_digest(|digest| found.push(digest)) {
        tracing::error!(%error, "the store could not be looked through; what lies in it counts when it is asked for");
    }
    for digest in found {
        match store.blob(digest) {
            Ok(Some(blob)) => ledger.find(blob.digest, blob.size, now),
            Ok(None) => {}
            Err(error) => tracing::warn!(%digest, %error, "a blob could not be looked at"),
        }
    }
}

/// Notes an image, if all its files are there. Of one that is not, nothing has to be known any more.
fn adopt(ledger: &mut Ledger, store: &Store, mut record: Record, now: Timestamp) -> io::Result<()> {
    decisions::load(&**store.disk(), store.layout(), record.fingerprint)?.apply(&mut record);
    for piece in &record.pieces {
        if ledger.blob(piece.digest).is_none()
            && let Some(blob) = store.blob(piece.digest)?
        {
            ledger.find(blob.digest, blob.size, now);
        }
    }
    let fingerprint = record.fingerprint;
    let is_whole = record.pieces.iter().all(|piece| ledger.blob(piece.digest).is_some_and(|held| held.size == piece.size));
    if !is_whole || !ledger.record(record) {
        records::remove(&**store.disk(), store.layout(), fingerprint)?;
    }
    Ok(())
}

impl Cache {
    /// Notes the images that people copied and that are not here: their bytes were found to be wrong, and the program ended
    /// before they could be had again.
    pub fn miss_what_was_kept(&self) -> io::Result<()> {
        let (disk, layout) = (&**self.store.disk(), self.store.layout());
        for fingerprint in decisions::list(disk, layout)? {
            let decision = decisions::load(disk, layout, fingerprint)?;
            if self.books.image(fingerprint).is_none() && decision.kept && !decision.is_over(self.now()) {
                lock(&self.missed).insert(fingerprint);
            }
        }
        Ok(())
    }

    /// Makes the ledger true of one blob that was looked at and has this size now; whether that is what it has. Meanwhile
    /// nothing goes, and what arrives is seen. Waits for the disk.
    pub fn correct(&self, digest: Digest, seen: Option<u64>) -> io::Result<bool> {
        let known = |ledger: &Ledger| ledger.blob(digest).map(|held| held.size);
        if seen == self.books.read(known) {
            return Ok(true);
        }
        let (there, lost, is_other) = {
            let _flights = lock(&self.flights);
            // Not under the ledger's lock: the last one who closes a file without a name waits until it is gone.
            self.open.close(digest);
            let there = self.store.blob(digest)?.map(|blob| blob.size);
            let now = self.now();
            // A commit may note it until the ledger is changed.
            let (lost, is_other) = self.books.change(|ledger| {
                let before = known(ledger);
                if before == there {
                    return (Vec::new(), false);
                }
                let lost = ledger.strike_lost(digest);
                ledger.account.release(before.unwrap_or_default());
                if let Some(size) = there {
                    ledger.find(digest, size, now);
                    ledger.account.settle(0, 0, size);
                }
                (lost, true)
            });
            (there, lost, is_other)
        };
        if is_other {
            self.tell_changed(digest, lost);
        }
        Ok(there == seen)
    }
}
