//! Brings files in ahead of requests: one task for each remote that is not offline.
//!
//! In mirror mode that is everything that the remote lists. In proxy mode it is the newer versions of images that are kept
//! up to date: hosts do not see them before they are held, or have waited for `images.hold_back_max`. Files are asked for
//! as hosts ask, so that what is under way already is shared, resumed and verified like everything else.

pub mod progress;
pub mod wanted;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, future, stream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Missing;
use crate::cache::Cache;
use crate::catalog::files::File;
use crate::catalog::mode::Mode;
use crate::fetch::Fetcher;
use crate::fetch::download::Wanted;
use crate::fetch::holding::hold;
use crate::fetch::source::Source;
use crate::metrics::Metrics;
use crate::prefetch::progress::{Hopeless, Progress, size};
use crate::prefetch::wanted::Goal;
use crate::publish::Publisher;
use crate::refresh::status::StatusBoard;

/// How often it is made sure that everything is held, as far as the ledger knows, even if nothing changed.
const LOOK: Duration = Duration::from_hours(1);

/// Keeps a remote whole, or up to date.
#[derive(Debug)]
pub struct Prefetcher {
    /// The remote.
    pub source: Arc<Source>,
    /// How it is held.
    pub mode: Mode,
    /// Who is told that a version waited long enough.
    pub publisher: Publisher,
    /// Who brings files in.
    pub fetcher: Arc<Fetcher>,
    /// What is held, and what is listed.
    pub cache: Arc<Cache>,
    /// Where people look.
    pub status: Arc<StatusBoard>,
    /// Where Prometheus looks.
    pub metrics: Arc<Metrics>,
    /// How many files are fetched at once.
    pub fetches: usize,
    /// How long to wait before what could not be had is tried again.
    pub retry: Duration,
}

impl Prefetcher {
    /// Goes on until it is stopped: whenever other documents are served, whenever upstream was asked for documents, and when
    /// it is time to try again.
    pub async fn run(self, mut generations: watch::Receiver<u64>, stop: CancellationToken) {
        let (mut hopeless, mut refreshes) = (Hopeless::default(), self.source.refreshes());
        let (mut last, mut due): (Option<Goal>, _) = (None, Instant::now());
        loop {
            generations.mark_unchanged();
            let goal = self.goal();
            // Most generations are other remotes' affair.
            if goal.is_some() && (goal != last || Instant::now() >= due) {
                let Some(wait) = stop.run_until_cancelled(self.round(goal.as_ref(), &mut hopeless)).await else { return };
                due = Instant::now() + wait;
            } else if due <= Instant::now() {
                due = Instant::now() + LOOK;
            }
            last = goal;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due) => {}
                changed = generations.changed() => if changed.is_err() { return },
                changed = refreshes.changed() => {
                    if changed.is_err() { return }
                    hopeless.forgive(Instant::now());
                    due = Instant::now();
                }
            }
        }
    }

    fn goal(&self) -> Option<Goal> {
        self.cache.current().load().remotes.get(self.source.name()).map(|remote| Goal::of(remote, self.mode, &self.cache.missed()))
    }

    /// Fetches what is missing; how long to wait for the next round.
    async fn round(&self, goal: Option<&Goal>, hopeless: &mut Hopeless) -> Duration {
        let Some(goal) = goal else { return LOOK };
        let missing = self.missing(goal).await;
        self.show_problems(goal, hopeless);
        let now = Instant::now();
        let progress = Mutex::new(Progress::of(&missing, hopeless, self.overfull(goal)));
        self.note(&lock(&progress).missing);
        let goes_on = |_: &File| future::ready(self.goal().as_ref() == Some(goal) && lock(&progress).is_promising());
        let worth_asking = missing.into_iter().filter(|file| hopeless.is_worth_asking(file.expected, now));
        let fetches = stream::iter(worth_asking.collect::<Vec<_>>()).take_while(goes_on).map(|file| self.fetch(file, &progress));
        fetches.buffer_unordered(self.fetches).for_each(|()| future::ready(())).await;
        let progress = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        hopeless.note(&progress.not_there, Instant::now(), self.retry);
        self.show_problems(goal, hopeless);
        let wait = if progress.missing.files == 0 { LOOK } else { self.retry };
        wait.min(self.release(goal, hopeless).await)
    }

    /// Why a selection can never be held whole.
    fn overfull(&self, goal: &Goal) -> Option<String> {
        let (bytes, capacity) = (goal.bytes(), self.cache.books().limits().capacity_bytes);
        (bytes > capacity)
            .then(|| format!("the selection has {bytes} bytes and storage.capacity is {capacity}; select less, or give it more"))
    }

    /// What is wanted and not held. There may be very many files, and nobody's use of a file is to wait for all of them.
    async fn missing(&self, goal: &Goal) -> Vec<File> {
        let (cache, wanted) = (Arc::clone(&self.cache), goal.clone());
        let looked = tokio::task::spawn_blocking(move || {
            wanted.missing(|files| cache.books().read(|held| files.iter().map(|file| held.has(file.expected)).collect()))
        });
        looked.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    async fn fetch(&self, file: File, progress: &Mutex<Progress>) {
        let bytes = size(&file);
        let wanted = Wanted { remote: Arc::clone(self.source.name()), path: file.path, expected: file.expected, host: None };
        let brought = hold(&self.fetcher, &wanted, |_| {}).await;
        let mut progress = lock(progress);
        match brought {
            Ok(_) => progress.held(bytes),
            Err(problem) => progress.failed(&wanted, &problem),
        }
        self.note(&progress.missing);
    }

    /// Lists what waited long enough, unless its bytes were wrong; how long until the next one has.
    async fn release(&self, goal: &Goal, hopeless: &Hopeless) -> Duration {
        let (now, longest) = (self.cache.now(), self.cache.rules().hold_back_max);
        let (over, waiting) = goal.by_patience(now, longest, |file| hopeless.was_wrong(file));
        if !over.is_empty() {
            let versions: Vec<String> = over.iter().map(|slot| format!("{} {}", slot.product, slot.serial)).collect();
            tracing::warn!(remote = %self.source.name(), ?versions, "images.hold_back_max is over; these versions are listed without being held");
            if let Err(error) = self.publisher.release(Arc::clone(self.source.name()), over).await {
                tracing::debug!(%error, "they cannot be listed");
            }
        }
        waiting.unwrap_or(LOOK)
    }

    fn note(&self, missing: &Missing) {
        if self.mode == Mode::Mirror {
            self.metrics.mirror_is_missing(self.source.name(), missing.bytes);
            self.status.missing(self.source.name(), missing.clone());
        }
    }

    fn show_problems(&self, goal: &Goal, hopeless: &Hopeless) {
        self.status.problems(self.source.name(), goal.problems(|file| hopeless.problem(file)));
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}
