//! Holds everything that a remote lists, before any host asks: one task for each remote in mirror mode.
//!
//! It asks for files as a host does, so that what is under way already is shared, resumed and verified like everything
//! else. Listing does not wait for it: what is not held yet is fetched when a host asks.

pub mod progress;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::HashSet;
use futures_util::{StreamExt as _, future, stream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Missing;
use crate::cache::reader::Reader;
use crate::cache::{Cache, blocking};
use crate::catalog::listing::{File, Listing};
use crate::fetch::download::Wanted;
use crate::fetch::{Fetcher, Found};
use crate::metrics::Metrics;
use crate::mirror::progress::{Hopeless, Problem, Progress, RETRY, size};
use crate::publish::Current;
use crate::refresh::status::StatusBoard;

/// How long an image server may take to accept to send a file.
const PATIENCE: Duration = Duration::from_mins(1);
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
    /// Goes on until it is stopped: whenever other documents are served, and when it is time to try again.
    pub async fn run(self, mut generations: watch::Receiver<u64>, stop: CancellationToken) {
        let mut hopeless = Hopeless::default();
        let (mut last, mut due): (Option<Arc<Listing>>, _) = (None, Instant::now());
        loop {
            generations.mark_unchanged();
            let listing = self.listing();
            // Most generations are other remotes' affair.
            let is_new = !same(listing.as_ref(), last.as_ref());
            if let Some(listing) = listing.filter(|_| is_new || Instant::now() >= due) {
                let Some(wait) = stop.run_until_cancelled(self.round(&listing, &mut hopeless)).await else { return };
                (last, due) = (Some(listing), Instant::now() + wait);
            } else if due <= Instant::now() {
                due = Instant::now() + LOOK;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due) => {}
                changed = generations.changed() => if changed.is_err() { return },
            }
        }
    }

    fn listing(&self) -> Option<Arc<Listing>> {
        self.current.load().remotes.get(&self.remote).map(|remote| Arc::clone(&remote.listing))
    }

    /// Fetches what is missing; how long to wait for the next round.
    async fn round(&self, listing: &Arc<Listing>, hopeless: &mut Hopeless) -> Duration {
        let missing = match self.missing(listing).await {
            Ok(missing) => missing,
            Err(error) => {
                self.note(&Missing { problem: Some(format!("the store cannot be looked at: {error}")), ..Missing::default() });
                return RETRY;
            }
        };
        let now = Instant::now();
        let progress = Mutex::new(Progress::of(&missing));
        self.note(&lock(&progress).missing);
        let goes_on = |_: &File| future::ready(same(self.listing().as_ref(), Some(listing)) && lock(&progress).is_promising());
        let worth_asking = missing.into_iter().filter(|file| hopeless.is_worth_asking(file.expected, now));
        let fetches = stream::iter(worth_asking.collect::<Vec<_>>()).take_while(goes_on).map(|file| self.fetch(file, &progress));
        fetches.buffer_unordered(self.fetches).for_each(|()| future::ready(())).await;
        let progress = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        hopeless.note(&progress.not_there, Instant::now());
        if progress.missing.files == 0 { LOOK } else { RETRY }
    }

    /// What is listed and not held, the newest first.
    async fn missing(&self, listing: &Arc<Listing>) -> std::io::Result<Vec<File>> {
        let (cache, listing) = (Arc::clone(&self.cache), Arc::clone(listing));
        blocking(move || {
            let held = cache.holdings()?;
            let mut missing: Vec<File> = listing.files().filter(|file| !held.has(file.expected)).collect();
            missing.sort_by(|one, other| (other.modified, &one.path).cmp(&(one.modified, &other.path)));
            // Several paths may have the same bytes.
            let mut seen = HashSet::default();
            missing.retain(|file| seen.insert(file.expected));
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

/// Waits until a file is held. Whoever waits no longer holds nobody up.
async fn held(mut reader: Reader) -> Result<(), Problem> {
    reader.answered(PATIENCE).await?;
    if reader.landed().await? { Ok(()) } else { Err(Problem::NoRoom) }
}

fn same(one: Option<&Arc<Listing>>, other: Option<&Arc<Listing>>) -> bool {
    one.zip(other).is_some_and(|(one, other)| Arc::ptr_eq(one, other))
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}
