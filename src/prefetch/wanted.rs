//! What is to be held of a remote.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashSet;
use jiff::Timestamp;

use crate::catalog::files::File;
use crate::catalog::listing::Listing;
use crate::catalog::mode::Mode;
use crate::catalog::{HeldBack, Remote};
use crate::digest::{Expected, Fingerprint};
use crate::render::policy::Slot;

/// Of so many files it is asked at a time whether they are held.
const AT_A_TIME: usize = 1024;

/// What is to be held.
#[derive(Clone, Debug)]
pub struct Goal {
    /// In mirror mode, everything that is listed.
    listing: Option<Arc<Listing>>,
    /// What hosts do not see before it is held.
    held_back: Vec<HeldBack>,
    /// What was held until its bytes were found to be wrong.
    lost: Vec<File>,
}

impl PartialEq for Goal {
    fn eq(&self, other: &Self) -> bool {
        let is_same_listing = match (&self.listing, &other.listing) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        is_same_listing && self.held_back == other.held_back && self.lost == other.lost
    }
}

impl Goal {
    /// What is to be held of a remote.
    pub fn of(remote: &Remote, mode: Mode, lost: &std::collections::HashSet<Fingerprint>) -> Self {
        // Nearly always there is none, and a listing is long.
        let images = if lost.is_empty() { &[] } else { remote.listing.images() };
        let missed = images.iter().filter(|image| lost.contains(&image.fingerprint));
        Self {
            listing: (mode == Mode::Mirror).then(|| Arc::clone(&remote.listing)),
            held_back: remote.held_back.clone(),
            lost: missed.flat_map(|image| &image.files).filter_map(|file| remote.listing.file(&file.path).cloned()).collect(),
        }
    }

    /// What is not held: first what hosts wait for, then the newest. `are_held` is asked of some files at a time.
    pub fn missing(&self, are_held: impl Fn(&[File]) -> Vec<bool>) -> Vec<File> {
        let mut listed = absent(self.listing.iter().flat_map(|listing| listing.files()).cloned(), &are_held);
        listed.sort_by(|one, other| (other.modified, &one.path).cmp(&(one.modified, &other.path)));
        let awaited = self.held_back.iter().flat_map(|held_back| &held_back.files).chain(&self.lost);
        let awaited = absent(awaited.cloned(), &are_held);
        let mut missing: Vec<File> = awaited.into_iter().chain(listed).collect();
        // Several paths may have the same bytes.
        let mut seen = HashSet::default();
        missing.retain(|file| seen.insert(file.expected));
        missing
    }

    /// How many bytes all that is listed has, each file once.
    pub fn bytes(&self) -> u64 {
        let mut seen = HashSet::default();
        let files = self.listing.iter().flat_map(|listing| listing.files()).filter(|file| seen.insert(file.expected));
        files.filter_map(|file| file.expected.size).fold(0, u64::saturating_add)
    }

    /// What has waited for `longest`, unless `was_wrong` says that its bytes are; and how long until the next one has.
    pub fn by_patience(&self, now: Timestamp, longest: Duration, was_wrong: impl Fn(Expected) -> bool) -> (Vec<Slot>, Option<Duration>) {
        let (mut over, mut waiting) = (Vec::new(), None);
        for held_back in self.held_back.iter().filter(|held_back| !held_back.image.expected().any(&was_wrong)) {
            let waited = Duration::try_from(now.duration_since(held_back.since)).unwrap_or_default();
            match longest.checked_sub(waited).filter(|left| !left.is_zero()) {
                Some(left) => waiting = Some(waiting.map_or(left, |least: Duration| least.min(left))),
                None => over.push(Slot::of(&held_back.image.version, held_back.image.image_type)),
            }
        }
        (over, waiting)
    }

    /// Why images that are held back cannot be had.
    pub fn problems(&self, problem: impl Fn(Expected) -> Option<String>) -> HashMap<Fingerprint, String> {
        let of_image = |held_back: &HeldBack| Some((held_back.image.fingerprint, held_back.image.expected().find_map(&problem)?));
        self.held_back.iter().filter_map(of_image).collect()
    }
}

fn absent(mut files: impl Iterator<Item = File>, are_held: impl Fn(&[File]) -> Vec<bool>) -> Vec<File> {
    let mut absent = Vec::new();
    loop {
        let some: Vec<File> = files.by_ref().take(AT_A_TIME).collect();
        if some.is_empty() {
            return absent;
        }
        let held = are_held(&some);
        absent.extend(some.into_iter().zip(held).filter(|(_, is_held)| !is_held).map(|(file, _)| file));
    }
}
