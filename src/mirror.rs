//! Holds everything that a remote lists, before any host asks: one task for each remote in mirror mode.
//!
//! It asks for files as a host does, so that what is under way already is shared, resumed and verified like everything
//! else. Listing does not wait for it: what is not held yet is fetched when a host asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, future, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::Missing;
use crate::cache::error::FetchError;
use crate::cache::reader::Reader;
use crate::cache::{Cache, blocking};
use crate::catalog::listing::{File, Listing};
use crate::fetch::download::Wanted;
use crate::fetch::{Fetcher, Found, NotFound};
use crate::metrics::Metrics;
use crate::publish::Current;
use crate::refresh::status::StatusBoard;

/// How long an image server may take to accept to send a file.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long to wait before what could not be had is tried again.
const RETRY: Duration = Duration::from_mins(5);
/// After so many failures in a row a round is given up: the image server is down, and the rest would fail too.
const FAILURES: usize = 8;
/// How often it is made sure that everything is held, even if nothing changed.
const LOOK: Duration = Duration::from_hours(1);

/// Keeps a remote whole.
#[derive(Debug)]
pub struct Mirrorer {
    /// The remote.
    pub remote: Arc<str>,
    /// What it lists.
    pub current: Current,
    /// Who brings files in.
    pub fetcher: Arc<Fetcher>,
    /// What is held.
    pub cache: Arc<Cache>,
    /// Where people look.
    pub status: Arc<StatusBoard>,
    /// Where Prometheus looks.
    pub metrics: Arc<Metrics>,
    /// How many files are fetched at once.
    pub fetches: usize,
}

impl Mirrorer {
    /// Goes on until it is stopped: whenever another generation is served, and when it is time to try again.
    pub async fn run(self, mut generations: watch::Receiver<u64>, stop: CancellationToken) {
        let mut whole: Option<Arc<Listing>> = None;
        loop {
            generations.mark_unchanged();
            let Some(wait) = stop.run_until_cancelled(self.round(&mut whole, &generations)).await else { return };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => whole = None,
                changed = generations.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Fetches what is missing, unless everything was there already; how long to wait for the next round.
    async fn round(&self, whole: &mut Option<Arc<Listing>>, generations: &watch::Receiver<u64>) -> Duration {
        let Some(listing) = self.current.load().remotes.get(&self.remote).map(|remote| Arc::clone(&remote.listing)) else { return LOOK };
        if whole.as_ref().is_some_and(|whole| Arc::ptr_eq(whole, &listing)) {
            return LOOK;
        }
        let missing = match self.missing(&listing).await {
            Ok(missing) => missing,
            Err(error) => {
                self.note(&Missing { problem: Some(format!("the store cannot be looked at: {error}")), ..Missing::default() });
                return RETRY;
            }
        };
        let progress = Mutex::new(Progress::of(&missing));
        self.note(&lock(&progress).missing);
        let goes_on = |_: &File| future::ready(!generations.has_changed().unwrap_or(true) && lock(&progress).is_promising());
        let fetches = stream::iter(missing).take_while(goes_on).map(|file| self.fetch(file, &progress));
        fetches.buffer_unordered(self.fetches).for_each(|()| future::ready(())).await;
        let is_whole = lock(&progress).missing.files == 0;
        *whole = is_whole.then_some(listing);
        if is_whole { LOOK } else { RETRY }
    }

    /// What is listed and not held, the newest first.
    async fn missing(&self, listing: &Arc<Listing>) -> std::io::Result<Vec<File>> {
        let (cache, listing) = (Arc::clone(&self.cache), Arc::clone(listing));
        blocking(move || {
            let held = cache.holdings()?;
            let mut missing: Vec<File> = listing.files().filter(|file| !held.has(file.expected)).collect();
            missing.sort_by(|one, other| (other.modified, &one.path).cmp(&(one.modified, &other.path)));
            Ok(missing)
        })
        .await
    }

    async fn fetch(&self, file: File, progress: &Mutex<Progress>) {
        let bytes = size(&file);
        let wanted = Wanted { remote: Arc::clone(&self.remote), path: file.path, expected: file.expected };
        let brought = self.bring(&wanted).await;
        let mut progress = lock(progress);
        match brought {
            Ok(()) => progress.held(bytes),
            Err(problem) => progress.failed(&wanted, &problem),
        }
        self.note(&progress.missing);
    }

    /// Waits until a file is held.
    async fn bring(&self, wanted: &Wanted) -> Result<(), Problem> {
        match self.fetcher.find(wanted, 0).await? {
            Found::Held(_) => Ok(()),
            Found::Fetched(reader) | Found::Collapsed(reader) => held(reader).await,
        }
    }

    fn note(&self, missing: &Missing) {
        self.metrics.mirror_is_missing(&self.remote, missing.bytes);
        self.status.missing(&self.remote, missing.clone());
    }
}

/// Why a file is not held.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    NotFound(#[from] NotFound),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("there is no room for it; see storage.capacity and storage.min_free")]
    NoRoom,
}

/// How far a round is.
#[derive(Debug)]
struct Progress {
    missing: Missing,
    failures_in_a_row: usize,
    is_full: bool,
}

impl Progress {
    fn of(missing: &[File]) -> Self {
        let missing = Missing { files: missing.len(), bytes: missing.iter().map(size).sum(), problem: None };
        Self { missing, failures_in_a_row: 0, is_full: false }
    }

    /// Whether the next file has a chance.
    fn is_promising(&self) -> bool {
        !self.is_full && self.failures_in_a_row < FAILURES
    }

    fn held(&mut self, bytes: u64) {
        self.missing.files -= 1;
        self.missing.bytes -= bytes;
        self.failures_in_a_row = 0;
    }

    fn failed(&mut self, wanted: &Wanted, problem: &Problem) {
        self.missing.problem = Some(format!("{}: {problem}", wanted.path));
        self.failures_in_a_row += 1;
        self.is_full |= matches!(problem, Problem::NoRoom);
    }
}

async fn held(mut reader: Reader) -> Result<(), Problem> {
    reader.answered(PATIENCE).await?;
    if !reader.is_stored() {
        return Err(Problem::NoRoom);
    }
    reader.verified().await?;
    Ok(())
}

fn size(file: &File) -> u64 {
    file.expected.size.unwrap_or_default()
}

fn lock(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}
