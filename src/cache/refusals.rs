//! What could not be had lately, so that nobody asks for it again at once.
//!
//! Only two verdicts are remembered: that there is no such file, and that it came with wrong bytes. Trouble passes.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache as Moka;
use tokio::time::Instant;

use crate::cache::error::FetchError;
use crate::digest::Expected;
use crate::http::path::StreamPath;

/// Where a file is to be had: another remote, or another path, may have what this one has not.
pub type Place = (Arc<str>, StreamPath, Expected);

/// How many of each are remembered.
const REMEMBERED: u64 = 65_536;

/// Refusals, each for a time of its own.
#[derive(Debug)]
pub struct Refusals {
    gone: Memory,
    wrong: Memory,
}

/// Why files are refused, and until when. The time is tokio's, which tests turn; moka has one that it cannot be given.
#[derive(Debug)]
struct Memory {
    ttl: Duration,
    entries: Moka<Place, (FetchError, Instant)>,
}

impl Refusals {
    /// None so far. `gone` and `wrong` say for how long that will be remembered.
    pub fn new(gone: Duration, wrong: Duration) -> Self {
        Self { gone: Memory::new(gone), wrong: Memory::new(wrong) }
    }

    /// Why a file that was asked for lately cannot be had.
    pub fn find(&self, place: &Place) -> Option<FetchError> {
        self.gone.find(place).or_else(|| self.wrong.find(place))
    }

    /// Remembers why a file cannot be had, if that is not a passing trouble.
    pub fn note(&self, place: Place, error: &FetchError) {
        match error {
            FetchError::Gone => self.gone.note(place, error.clone()),
            FetchError::Wrong(_) => self.wrong.note(place, error.clone()),
            _ => {}
        }
    }

    /// For how long it is remembered that a file came with wrong bytes.
    pub fn wrong_for(&self) -> Duration {
        self.wrong.ttl
    }

    /// Forgets everything of a remote: there are others to ask.
    pub fn forget(&self, remote: &str) {
        for memory in [&self.gone, &self.wrong] {
            let its_own = memory.entries.iter().filter(|(place, _)| *place.0 == *remote);
            its_own.for_each(|(place, _)| memory.entries.invalidate(&*place));
        }
    }

    /// Forgets what upstream did not have: it has new documents.
    pub fn forget_gone(&self) {
        self.gone.entries.invalidate_all();
    }
}

impl Memory {
    fn new(ttl: Duration) -> Self {
        Self { ttl, entries: Moka::builder().max_capacity(REMEMBERED).time_to_live(ttl).build() }
    }

    fn find(&self, place: &Place) -> Option<FetchError> {
        self.entries.get(place).filter(|(_, until)| Instant::now() < *until).map(|(error, _)| error)
    }

    fn note(&self, place: Place, error: FetchError) {
        self.entries.insert(place, (error, Instant::now() + self.ttl));
    }
}
