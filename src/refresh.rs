//! Keeps each remote's documents like upstream's: one task for each remote.
//!
//! A refresh gathers a whole set of documents from one URL, lets `revalidation` judge it, writes it down, and has it
//! published. Whatever goes wrong before that changes nothing. A remote that is offline gets its sets from bundles, and
//! otherwise the same happens to them.

pub mod desk;
pub mod gather;
pub mod gathered;
pub mod past;
pub mod probe;
pub mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{RefreshReport, RefreshResult};
use crate::cache::blocking;
use crate::clock::Clock;
use crate::fetch::source::Source;
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::refresh::desk::{Demand, Fed, Occasion};
use crate::refresh::gather::{Bounds, Gatherer, NotGathered};
use crate::refresh::gathered::Gathered;
use crate::refresh::past::Past;
use crate::refresh::status::StatusBoard;
use crate::revalidation::census::Census;
use crate::revalidation::refusal::Refusal;
use crate::revalidation::schedule::next_wait;
use crate::revalidation::verdict;
use crate::simplestreams::snapshot::Snapshot;
use crate::store::Store;
use crate::upstream::Failure;

/// How often it is looked whether replaced documents of a remote that is offline may go: as often as grace, within these.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// How a remote is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often upstream is asked.
    pub interval: Duration,
    /// More than this share of the images gone is refused.
    pub max_gone_percent: u8,
    /// How long replaced documents are kept.
    pub grace: Duration,
    /// The least time between two refreshes that a 404 asks for.
    pub gone_pause: Duration,
    /// The bounds of a set of documents.
    pub bounds: Bounds,
}

/// What all refreshers share.
#[derive(Clone, Debug)]
pub struct Means {
    /// Where documents are kept.
    pub store: Arc<Store>,
    /// Who serves them.
    pub publisher: Publisher,
    /// Where people look.
    pub status: Arc<StatusBoard>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Refreshes one remote.
#[derive(Debug)]
pub struct Refresher {
    source: Arc<Source>,
    options: Options,
    means: Means,
    past: Past,
    failures: u32,
    last: Option<Instant>,
}

impl Refresher {
    /// A refresher that knows what is on the disk, and has it served.
    pub async fn start(source: Arc<Source>, options: Options, means: Means) -> Self {
        let past = Past::load(Arc::clone(&means.store), Arc::clone(source.name())).await;
        let refresher = Self { source, options, means, past, failures: 0, last: None };
        refresher.publish().await;
        refresher.means.status.loaded(refresher.source.name(), refresher.past.newest());
        refresher
    }

    /// Refreshes at once, then on every demand and whenever the interval is over, until it is stopped.
    pub async fn run(self, demands: mpsc::Receiver<Demand>, stop: CancellationToken) {
        let probing = probe::run(Arc::clone(&self.source));
        tokio::select! {
            () = self.keep(demands, stop) => {}
            () = probing => {}
        }
    }

    async fn keep(mut self, mut demands: mpsc::Receiver<Demand>, stop: CancellationToken) {
        let mut wait = Duration::ZERO;
        loop {
            let demand = tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => None,
                demand = demands.recv() => match demand {
                    Some(demand) => Some(demand),
                    None => return,
                },
            };
            // Whoever came meanwhile wants the same.
            let waiting = demand.into_iter().chain(std::iter::from_fn(|| demands.try_recv().ok())).collect();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.answer(waiting) => {}
            }
            wait = next_wait(self.options.interval, self.failures, fastrand::f64());
        }
    }

    /// Takes what bundles bring, and lets go of replaced documents when their grace is over, until it is stopped.
    pub async fn be_fed(mut self, mut queue: mpsc::Receiver<Fed>, stop: CancellationToken) {
        let pause = self.options.grace.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            let fed = tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => None,
                fed = queue.recv() => match fed {
                    Some(fed) => Some(fed),
                    None => return,
                },
            };
            // Half of it would be worse than a stop that waits.
            match fed {
                Some(fed) => self.feed(fed).await,
                None => self.retire().await,
            }
        }
    }

    async fn feed(&mut self, Fed { bundle, documents, occasion, reply }: Fed) {
        let is_news = match (occasion, self.past.newest()) {
            (Occasion::Import, _) => true,
            (Occasion::Start, newest) => newest.is_none_or(Snapshot::is_of_bundles),
            (Occasion::StartWithNothing, newest) => newest.is_some_and(Snapshot::is_of_bundles),
        };
        if !is_news {
            return tell(vec![reply], &self.report(RefreshResult::Unchanged, None));
        }
        let url = Snapshot::url_of_bundle(&bundle);
        let accepted_at = self.past.next_time(self.means.clock.now());
        let snapshot = Arc::new(Snapshot { url, accepted_at, documents });
        let report = match gathered(&self.past, snapshot).await {
            Ok(gathered) => self.take(gathered, true).await,
            Err(refusal) => self.report(RefreshResult::Refused, Some(refusal.to_string())),
        };
        tell(vec![reply], &self.conclude(report).await);
    }

    /// What an image server sent before the remote was offline is never replaced, and nothing of it goes.
    async fn retire(&mut self) {
        let is_fed = self.past.newest().is_some_and(Snapshot::is_of_bundles);
        if is_fed && self.past.retire(self.means.clock.now(), self.options.grace).await {
            self.publish().await;
        }
    }

    /// Refreshes for everybody who waits, or because it is time. Those who take whatever comes are answered by themselves.
    async fn answer(&mut self, waiting: Vec<Demand>) {
        let is_only_gone = !waiting.is_empty() && waiting.iter().all(|demand| matches!(demand, Demand::Gone));
        if is_only_gone && self.last.is_some_and(|last| last.elapsed() < self.options.gone_pause) {
            return;
        }
        let mut replies = [Vec::new(), Vec::new()];
        for demand in waiting {
            if let Demand::Person { accept, reply } = demand {
                replies[usize::from(accept)].push(reply);
            }
        }
        let [careful, accepting] = replies;
        if accepting.is_empty() || !careful.is_empty() {
            tell(careful, &self.refresh(false).await);
        }
        if !accepting.is_empty() {
            tell(accepting, &self.refresh(true).await);
        }
    }

    async fn refresh(&mut self, accept: bool) -> RefreshReport {
        self.last = Some(Instant::now());
        let report = self.try_urls(accept).await;
        let report = self.conclude(report).await;
        self.source.refreshed();
        report
    }

    /// Has served what came of a refresh, and shows how it went.
    async fn conclude(&mut self, report: RefreshReport) -> RefreshReport {
        let is_success = matches!(report.result, RefreshResult::Changed | RefreshResult::Unchanged);
        self.failures = if is_success { 0 } else { self.failures.saturating_add(1) };
        let now = self.means.clock.now();
        self.means.metrics.refreshed(self.source.name(), report.result.label(), now.as_second());
        let is_retired = self.past.retire(now, self.options.grace).await;
        if self.past.set_stale(!is_success) || is_retired || report.result == RefreshResult::Changed {
            self.publish().await;
        }
        self.means.status.refreshed(&report, now, self.past.newest());
        log(&report);
        report
    }

    /// Tries one URL after the other until one has a good set of documents.
    async fn try_urls(&mut self, accept: bool) -> RefreshReport {
        let mut report = self.report(RefreshResult::Failed, Some("it has no URL".to_owned()));
        for url in self.source.order() {
            let before = report;
            let gatherer =
                Gatherer { source: &self.source, url, past: &self.past, bounds: &self.options.bounds, now: self.means.clock.now() };
            match gatherer.gather().await {
                Ok(gathered) => {
                    self.source.succeeded(url);
                    let next = self.take(gathered, accept).await;
                    if next.result != RefreshResult::Refused {
                        return next;
                    }
                    report = next;
                }
                Err(NotGathered::Failure(path, failure)) => {
                    self.source.failed(url, &failure);
                    report = self.report(RefreshResult::Failed, Some(format!("{path}: {failure}")));
                }
                Err(NotGathered::Refusal(refusal)) => {
                    // A page in the place of documents is as good as no answer, also for files.
                    if refusal.is_no_document() {
                        self.source.failed(url, &Failure::Nonsense(refusal.to_string()));
                    }
                    report = self.report(RefreshResult::Refused, Some(refusal.to_string()));
                }
            }
            report.url = self.source.upstream().urls().get(url).cloned();
            if before.acceptable {
                // A person can take what that one had.
                report = before;
            }
        }
        report
    }

    /// Puts a set of documents in the place of the old one, if it is good or a person says so.
    async fn take(&mut self, gathered: Gathered, accept: bool) -> RefreshReport {
        let url = Some(gathered.snapshot.url.clone());
        let report = if self.past.has(&gathered.snapshot) {
            self.past.confirm(gathered.validators).await;
            self.report(RefreshResult::Unchanged, None)
        } else {
            match verdict::judge(self.past.census(), &gathered.census, self.options.max_gone_percent) {
                Err(refusal) if !accept => {
                    let report = self.compare(&gathered.census, RefreshResult::Refused, Some(refusal.to_string()));
                    RefreshReport { acceptable: true, ..report }
                }
                _ => self.replace(gathered).await,
            }
        };
        RefreshReport { url, ..report }
    }

    async fn replace(&mut self, gathered: Gathered) -> RefreshReport {
        let report = self.compare(&gathered.census, RefreshResult::Changed, None);
        match self.past.replace(gathered).await {
            Ok(()) => report,
            Err(error) => self.report(RefreshResult::Failed, Some(format!("cannot write the documents down: {error}"))),
        }
    }

    async fn publish(&self) {
        let published = self.means.publisher.replace(Arc::clone(self.source.name()), self.past.documents()).await;
        if let Err(error) = published {
            tracing::debug!(remote = %self.source.name(), %error, "documents are not published");
        }
    }

    fn report(&self, result: RefreshResult, reason: Option<String>) -> RefreshReport {
        let images = self.past.census().map_or(0, Census::total);
        RefreshReport {
            remote: self.source.name().to_string(),
            result,
            reason,
            acceptable: false,
            url: None,
            images_before: images,
            images_after: images,
            products_added: Vec::new(),
            products_gone: Vec::new(),
        }
    }

    fn compare(&self, new: &Census, result: RefreshResult, reason: Option<String>) -> RefreshReport {
        let empty = Census::default();
        let old = self.past.census().unwrap_or(&empty);
        let without =
            |one: &Census, other: &Census| one.images.keys().filter(|product| !other.images.contains_key(*product)).cloned().collect();
        RefreshReport {
            images_after: new.total(),
            products_added: without(new, old),
            products_gone: without(old, new),
            ..self.report(result, reason)
        }
    }
}

/// What came in bundles, as if an image server had sent it.
async fn gathered(past: &Past, snapshot: Arc<Snapshot>) -> Result<Gathered, Refusal> {
    let counted = Arc::clone(&snapshot);
    let census = blocking(move || Ok(Census::of(&counted))).await.map_err(|error| Refusal::TooMuch(error.to_string()))??;
    let staged = if past.has(&snapshot) { Ok(()) } else { past.stage(Arc::clone(&snapshot)).await };
    // Nobody is asked next time.
    let validators = (Snapshot::url_of_bundle(""), BTreeMap::new());
    Ok(Gathered { snapshot, staged, census, validators })
}

/// Tells people how it went; they may have left.
fn tell(replies: Vec<oneshot::Sender<RefreshReport>>, report: &RefreshReport) {
    replies.into_iter().for_each(|reply| drop(reply.send(report.clone())));
}

fn log(report: &RefreshReport) {
    let RefreshReport { remote, result, images_before, images_after, .. } = report;
    let (reason, url) = (report.reason.as_deref().unwrap_or_default(), report.url.as_deref().unwrap_or_default());
    match result {
        RefreshResult::Changed => tracing::info!(remote, url, images_before, images_after, "new documents"),
        RefreshResult::Unchanged => tracing::debug!(remote, url, "documents unchanged"),
        RefreshResult::Refused => tracing::error!(remote, url, reason, "documents refused; the old ones go on being served"),
        RefreshResult::Failed => tracing::warn!(remote, url, reason, "refresh failed; the old documents go on being served"),
    }
}
