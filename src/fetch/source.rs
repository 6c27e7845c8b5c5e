//! A remote as something to draw from: its upstream, and how well each of its URLs does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::digest::Expected;
use crate::health::{Health, Illness};
use crate::metrics::Metrics;
use crate::upstream::{Failure, Upstream};

/// Of so many files it is remembered who sent wrong bytes for them.
const WRONG_FILES: u64 = 1024;
/// For so long: the next refresh may have made it good.
const WRONG_TIME: Duration = Duration::from_hours(6);

/// A remote's upstream and its health, shared by refresh and fetches.
#[derive(Debug)]
pub struct Source {
    name: Arc<str>,
    upstream: Arc<dyn Upstream>,
    health: Mutex<Health>,
    /// Which URL sent wrong bytes for which file, lately.
    wrong: moka::sync::Cache<(Expected, usize), Instant>,
    /// Whether nobody may be asked any more.
    is_closed: AtomicBool,
    /// Counts how often upstream was asked for documents.
    refreshes: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Source {
    /// A remote of which nothing bad is known.
    pub fn new(name: Arc<str>, upstream: Arc<dyn Upstream>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let health = Mutex::new(Health::new(upstream.urls().len()));
        metrics.add_remote(&name, upstream.urls());
        let wrong = moka::sync::Cache::builder().max_capacity(WRONG_FILES).time_to_live(WRONG_TIME).build();
        Self { name, upstream, health, wrong, is_closed: AtomicBool::new(false), refreshes: watch::Sender::new(0), clock, metrics }
    }

    /// The remote's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whom to ask.
    pub fn upstream(&self) -> &Arc<dyn Upstream> {
        &self.upstream
    }

    /// Nobody may be asked any more. What is being sent already may come to its end.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Whether that is so.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Notes that upstream was asked for documents: what it did not have it may have now.
    pub fn refreshed(&self) {
        self.refreshes.send_modify(|count| *count += 1);
    }

    /// Tells when that was.
    pub fn refreshes(&self) -> watch::Receiver<u64> {
        self.refreshes.subscribe()
    }

    /// In which order the URLs are to be tried.
    pub fn order(&self) -> Vec<usize> {
        self.with(|health| health.order(self.clock.now(), |_| None::<Instant>))
    }

    /// The same for a file. Those that sent wrong bytes in its place come last, and first of them the one that did so the longest
    /// ago; those that did so within this time do not come at all, unless all of them did.
    pub fn order_for(&self, file: Expected, within: Duration) -> Vec<usize> {
        let mut order = self.with(|health| health.order(self.clock.now(), |url| self.wrong.get(&(file, url))));
        let now = Instant::now();
        if !self.has_only_wrong(file, now, within) {
            order.retain(|url| !self.sent_it_wrong(*url, file, now, within));
        }
        order
    }

    /// Whether every URL sent wrong bytes in the place of a file, within this time before that.
    pub fn has_only_wrong(&self, file: Expected, then: Instant, within: Duration) -> bool {
        (0..self.upstream.urls().len()).all(|url| self.sent_it_wrong(url, file, then, within))
    }

    fn sent_it_wrong(&self, url: usize, file: Expected, then: Instant, within: Duration) -> bool {
        self.wrong.get(&(file, url)).is_some_and(|at| then.saturating_duration_since(at) < within)
    }

    /// A URL that failed and may be back. Whoever asks for it is the one who tries it.
    pub fn probe(&self) -> Option<usize> {
        self.with(|health| health.probe(self.clock.now()))
    }

    /// Whether at least one URL is worth asking now.
    pub fn is_healthy(&self) -> bool {
        self.with(|health| health.is_healthy())
    }

    /// How long all of its URLs asked to be left alone.
    pub fn rest(&self) -> Option<Duration> {
        self.with(|health| health.rest(self.clock.now()))
    }

    /// What is wrong with those of its URLs that fail.
    pub fn illnesses(&self) -> Vec<(&str, Illness)> {
        let urls = self.upstream.urls();
        self.with(|health| urls.iter().enumerate().filter_map(|(at, url)| Some((url.as_str(), health.illness(at)?))).collect())
    }

    /// Notes that a URL answered as it should.
    pub fn succeeded(&self, url: usize) {
        self.note(url, |health| health.answered(url, self.clock.now()));
    }

    /// Notes that a URL sent a file that is right.
    pub fn proved(&self, url: usize) {
        self.note(url, |health| health.proved(url));
    }

    /// Notes that a URL that was tried answers again.
    pub fn is_back(&self, url: usize) {
        self.note(url, |health| health.is_back(url));
    }

    /// Notes what a URL did instead. To say that a file is not there is no failure.
    pub fn failed(&self, url: usize, failure: &Failure) {
        self.metrics.upstream_failed(&self.name, failure.label());
        if !failure.is_gone() {
            self.note(url, |health| health.failed(url, self.clock.now(), failure.retry_after()));
        }
        let url = self.upstream.urls().get(url).map_or("", String::as_str);
        tracing::info!(remote = %self.name, url, %failure, "upstream failed");
    }

    /// Notes that a URL began a file that turned out to be wrong, and that others went on with.
    pub fn note_doubtful(&self, url: usize, file: Expected) {
        self.wrong.insert((file, url), Instant::now());
        self.metrics.upstream_failed(&self.name, "digest");
        self.metrics.digest_mismatched("fetch");
    }

    /// Notes that a URL sent wrong bytes in the place of a file.
    pub fn sent_wrong_bytes(&self, url: usize, file: Expected) {
        self.note_doubtful(url, file);
        self.note(url, |health| health.sent_wrong_bytes(url, self.clock.now()));
    }

    /// Changes what is known of a URL, and shows it.
    fn note(&self, url: usize, change: impl FnOnce(&mut Health)) {
        let [is_healthy, is_url_healthy] = self.with(|health| {
            change(health);
            [health.is_healthy(), health.illness(url).is_none()]
        });
        self.metrics.upstream_is_healthy(&self.name, is_healthy);
        if let Some(url) = self.upstream.urls().get(url) {
            self.metrics.upstream_url_is_healthy(&self.name, url, is_url_healthy);
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Health) -> T) -> T {
        act(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
