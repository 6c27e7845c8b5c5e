//! Carries out what retention says: units leave the store under the lock that fetches begin under, and their bytes are
//! removed outside of it.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use foldhash::HashSet;

use crate::cache::{Cache, lock};
use crate::catalog::listing::Listing;
use crate::digest::{Digest, Fingerprint};
use crate::ledger::Unit;
use crate::ledger::record::{Fate, Owner, Reason, Record};
use crate::retention::{self, Deed, Need, Scene, Sentence};
use crate::store::{decisions, records};

impl Cache {
    /// What is due by its time.
    pub fn due(&self) -> Vec<Sentence> {
        self.decide(retention::due)
    }

    /// Lets go of what is due by its time; what went.
    pub fn prune(&self) -> Vec<Sentence> {
        self.carry_out(self.due())
    }

    /// Lets go of an image that a person wants gone; whether nobody reads it.
    pub fn delete(&self, record: &Record) -> bool {
        let sentence = self.decide(|scene| retention::deletion(scene, record));
        sentence.is_some_and(|sentence| !self.carry_out(vec![sentence]).is_empty())
    }

    /// Lets images of a remote leave that stay on nobody's account: neither upstream nor we list them any more. One that
    /// upstream lists again stays.
    pub fn settle_withdrawn(&self, remote: &str, listing: &Listing) {
        let now = self.now();
        self.books.change(|ledger| {
            let fates: Vec<(Fingerprint, Fate)> = ledger
                .images()
                .filter(|record| *record.remote == *remote && record.public)
                .filter_map(|record| match (record.fate, listing.has_image(record.fingerprint)) {
                    // What a person keeps goes when that person says so.
                    (Fate::Stays, false) if record.owner != Owner::Operator => {
                        Some((record.fingerprint, Fate::Leaves(now, Reason::Withdrawn)))
                    }
                    (Fate::Leaves(_, Reason::Withdrawn), true) => Some((record.fingerprint, Fate::Stays)),
                    _ => None,
                })
                .collect();
            fates.into_iter().for_each(|(fingerprint, fate)| ledger.set_fate(fingerprint, fate));
        });
    }

    /// Makes room for `wanted` bytes more, if that is to be had. Waits for the disk.
    pub fn make_room(&self, wanted: u64) -> io::Result<()> {
        let mut need = self.books.need(wanted, self.space()?.free);
        if need.least > 0 && !self.victims(need).is_some_and(|victims| frees(&victims, need.least)) {
            // What is left of downloads that broke off is worth less than anything else.
            self.sweep(self.now().try_into().unwrap_or(SystemTime::UNIX_EPOCH))?;
            need = self.books.need(wanted, self.space()?.free);
        }
        if need.least > 0 {
            self.carry_out(self.victims(need).unwrap_or_default());
        }
        Ok(())
    }

    /// How many bytes are lacking for `wanted` bytes more, if everything goes that may go at once and is not to be kept, and what is
    /// left of fetches that broke off.
    pub fn lacking(&self, wanted: u64, is_kept: &dyn Fn(Digest) -> bool) -> io::Result<u64> {
        let need = self.books.need(wanted, self.space()?.free);
        if need.least == 0 {
            return Ok(0);
        }
        let removable = self.decide(|scene| retention::removable(scene, is_kept));
        Ok(need.least.saturating_sub(removable).saturating_sub(self.leftovers()?))
    }

    /// Lets go of what is too much, if enough of it may go at once. What only we hold is not unlisted for that: others may have
    /// filled the file system, and empty it again.
    pub fn shrink(&self) -> io::Result<()> {
        let need = self.books.need(0, self.space()?.free);
        if need.least > 0 {
            let mut victims = self.victims(need).unwrap_or_default();
            victims.retain(|sentence| sentence.deed == Deed::Remove);
            self.carry_out(victims);
        }
        Ok(())
    }

    /// Lets go of blobs that are part of no image and that nobody lists or reads.
    pub fn let_go(&self, blobs: &HashSet<Digest>) {
        self.carry_out(self.decide(|scene| retention::loose(scene, &|digest| blobs.contains(&digest))));
    }

    fn victims(&self, need: Need) -> Option<Vec<Sentence>> {
        self.decide(|scene| retention::victims(scene, need))
    }

    fn decide<T>(&self, decide: impl FnOnce(&Scene<'_>) -> T) -> T {
        let (catalog, rules, now) = (self.current.load(), self.rules(), self.now());
        // What came in part is of use to nobody yet, and nobody can send for it.
        let is_leased = |digest| self.leases.has(digest) || self.begun.has(digest);
        self.books.read(|ledger| decide(&Scene { ledger, catalog: &catalog, is_leased: &is_leased, rules, now }))
    }

    /// Carries out sentences one by one; those that could be.
    fn carry_out(&self, sentences: Vec<Sentence>) -> Vec<Sentence> {
        let now = self.now();
        let (digests, remotes) = self.named_by(&sentences);
        let mut done = sentences;
        done.retain(|sentence| match sentence.deed {
            Deed::Remove => self.remove(sentence),
            Deed::Unlist => {
                let Unit::Image(fingerprint) = sentence.unit else { return false };
                self.books.change(|ledger| ledger.set_fate(fingerprint, Fate::Leaves(now, sentence.reason)));
                true
            }
        });
        done.iter().for_each(log);
        if !done.is_empty() {
            self.tell(&digests, remotes);
        }
        done
    }

    /// The blobs that sentences are about, and the remotes of their images.
    fn named_by(&self, sentences: &[Sentence]) -> (Vec<Digest>, BTreeSet<Arc<str>>) {
        self.books.read(|ledger| {
            let remote =
                |unit| if let Unit::Image(image) = unit { ledger.image(image).map(|record| Arc::clone(&record.remote)) } else { None };
            let digests = sentences.iter().flat_map(|sentence| ledger.blobs_of(sentence.unit)).map(|(digest, _)| digest);
            (digests.collect(), sentences.iter().filter_map(|sentence| remote(sentence.unit)).collect())
        })
    }

    /// Removes a unit, unless it was used since it was sentenced; whether it did.
    fn remove(&self, sentence: &Sentence) -> bool {
        let Some(bytes) = self.take_out(sentence) else { return false };
        if let Unit::Image(fingerprint) = sentence.unit {
            self.forget_record(fingerprint);
            self.forget_that_it_was_kept(fingerprint);
        }
        if let Err(error) = self.empty_trash() {
            tracing::error!(%error, "what was taken out of the store could not be removed; it is tried again");
        }
        self.metrics.cache_evicted(sentence.reason.label(), bytes);
        true
    }

    /// Takes a unit's blobs out of the store and the ledger, unless it was used since it was sentenced; how many bytes went.
    fn take_out(&self, sentence: &Sentence) -> Option<u64> {
        let unit = sentence.unit;
        let _flights = lock(&self.flights);
        let blobs = self.books.read(|ledger| ledger.blobs_of(unit));
        let is_needed = |digest| self.leases.has(digest) || self.begun.has(digest);
        if !self.books.is_unused_since(unit, sentence.last_used_at) || blobs.iter().any(|(digest, _)| is_needed(*digest)) {
            return None;
        }
        let gone: Vec<_> = blobs.iter().take_while(|(digest, size)| self.could_take_away(*digest, *size)).collect();
        if gone.is_empty() && !blobs.is_empty() {
            return None;
        }
        self.books.change(|ledger| {
            if gone.len() == blobs.len() {
                drop(ledger.strike(unit));
            } else {
                // The disk failed in the middle. Half an image is none, and the rest of it is loose.
                gone.iter().for_each(|(digest, _)| drop(ledger.strike_lost(*digest)));
            }
        });
        Some(gone.iter().map(|(_, size)| size).sum())
    }

    fn could_take_away(&self, digest: Digest, counted: u64) -> bool {
        let taken = self.take_away(digest, counted);
        if let Err(error) = &taken {
            tracing::error!(%digest, %error, "a blob could not be removed");
        }
        taken.is_ok()
    }

    /// Takes a blob that counts so many bytes out of the store. What was there of it counts until it is removed.
    pub fn take_away(&self, digest: Digest, counted: u64) -> io::Result<()> {
        // A file that is open takes room, whether it has a name or not.
        self.open.close(digest);
        let there = self.store.blob(digest)?.map_or(0, |blob| blob.size);
        let discarded = self.store.discard_blob(digest);
        // Whoever opened it before asks for the lock, and sees this then.
        self.renamings.note(digest);
        discarded?;
        if there != counted {
            self.books.change(|ledger| {
                ledger.account.release(counted);
                ledger.account.settle(0, 0, there);
            });
        }
        Ok(())
    }

    /// Removes what was taken out of the store; only then is there room. What cannot be removed goes on counting. The folders
    /// in the trash are documents, which never counted.
    pub fn empty_trash(&self) -> io::Result<()> {
        let _emptying = lock(&self.emptying);
        let mut emptied = Ok(());
        for found in self.store.trash()? {
            match self.store.disk().remove(&found.path) {
                Ok(()) if !found.is_directory => self.books.lost(found.len),
                removed => emptied = emptied.and(removed),
            }
        }
        emptied
    }

    /// Forgets that a person wanted an image that went by its rules: it would come back with the next start.
    fn forget_that_it_was_kept(&self, fingerprint: Fingerprint) {
        let (disk, layout) = (&**self.store.disk(), self.store.layout());
        let forgotten = decisions::load(disk, layout, fingerprint)
            .and_then(|decision| if decision.kept { decisions::remove(disk, layout, fingerprint) } else { Ok(()) });
        if let Err(error) = forgotten {
            tracing::warn!(%fingerprint, %error, "what was decided about an image could not be removed");
        }
    }

    /// Removes what is written of an image.
    pub fn forget_record(&self, fingerprint: Fingerprint) {
        if let Err(error) = records::remove(&**self.store.disk(), self.store.layout(), fingerprint) {
            tracing::warn!(%fingerprint, %error, "what was noted of an image could not be removed");
        }
    }
}

/// Whether so many bytes are free at once when these are carried out.
fn frees(sentences: &[Sentence], bytes: u64) -> bool {
    sentences.iter().filter(|sentence| sentence.deed == Deed::Remove).map(|sentence| sentence.bytes).sum::<u64>() >= bytes
}

fn log(sentence: &Sentence) {
    let Sentence { reason, bytes, deed, .. } = sentence;
    let reason = reason.label();
    match (sentence.unit, deed) {
        (Unit::Image(fingerprint), Deed::Remove) => tracing::info!(%fingerprint, reason, bytes, "an image went"),
        (Unit::Image(fingerprint), Deed::Unlist) => {
            tracing::info!(%fingerprint, reason, bytes, "an image that only we have is listed no more; it goes after images.grace");
        }
        (Unit::Blob(digest), _) => tracing::info!(%digest, reason, bytes, "a file went"),
    }
}
