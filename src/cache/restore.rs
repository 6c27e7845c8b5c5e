//! The ledger at the start: what the database had, made true of what lies in the store.

use std::io;

use foldhash::HashSet;
use jiff::Timestamp;

use crate::cache::{Cache, lock};
use crate::digest::Digest;
use crate::ledger::Ledger;
use crate::ledger::account::Account;
use crate::ledger::record::Record;
use crate::store::{Store, decisions, facts, records};

/// Makes what the database had true of the store. Images that it does not know of, because it is new or was not written to
/// the end, are read from their own files; that they are used now is better than that they go at once.
pub fn restore(store: &Store, mut ledger: Ledger, now: Timestamp) -> io::Result<Ledger> {
    for (claim, digest) in facts::all_learnt(&**store.disk(), store.layout())? {
        ledger.learn(claim, digest);
    }
    // The database may be a batch behind what people decided.
    for fingerprint in decisions::list(&**store.disk(), store.layout())? {
        let decision = decisions::load(&**store.disk(), store.layout(), fingerprint)?;
        ledger.amend(fingerprint, |record| decision.apply(record));
    }
    // Nobody knows then that what it does not know is not there.
    if let Err(error) = compare(&mut ledger, store, now) {
        tracing::error!(%error, "the store could not be looked through; what its database does not know of counts when it is asked for");
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

/// Notes blobs that the database did not know of, and strikes out those that are not there. A file is only looked at if it
/// was not known: where there are very many, names alone are read in a moment.
fn compare(ledger: &mut Ledger, store: &Store, now: Timestamp) -> io::Result<()> {
    let (mut known, mut found) = (0, Vec::new());
    store.each_digest(|digest| if ledger.blob(digest).is_some() { known += 1 } else { found.push(digest) })?;
    let lost = if known < ledger.blobs().len() { lost(ledger, store)? } else { Vec::new() };
    for digest in &lost {
        for record in ledger.strike_lost(*digest) {
            say_lost(&record, *digest);
            if let Err(error) = records::remove(&**store.disk(), store.layout(), record.fingerprint) {
                tracing::warn!(fingerprint = %record.fingerprint, %error, "what was noted of an image could not be removed");
            }
        }
    }
    for digest in &found {
        match store.blob(*digest) {
            Ok(Some(blob)) => ledger.find(blob.digest, blob.size, now),
            Ok(None) => {}
            Err(error) => tracing::warn!(%digest, %error, "a blob could not be looked at"),
        }
    }
    if (found.len(), lost.len()) != (0, 0) {
        tracing::warn!(found = found.len(), lost = lost.len(), "the store had other files than its database knew of; now it knows");
    }
    Ok(())
}

/// The blobs that are not in the store.
fn lost(ledger: &Ledger, store: &Store) -> io::Result<Vec<Digest>> {
    let mut there = HashSet::default();
    store.each_digest(|digest| there.extend([digest]))?;
    Ok(ledger.blobs().map(|(digest, _)| digest).filter(|digest| !there.contains(digest)).collect())
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

fn say_lost(record: &Record, digest: Digest) {
    tracing::warn!(fingerprint = %record.fingerprint, %digest, "an image is not whole any more: one of its files is gone or damaged");
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
        // What is open is closed after the locks: the last one who closes a file without a name waits until it is gone.
        let (there, lost, is_gone, _closed) = {
            let _flights = lock(&self.flights);
            let there = self.store.blob(digest)?.map(|blob| blob.size);
            let now = self.now();
            // A commit may note it until the ledger is changed.
            let (lost, is_gone, closed) = self.books.change(|ledger| {
                let before = known(ledger);
                if before == there {
                    return (Vec::new(), false, None);
                }
                let closed = self.open.take(digest);
                let lost = ledger.strike_lost(digest);
                ledger.account.release(before.unwrap_or_default());
                if let Some(size) = there {
                    ledger.find(digest, size, now);
                    ledger.account.settle(0, 0, size);
                }
                (lost, before.is_some(), closed)
            });
            (there, lost, is_gone, closed)
        };
        lost.iter().for_each(|record| say_lost(record, digest));
        if is_gone {
            self.tell_lost(digest, lost);
        }
        Ok(there == seen)
    }
}
