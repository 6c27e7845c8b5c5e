//! What the store holds and when it was last used.
//!
//! A held blob belongs to the images that need it, or to none: then it is *loose*, as manifests, deltas and kernels are,
//! and the files of an image that is not whole. Images and loose blobs are the *units* that stay or go as one. The ledger
//! keeps them by last use; which of them goes, and why, is `retention`'s to say.
//!
//! Every call is a look-up or a step in an ordered set, so that 200,000 blobs slow nobody down.

pub mod account;
pub mod change;
pub mod decision;
pub mod holdings;
pub mod learnt;
pub mod loading;
pub mod publication;
pub mod record;
pub mod written;

use std::collections::BTreeSet;

use foldhash::{HashMap, HashSet};
use jiff::Timestamp;

use crate::digest::{Claim, Digest, Expected, Fingerprint};
use crate::ledger::account::Account;
use crate::ledger::change::Change;
use crate::ledger::learnt::Learnt;
use crate::ledger::record::{Fate, Record};

/// What stays or goes as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// A blob that no image needs.
    Blob(Digest),
    /// An image with all its blobs.
    Image(Fingerprint),
}

/// A blob that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// How many bytes it has.
    pub size: u64,
    /// When it was last asked for.
    pub last_used_at: Timestamp,
    /// The images that need it.
    pub images: Box<[Fingerprint]>,
}

/// All that is held.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Bytes: held and promised.
    pub account: Account,
    blobs: HashMap<Digest, Held>,
    images: HashMap<Fingerprint, Record>,
    learnt: Learnt,
    by_last_use: BTreeSet<(Timestamp, Unit)>,
    unwritten: HashSet<Unit>,
    /// Blobs that nobody remembers to have verified. They are written down when somebody has.
    strangers: HashSet<Digest>,
}

impl Ledger {
    /// Notes a blob that is in the store and verified; the size that it had before, if it was there.
    pub fn admit(&mut self, digest: Digest, size: u64, now: Timestamp) -> Option<u64> {
        self.strangers.remove(&digest);
        self.unwritten.insert(Unit::Blob(digest));
        self.hold(digest, size, now)
    }

    /// Notes a blob that lies in the store: it is counted, and is a stranger until it is adopted.
    pub fn find(&mut self, digest: Digest, size: u64, now: Timestamp) {
        self.strangers.insert(digest);
        self.hold(digest, size, now);
    }

    /// Notes that a stranger is what it is called.
    pub fn adopt(&mut self, digest: Digest) {
        if self.strangers.remove(&digest) {
            self.unwritten.insert(Unit::Blob(digest));
        }
    }

    /// Whether nobody remembers to have verified a blob.
    pub fn is_stranger(&self, digest: Digest) -> bool {
        self.strangers.contains(&digest)
    }

    /// All blobs of which nobody does.
    pub fn strangers(&self) -> impl Iterator<Item = Digest> {
        self.strangers.iter().copied()
    }

    fn hold(&mut self, digest: Digest, size: u64, now: Timestamp) -> Option<u64> {
        if let Some(held) = self.blobs.get_mut(&digest) {
            return Some(std::mem::replace(&mut held.size, size));
        }
        self.blobs.insert(digest, Held { size, last_used_at: now, images: Box::default() });
        self.by_last_use.insert((now, Unit::Blob(digest)));
        None
    }

    /// Notes what documents claim of a blob.
    pub fn learn(&mut self, claim: Claim, digest: Digest) {
        self.learnt.note(claim, digest);
    }

    /// What documents may claim of a blob.
    pub fn claims(&self, digest: Digest) -> impl Iterator<Item = Claim> {
        self.learnt.claims_of(digest)
    }

    /// Notes an image, or another state of one, if every blob of it is held; whether it is.
    pub fn record(&mut self, record: Record) -> bool {
        if !record.pieces.iter().all(|piece| self.blobs.contains_key(&piece.digest)) {
            return false;
        }
        self.drop_record(record.fingerprint);
        for piece in &record.pieces {
            let Some(held) = self.blobs.get_mut(&piece.digest) else { continue };
            self.by_last_use.remove(&(held.last_used_at, Unit::Blob(piece.digest)));
            held.add_image(record.fingerprint);
        }
        self.learnt.note_pieces(&record.pieces);
        let unit = Unit::Image(record.fingerprint);
        self.by_last_use.insert((record.last_used_at, unit));
        self.unwritten.insert(unit);
        self.images.insert(record.fingerprint, record);
        true
    }

    /// Notes that a host asked for a blob: a use of the blob, and of the images whose root it is.
    pub fn touch(&mut self, digest: Digest, now: Timestamp) {
        let Some(held) = self.blobs.get_mut(&digest) else { return };
        let before = held.last_used_at;
        let now = now.max(before);
        held.last_used_at = now;
        let images = held.images.clone();
        self.unwritten.insert(Unit::Blob(digest));
        if images.is_empty() {
            self.by_last_use.remove(&(before, Unit::Blob(digest)));
            self.by_last_use.insert((now, Unit::Blob(digest)));
        }
        let is_root = |record: &Record| record.root().is_some_and(|root| root.digest == digest);
        for fingerprint in images {
            if self.images.get(&fingerprint).is_some_and(is_root) {
                self.use_image(fingerprint, now);
            }
        }
    }

    /// Notes that a host used an image.
    pub fn use_image(&mut self, fingerprint: Fingerprint, now: Timestamp) {
        let Some(record) = self.images.get_mut(&fingerprint) else { return };
        let (before, unit) = (record.last_used_at, Unit::Image(fingerprint));
        let now = now.max(before);
        record.last_used_at = now;
        record.use_count += 1;
        self.by_last_use.remove(&(before, unit));
        self.by_last_use.insert((now, unit));
        self.unwritten.insert(unit);
    }

    /// Changes how an image is held, without touching its files or when it was used.
    pub fn amend(&mut self, fingerprint: Fingerprint, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.images.get_mut(&fingerprint) {
            change(record);
            self.unwritten.insert(Unit::Image(fingerprint));
        }
    }

    /// Sets what becomes of an image.
    pub fn set_fate(&mut self, fingerprint: Fingerprint, fate: Fate) {
        if let Some(record) = self.images.get_mut(&fingerprint).filter(|record| record.fate != fate) {
            record.fate = fate;
            self.unwritten.insert(Unit::Image(fingerprint));
        }
    }

    /// The blobs that go with a unit: of an image those that no other one needs.
    pub fn blobs_of(&self, unit: Unit) -> Vec<(Digest, u64)> {
        let size = |digest: &Digest| self.blobs.get(digest).map(|held| (*digest, held.size));
        match unit {
            Unit::Blob(digest) => size(&digest).into_iter().collect(),
            Unit::Image(fingerprint) => {
                let is_its_own = |digest: &Digest| self.blobs.get(digest).is_some_and(|held| *held.images == [fingerprint]);
                self.images
                    .get(&fingerprint)
                    .map_or_else(Vec::new, |record| own_digests(record).filter(is_its_own).filter_map(|digest| size(&digest)).collect())
            }
        }
    }

    /// Strikes a unit out; the blobs that went with it. What other images need stays.
    pub fn strike(&mut self, unit: Unit) -> Vec<(Digest, u64)> {
        let blobs = self.blobs_of(unit);
        if let Unit::Image(fingerprint) = unit {
            self.drop_record(fingerprint);
        }
        for (digest, _) in &blobs {
            self.forget(*digest);
        }
        blobs
    }

    /// Strikes out a blob that is not there any more, and every image that needs it; those images.
    pub fn strike_lost(&mut self, digest: Digest) -> Vec<Record> {
        let images = self.blobs.get(&digest).map(|held| held.images.clone()).unwrap_or_default();
        let lost = images.into_iter().filter_map(|fingerprint| self.drop_record(fingerprint)).collect();
        self.forget(digest);
        lost
    }

    /// Takes an image out; its blobs are loose then unless another one needs them.
    fn drop_record(&mut self, fingerprint: Fingerprint) -> Option<Record> {
        let record = self.images.remove(&fingerprint)?;
        let unit = Unit::Image(fingerprint);
        self.by_last_use.remove(&(record.last_used_at, unit));
        self.unwritten.insert(unit);
        for digest in own_digests(&record) {
            let Some(held) = self.blobs.get_mut(&digest) else { continue };
            held.images = held.images.iter().copied().filter(|other| *other != fingerprint).collect();
            if held.images.is_empty() {
                self.by_last_use.insert((held.last_used_at, Unit::Blob(digest)));
            }
        }
        Some(record)
    }

    fn forget(&mut self, digest: Digest) {
        if let Some(held) = self.blobs.remove(&digest) {
            self.by_last_use.remove(&(held.last_used_at, Unit::Blob(digest)));
            self.unwritten.insert(Unit::Blob(digest));
            self.strangers.remove(&digest);
        }
    }

    /// The digest of the file of which this is claimed, if the claim or an earlier download told.
    pub fn digest_of(&self, claim: Claim) -> Option<Digest> {
        self.learnt.digest_of(claim)
    }

    /// Whether a file is held, with the size that its document says.
    pub fn has(&self, expected: Expected) -> bool {
        self.digest_of(expected.claim).and_then(|digest| self.blobs.get(&digest)).is_some_and(|held| expected.allows(held.size))
    }

    /// The files of which documents give another hash than their digest: that hash, and the digest.
    pub fn learnt(&self) -> impl Iterator<Item = (Claim, Digest)> {
        self.learnt.iter()
    }

    /// A blob.
    pub fn blob(&self, digest: Digest) -> Option<&Held> {
        self.blobs.get(&digest)
    }

    /// All blobs.
    pub fn blobs(&self) -> impl ExactSizeIterator<Item = (Digest, &Held)> {
        self.blobs.iter().map(|(digest, held)| (*digest, held))
    }

    /// An image.
    pub fn image(&self, fingerprint: Fingerprint) -> Option<&Record> {
        self.images.get(&fingerprint)
    }

    /// All images.
    pub fn images(&self) -> impl ExactSizeIterator<Item = &Record> {
        self.images.values()
    }

    /// All units, the least recently used first, each with the time of its last use.
    pub fn by_last_use(&self) -> impl Iterator<Item = (Timestamp, Unit)> {
        self.by_last_use.iter().copied()
    }

    /// What changed since this was last asked, to be written down.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let unwritten = std::mem::take(&mut self.unwritten);
        unwritten.into_iter().map(|unit| self.change(unit)).collect()
    }

    /// Takes back changes that could not be written.
    pub fn give_back(&mut self, changes: &[Change]) {
        self.unwritten.extend(changes.iter().map(|change| match change {
            Change::Blob(digest, ..) | Change::BlobGone(digest) => Unit::Blob(*digest),
            Change::Image(record) => Unit::Image(record.fingerprint),
            Change::ImageGone(fingerprint) => Unit::Image(*fingerprint),
        }));
    }

    fn change(&self, unit: Unit) -> Change {
        match unit {
            // Whoever reads that a stranger is held would take it for one that somebody has verified.
            Unit::Blob(digest) => match self.blobs.get(&digest).filter(|_| !self.is_stranger(digest)) {
                Some(held) => Change::Blob(digest, held.size, held.last_used_at),
                None => Change::BlobGone(digest),
            },
            Unit::Image(fingerprint) => match self.images.get(&fingerprint) {
                Some(record) => Change::Image(Box::new(record.clone())),
                None => Change::ImageGone(fingerprint),
            },
        }
    }
}

/// The digests of an image's files, each once.
fn own_digests(record: &Record) -> impl Iterator<Item = Digest> {
    let pieces = &record.pieces;
    let is_first = |at: &usize| pieces[..*at].iter().all(|piece| piece.digest != pieces[*at].digest);
    (0..pieces.len()).filter(is_first).map(|at| pieces[at].digest).collect::<Vec<_>>().into_iter()
}

impl Held {
    /// Notes that an image needs it.
    fn add_image(&mut self, image: Fingerprint) {
        if !self.images.contains(&image) {
            self.images = self.images.iter().copied().chain([image]).collect();
        }
    }
}
