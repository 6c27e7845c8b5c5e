//! What goes, when, and why (design.md §3).
//!
//! Images go whole, the least recently used first; loose blobs by the same rules. What upstream still lists may go at
//! once, since its path pulls through again. What only we hold is taken off the list first and goes when grace is over.
//! What is being read stays, and so does everything that an offline remote or a selection lists. An offline remote loses nothing
//! but what bundles brought and list no more. Nothing is done here:
//! the answer is a list of sentences, for the cache to carry out.

use std::time::Duration;

use jiff::Timestamp;

use crate::catalog::mode::Mode;
use crate::catalog::{Catalog, Standing};
use crate::digest::Digest;
use crate::ledger::record::{Fate, Owner, Reason, Record};
use crate::ledger::{Ledger, Unit};

/// The operator's settings, under LXD's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether anything is kept up to date: `images.auto_update_interval` is not 0.
    pub auto_update: bool,
    /// `images.auto_update_cached`
    pub auto_update_cached: bool,
    /// `images.hold_back_max`
    pub hold_back_max: Duration,
    /// `images.remote_cache_expiry`; `None` means never.
    pub idle: Option<Duration>,
    /// `images.grace`
    pub grace: Duration,
}

/// What a decision looks at.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// What is held.
    pub ledger: &'a Ledger,
    /// What is listed.
    pub catalog: &'a Catalog,
    /// Whether somebody reads a blob.
    pub is_leased: &'a dyn Fn(Digest) -> bool,
    /// The operator's settings.
    pub rules: Rules,
    /// The time.
    pub now: Timestamp,
}

/// What is to be done with a unit, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// What.
    pub unit: Unit,
    /// Why.
    pub reason: Reason,
    /// What is done.
    pub deed: Deed,
    /// How many bytes that frees, now or after grace.
    pub bytes: u64,
    /// When it was last used; if it was used since, the sentence is void.
    pub last_used_at: Timestamp,
}

/// What can be done with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Remove it.
    Remove,
    /// List it no more, and remove it after grace.
    Unlist,
}

/// Room that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// With less than this nothing is won, and nothing is to go.
    pub least: u64,
    /// With this there is room for the next ones too.
    pub enough: u64,
}

/// All that is due by its time.
pub fn due(scene: &Scene<'_>) -> Vec<Sentence> {
    let images = scene.ledger.by_last_use().filter_map(|(_, unit)| match unit {
        Unit::Image(fingerprint) => scene.sentence_of(scene.ledger.image(fingerprint)?),
        Unit::Blob(_) => None,
    });
    images.chain(scene.idle_blobs()).collect()
}

/// What goes so that there is room: the least recently used first. If all that may go at once is not enough, none of it goes,
/// and what only we hold is unlisted, so that there is room after grace.
pub fn victims(scene: &Scene<'_>, need: Need) -> Option<Vec<Sentence>> {
    let (mut sentences, mut freed) = (Vec::new(), 0_u64);
    for (last_used_at, unit) in scene.ledger.by_last_use() {
        if freed >= need.enough {
            break;
        }
        let Some((deed, bytes)) = scene.victim(unit) else { continue };
        freed += if deed == Deed::Remove { bytes } else { 0 };
        sentences.push(Sentence { unit, reason: Reason::Size, deed, bytes, last_used_at });
    }
    // If all that could go at once is not enough, what only we hold has to make room, after grace.
    let deed = if freed >= need.least { Deed::Remove } else { Deed::Unlist };
    sentences.retain(|sentence| sentence.deed == deed);
    (!sentences.is_empty()).then_some(sentences)
}

/// How many bytes could go at once, if nothing goes that is to be kept.
pub fn removable(scene: &Scene<'_>, is_kept: &dyn Fn(Digest) -> bool) -> u64 {
    let units = scene.ledger.by_last_use().map(|(_, unit)| unit);
    let is_free = |unit: &Unit| !scene.ledger.blobs_of(*unit).iter().any(|(digest, _)| is_kept(*digest));
    let victims = units.filter(is_free).filter_map(|unit| scene.victim(unit));
    victims.filter(|(deed, _)| *deed == Deed::Remove).map(|(_, bytes)| bytes).sum()
}

/// How those of these blobs go that are part of no image, and that nobody lists or reads.
pub fn loose(scene: &Scene<'_>, is_meant: &dyn Fn(Digest) -> bool) -> Vec<Sentence> {
    let loose = scene.ledger.by_last_use().filter_map(|(last_used_at, unit)| match unit {
        Unit::Blob(digest) if is_meant(digest) => Some((last_used_at, unit, scene.loose_victim(digest)?)),
        _ => None,
    });
    loose.map(|(last_used_at, unit, bytes)| Sentence { unit, reason: Reason::Deleted, deed: Deed::Remove, bytes, last_used_at }).collect()
}

/// How an image would go that a person wants gone; `None` while somebody reads it.
pub fn deletion(scene: &Scene<'_>, record: &Record) -> Option<Sentence> {
    let deed = match scene.standing(record) {
        Standing::Upstream => Deed::Remove,
        Standing::Protected | Standing::Retired | Standing::Unlisted => Deed::Unlist,
    };
    scene.sentence(record, Reason::Deleted, deed)
}

impl Scene<'_> {
    fn sentence_of(&self, record: &Record) -> Option<Sentence> {
        match record.fate {
            Fate::Leaves(at, reason) if self.is_over(at, self.rules.grace) && self.may_go(record, reason) => {
                self.sentence(record, reason, Deed::Remove)
            }
            Fate::Leaves(..) => None,
            Fate::Stays => {
                let reason = self.reason(record)?;
                let deed = if self.standing(record) == Standing::Upstream { Deed::Remove } else { Deed::Unlist };
                self.sentence(record, reason, deed)
            }
        }
    }

    /// Why an image that stays is to go now.
    fn reason(&self, record: &Record) -> Option<Reason> {
        let mode = self.catalog.mode(&record.remote);
        let is_unused = |time| self.is_over(record.last_used_at, time);
        let is_fed = self.catalog.is_fed(&record.remote);
        let is_selected = record.owner == Owner::Selection && (mode == Some(Mode::Mirror) || is_fed);
        // The shortest time first: where else a file is to be had takes many look-ups.
        if !is_selected && !is_unused(self.rules.idle.unwrap_or(self.rules.grace).min(self.rules.grace)) {
            return None;
        }
        let standing = self.standing(record);
        let loses_nothing = mode == Some(Mode::Offline) && !(is_fed && is_selected);
        if !self.is_known(&record.remote) || loses_nothing || (standing == Standing::Protected && mode != Some(Mode::Own)) {
            None
        } else if is_selected {
            // Its selection lists it no more, or the remote would protect it.
            Some(Reason::Withdrawn)
        } else if record.expires_at.is_some_and(|end| end < self.now) && is_unused(self.rules.grace) {
            Some(Reason::Expired)
        } else if record.owner != Owner::Operator && self.rules.idle.is_some_and(is_unused) {
            Some(Reason::Idle)
        } else {
            None
        }
    }

    /// An offline remote loses nothing but what a person takes away, or whoever makes its bundles.
    fn may_go(&self, record: &Record, reason: Reason) -> bool {
        let is_offline = self.catalog.mode(&record.remote) == Some(Mode::Offline);
        let is_bundles = record.owner == Owner::Selection && self.catalog.is_fed(&record.remote);
        let is_taken_away = reason == Reason::Withdrawn && is_bundles && !self.is_retired(record);
        reason == Reason::Deleted || ((!is_offline || is_taken_away) && self.standing(record) != Standing::Protected)
    }

    fn sentence(&self, record: &Record, reason: Reason, deed: Deed) -> Option<Sentence> {
        let unit = Unit::Image(record.fingerprint);
        let is_read = deed == Deed::Remove && record.pieces.iter().any(|piece| (self.is_leased)(piece.digest));
        (!is_read).then(|| Sentence { unit, reason, deed, bytes: self.bytes(unit), last_used_at: record.last_used_at })
    }

    fn idle_blobs(&self) -> Vec<Sentence> {
        let Some(idle) = self.rules.idle else { return Vec::new() };
        let old = self.ledger.by_last_use().take_while(|(last_used_at, _)| self.is_over(*last_used_at, idle));
        old.filter_map(|(last_used_at, unit)| {
            let Unit::Blob(digest) = unit else { return None };
            let bytes = self.loose_victim(digest)?;
            Some(Sentence { unit, reason: Reason::Idle, deed: Deed::Remove, bytes, last_used_at })
        })
        .collect()
    }

    /// What becomes of a unit when there has to be room, and how many bytes it has; `None` if it stays.
    fn victim(&self, unit: Unit) -> Option<(Deed, u64)> {
        match unit {
            Unit::Blob(digest) => self.loose_victim(digest).map(|bytes| (Deed::Remove, bytes)),
            Unit::Image(fingerprint) => {
                let record = self
                    .ledger
                    .image(fingerprint)
                    .filter(|record| record.stays() && self.is_cached(record) && self.is_known(&record.remote))?;
                let deed = match self.standing(record) {
                    Standing::Protected => return None,
                    Standing::Upstream => Deed::Remove,
                    Standing::Retired | Standing::Unlisted => Deed::Unlist,
                };
                self.sentence(record, Reason::Size, deed).map(|sentence| (deed, sentence.bytes))
            }
        }
    }

    /// Whether it is known what a remote lists: one without documents may list anything.
    fn is_known(&self, remote: &str) -> bool {
        self.catalog.mode(remote).is_none() || self.catalog.remotes.contains_key(remote)
    }

    /// LXD's `cached`: whether an image is here only because hosts asked for it.
    fn is_cached(&self, record: &Record) -> bool {
        is_cached(record, self.catalog)
    }

    /// The size of a loose blob that may go at once.
    fn loose_victim(&self, digest: Digest) -> Option<u64> {
        let held = self.ledger.blob(digest).filter(|_| !(self.is_leased)(digest))?;
        // A remote whose documents are not there may need it.
        if !self.catalog.awaited.is_empty() {
            return None;
        }
        let standing = self.ledger.claims(digest).map(|claim| self.catalog.standing(claim)).min()?;
        matches!(standing, Standing::Upstream | Standing::Unlisted).then_some(held.size)
    }

    /// Of all files of an image the one that is the hardest to have again counts.
    fn standing(&self, record: &Record) -> Standing {
        let standing = |digest| self.ledger.claims(digest).map(|claim| self.catalog.standing(claim)).min().unwrap_or(Standing::Unlisted);
        let standings: Vec<Standing> = record.pieces.iter().map(|piece| standing(piece.digest)).collect();
        // Metadata may be shared with an image that is protected; the root says whether this one is.
        if standings.last() == Some(&Standing::Protected) {
            return Standing::Protected;
        }
        if standings.iter().all(|standing| matches!(standing, Standing::Upstream | Standing::Protected)) {
            Standing::Upstream
        } else {
            Standing::Unlisted
        }
    }

    /// Whether hosts may still have documents that list an image, of whichever remote.
    fn is_retired(&self, record: &Record) -> bool {
        let root = record.root().into_iter().flat_map(|piece| self.ledger.claims(piece.digest));
        root.map(|claim| self.catalog.standing(claim)).any(|standing| standing == Standing::Retired)
    }

    fn bytes(&self, unit: Unit) -> u64 {
        self.ledger.blobs_of(unit).iter().map(|(_, size)| size).sum()
    }

    fn is_over(&self, since: Timestamp, time: Duration) -> bool {
        since.checked_add(time).is_ok_and(|end| end <= self.now)
    }
}

/// LXD's `cached`: whether an image is here only because hosts asked for it. What a selection brought in counts as such
/// once its remote is not mirrored any more.
pub fn is_cached(record: &Record, catalog: &Catalog) -> bool {
    match (record.owner, catalog.mode(&record.remote)) {
        (_, Some(Mode::Offline | Mode::Own)) | (Owner::Operator, _) | (Owner::Selection, Some(Mode::Mirror)) => false,
        (Owner::Hosts | Owner::Selection, _) => true,
    }
}
