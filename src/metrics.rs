//! What Prometheus sees.
//!
//! One method or gauge for each thing that happens; names and labels are in interface.md. Every series is there at 0
//! from the start, and no label takes a value that a host could choose.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// What came of a request, in the words of RFC 9111 and RFC 9211.
pub const RESULTS: [&str; 7] = ["hit", "miss", "collapsed", "stale", "negative", "bypass", "error"];
/// What can be asked for.
pub const ROUTES: [&str; 5] = ["document", "blob", "digest", "page", "other"];
/// How a refresh can end.
pub const REFRESHES: [&str; 4] = ["changed", "unchanged", "refused", "failed"];
/// Why an upstream can fail.
pub const FAILURES: [&str; 8] = ["connect", "timeout", "cut", "status", "redirect", "size", "protocol", "digest"];

/// The statuses that hosts are answered with.
const HOST_CODES: [u16; 14] = [200, 206, 304, 308, 400, 403, 404, 405, 412, 416, 500, 502, 503, 504];
/// Those that image servers have reason to answer with; 0 is none. A server may send any other, and must not make series by that.
const UPSTREAM_CODES: [u16; 14] = [0, 200, 206, 304, 401, 403, 404, 410, 416, 429, 500, 502, 503, 504];
/// All others.
const OTHER_CODE: &str = "other";
const METHODS: [&str; 3] = ["GET", "HEAD", "other"];
const KINDS: [&str; 2] = ["document", "blob"];
/// Why an image or a file leaves the store.
const EVICTIONS: [&str; 6] = ["idle", "expired", "superseded", "withdrawn", "size", "deleted"];
/// What images that are held are there for.
pub const IMAGE_STATES: [&str; 3] = ["cached", "kept", "leaving"];
const MISMATCHES: [&str; 4] = ["fetch", "fingerprint", "scrub", "document"];
const FIRST_BYTE_BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0];

/// All metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    cache_requests: IntCounterVec,
    http_requests: IntCounterVec,
    http_response_bytes: IntCounterVec,
    /// Bytes of those that the kernel sent out of files.
    pub http_sendfile_bytes: IntCounter,
    http_first_byte: HistogramVec,
    upstream_requests: IntCounterVec,
    upstream_received_bytes: IntCounterVec,
    upstream_failures: IntCounterVec,
    upstream_healthy: IntGaugeVec,
    upstream_url_healthy: IntGaugeVec,
    upstream_resumes: IntCounterVec,
    digest_mismatches: IntCounterVec,
    refreshes: IntCounterVec,
    refresh_success: GaugeVec,
    images_listed: IntGaugeVec,
    mirror_missing: IntGaugeVec,
    cache_images: IntGaugeVec,
    cache_evicted_bytes: IntCounterVec,
    images_updated: IntCounterVec,
    images_held_back: IntGaugeVec,
    images_held_back_oldest: IntGaugeVec,
    /// How long ago the unit that was not used for the longest was used.
    pub cache_oldest_use: IntGauge,
    /// When all that is held was last read again.
    pub scrub_last_completed: IntGauge,
    /// Bytes that the store holds.
    pub cache_size: IntGauge,
    /// Bytes that it may hold.
    pub cache_limit: IntGauge,
    /// Blobs that it holds.
    pub cache_blobs: IntGauge,
    /// Bytes that its file system has left.
    pub filesystem_free: IntGauge,
    /// Tasks of the runtime that are alive.
    tasks: IntGauge,
    /// 1 while the store takes new files.
    pub store_writable: IntGauge,
    /// Fetches under way.
    pub fetches_in_flight: IntGauge,
    /// Hosts that read from them.
    pub fetch_readers: IntGauge,
    /// When the certificate that hosts see ends.
    pub certificate_expiry: Gauge,
    /// Whether the configuration was taken when it was last read.
    pub last_reload_successful: IntGauge,
}

impl Metrics {
    /// Registers all metrics, with every series at 0 that does not depend on a remote.
    pub fn new() -> Self {
        let registry = Registry::new();
        let new = &registry;
        let metrics = Self {
            cache_requests: counters(
                new,
                "cache_requests_total",
                "Requests of hosts for documents and blobs, by what came of them.",
                &["remote", "kind", "result"],
            ),
            http_requests: counters(new, "http_requests_total", "HTTP requests of hosts.", &["route", "method", "code"]),
            http_response_bytes: counters(new, "http_response_bytes_total", "Bytes of bodies sent to hosts.", &["route", "result"]),
            http_sendfile_bytes: register(
                new,
                IntCounter::new(
                    "cistern_http_sendfile_bytes_total",
                    "Bytes of bodies that the kernel sent to hosts out of files; they are counted among the bytes of bodies, too.",
                ),
            ),
            http_first_byte: first_byte(new),
            upstream_requests: counters(
                new,
                "upstream_requests_total",
                "Requests to image servers; code 0 means no answer, and other is every code that has no series of its own.",
                &["remote", "kind", "code"],
            ),
            upstream_received_bytes: counters(
                new,
                "upstream_received_bytes_total",
                "Bytes of bodies received from image servers.",
                &["remote"],
            ),
            upstream_failures: counters(new, "upstream_failures_total", "Failures of image servers.", &["remote", "reason"]),
            upstream_healthy: gauges(new, "upstream_healthy", "Whether at least one URL of the remote answers.", &["remote"]),
            upstream_url_healthy: gauges(new, "upstream_url_healthy", "Whether a URL of the remote answers.", &["remote", "url"]),
            upstream_resumes: counters(new, "upstream_resumes_total", "Downloads that went on after they were cut off.", &["remote"]),
            digest_mismatches: counters(new, "digest_mismatch_total", "Files whose bytes were not what a document says.", &["source"]),
            refreshes: counters(new, "refresh_total", "Refreshes of remotes, by how they ended.", &["remote", "result"]),
            refresh_success: register(
                new,
                GaugeVec::new(
                    Opts::new(
                        "cistern_refresh_last_success_timestamp_seconds",
                        "When the remote's documents were last seen to be current; 0 if never.",
                    ),
                    &["remote"],
                ),
            ),
            images_listed: gauges(new, "images_listed", "Images listed for hosts.", &["remote"]),
            mirror_missing: gauges(new, "mirror_missing_bytes", "Bytes that a remote in mirror mode does not hold yet.", &["remote"]),
            cache_images: gauges(
                new,
                "cache_images",
                "Images that are held whole: cached for hosts, kept for a selection or a person, or leaving.",
                &["state"],
            ),
            cache_evicted_bytes: counters(new, "cache_evicted_bytes_total", "Bytes that left the store, by why.", &["reason"]),
            images_updated: counters(new, "images_updated_total", "Images whose place a newer version took.", &["remote"]),
            images_held_back: gauges(new, "images_held_back", "Images that are listed only when they are held.", &["remote"]),
            images_held_back_oldest: gauges(new, "images_held_back_oldest_seconds", "How long the oldest of these waits.", &["remote"]),
            cache_oldest_use: gauge(new, "cache_oldest_use_age_seconds", "How long ago that was used which was not used for the longest."),
            scrub_last_completed: gauge(
                new,
                "scrub_last_completed_timestamp_seconds",
                "When all that is held was last read again; 0 if it never was.",
            ),
            cache_size: gauge(new, "cache_size_bytes", "Bytes that the store holds."),
            cache_limit: gauge(new, "cache_limit_bytes", "Bytes that the store may hold."),
            cache_blobs: gauge(new, "cache_blobs", "Blobs that the store holds."),
            store_writable: gauge(new, "store_writable", "Whether the store took what it was given last."),
            tasks: gauge(
                new,
                "tasks",
                "What is done at this moment: connections, downloads, and what goes on for as long as the program does.",
            ),
            filesystem_free: gauge(new, "filesystem_free_bytes", "Bytes that the file system of the store has left."),
            fetches_in_flight: gauge(new, "fetches_in_flight", "Downloads under way."),
            fetch_readers: gauge(new, "fetch_readers", "Hosts that read from downloads under way."),
            certificate_expiry: register(
                new,
                Gauge::new("cistern_tls_certificate_expiry_timestamp_seconds", "When the certificate that hosts see ends."),
            ),
            last_reload_successful: gauge(
                new,
                "config_last_reload_successful",
                "Whether the configuration was taken when it was last read.",
            ),
            registry,
        };
        metrics.start();
        metrics
    }

    fn start(&self) {
        self.registry.register(Box::new(ProcessCollector::for_self())).expect("there is one such collector");
        let build = gauges(&self.registry, "build_info", "What runs here.", &["version", "revision"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), option_env!("CISTERN_REVISION").unwrap_or("unknown")]).set(1);
        for route in ROUTES {
            for method in METHODS {
                let codes = HOST_CODES.iter().map(ToString::to_string).chain([OTHER_CODE.to_owned()]);
                codes.for_each(|code| drop(self.http_requests.with_label_values(&[route, method, &code])));
            }
            for result in RESULTS {
                self.http_response_bytes.with_label_values(&[route, result]);
                self.http_first_byte.with_label_values(&[route, result]);
            }
        }
        // The documents at the root belong to no one remote.
        RESULTS.iter().for_each(|result| drop(self.cache_requests.with_label_values(&["", "document", result])));
        EVICTIONS.iter().for_each(|reason| drop(self.cache_evicted_bytes.with_label_values(&[reason])));
        IMAGE_STATES.iter().for_each(|state| drop(self.cache_images.with_label_values(&[state])));
        MISMATCHES.iter().for_each(|source| drop(self.digest_mismatches.with_label_values(&[source])));
        self.last_reload_successful.set(1);
    }

    /// Shows every series of a remote at 0, or as it is.
    pub fn add_remote(&self, remote: &str, urls: &[String]) {
        for kind in KINDS {
            RESULTS.iter().for_each(|result| drop(self.cache_requests.with_label_values(&[remote, kind, result])));
            let codes = UPSTREAM_CODES.iter().map(ToString::to_string).chain([OTHER_CODE.to_owned()]);
            codes.for_each(|code| drop(self.upstream_requests.with_label_values(&[remote, kind, &code])));
        }
        FAILURES.iter().for_each(|reason| drop(self.upstream_failures.with_label_values(&[remote, reason])));
        REFRESHES.iter().for_each(|result| drop(self.refreshes.with_label_values(&[remote, result])));
        self.upstream_received_bytes.with_label_values(&[remote]);
        self.upstream_resumes.with_label_values(&[remote]);
        self.upstream_is_healthy(remote, true);
        urls.iter().for_each(|url| self.upstream_url_is_healthy(remote, url, true));
        self.refresh_success.with_label_values(&[remote]);
        self.images_listed.with_label_values(&[remote]);
        self.mirror_missing.with_label_values(&[remote]);
        self.images_updated.with_label_values(&[remote]);
        self.images_held_back.with_label_values(&[remote]);
        self.images_held_back_oldest.with_label_values(&[remote]);
    }

    /// A host asked for a document or a blob.
    pub fn cache_requested(&self, remote: &str, kind: &str, result: &str) {
        self.cache_requests.with_label_values(&[remote, kind, result]).inc();
    }

    /// A host got the head of an answer, so many seconds after its request.
    pub fn http_answered(&self, route: &str, method: &str, code: u16, result: &str, seconds: f64) {
        self.http_requests.with_label_values(&[route, method, &label(code, &HOST_CODES)]).inc();
        self.http_first_byte.with_label_values(&[route, result]).observe(seconds);
    }

    /// A host got bytes of a body.
    pub fn http_sent(&self, route: &str, result: &str, bytes: u64) {
        self.http_response_bytes.with_label_values(&[route, result]).inc_by(bytes);
    }

    /// An image server answered; 0 if it did not.
    pub fn upstream_requested(&self, remote: &str, kind: &str, code: u16) {
        self.upstream_requests.with_label_values(&[remote, kind, &label(code, &UPSTREAM_CODES)]).inc();
    }

    /// An image server sent bytes.
    pub fn upstream_received(&self, remote: &str, bytes: usize) {
        self.upstream_received_bytes.with_label_values(&[remote]).inc_by(bytes as u64);
    }

    /// An image server failed, for one of [`FAILURES`].
    pub fn upstream_failed(&self, remote: &str, reason: &str) {
        self.upstream_failures.with_label_values(&[remote, reason]).inc();
    }

    /// Whether a URL of a remote answers.
    pub fn upstream_url_is_healthy(&self, remote: &str, url: &str, is_healthy: bool) {
        self.upstream_url_healthy.with_label_values(&[remote, url]).set(i64::from(is_healthy));
    }

    /// Whether at least one URL of a remote answers.
    pub fn upstream_is_healthy(&self, remote: &str, is_healthy: bool) {
        self.upstream_healthy.with_label_values(&[remote]).set(i64::from(is_healthy));
    }

    /// A download went on after it was cut off.
    pub fn upstream_resumed(&self, remote: &str) {
        self.upstream_resumes.with_label_values(&[remote]).inc();
    }

    /// Bytes were not what a document says: those of a file (`fetch`), or those of a whole image (`fingerprint`), of a blob that was fine once (`scrub`),
    /// or those that a newer document puts in the place of others (`document`).
    pub fn digest_mismatched(&self, source: &str) {
        self.digest_mismatches.with_label_values(&[source]).inc();
    }

    /// A refresh ended in one of the ways of [`REFRESHES`], at this second.
    pub fn refreshed(&self, remote: &str, result: &str, second: i64) {
        self.refreshes.with_label_values(&[remote, result]).inc();
        if matches!(result, "changed" | "unchanged") {
            #[expect(clippy::cast_precision_loss, reason = "a time of day fits a double for millions of years")]
            self.refresh_success.with_label_values(&[remote]).set(second as f64);
        }
    }

    /// So many images of a remote are listed.
    pub fn images_are_listed(&self, remote: &str, images: usize) {
        self.images_listed.with_label_values(&[remote]).set(i64::try_from(images).unwrap_or(i64::MAX));
    }

    /// So many bytes of what a remote in mirror mode lists are not held yet.
    pub fn mirror_is_missing(&self, remote: &str, bytes: u64) {
        self.mirror_missing.with_label_values(&[remote]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Bytes left the store, for one of the reasons.
    pub fn cache_evicted(&self, reason: &str, bytes: u64) {
        self.cache_evicted_bytes.with_label_values(&[reason]).inc_by(bytes);
    }

    /// So many images are held, in the order of [`IMAGE_STATES`].
    pub fn images_are_held(&self, images: [usize; 3]) {
        for (state, count) in IMAGE_STATES.iter().zip(images) {
            self.cache_images.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A newer version took the place of an image.
    pub fn image_updated(&self, remote: &str) {
        self.images_updated.with_label_values(&[remote]).inc();
    }

    /// So many images of a remote are held back, the oldest of them for so long.
    pub fn images_are_held_back(&self, remote: &str, images: usize, oldest_seconds: i64) {
        self.images_held_back.with_label_values(&[remote]).set(i64::try_from(images).unwrap_or(i64::MAX));
        self.images_held_back_oldest.with_label_values(&[remote]).set(oldest_seconds);
    }

    /// Everything, in the text format of Prometheus.
    pub fn render(&self) -> String {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.tasks.set(i64::try_from(runtime.metrics().num_alive_tasks()).unwrap_or(i64::MAX));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> C {
    let collector = collector.expect("the names and labels in this file are good ones");
    registry.register(Box::new(collector.clone())).expect("no name in this file stands there twice");
    collector
}

/// How a status is called, if it is one of these.
fn label(code: u16, codes: &[u16]) -> String {
    if codes.contains(&code) { code.to_string() } else { OTHER_CODE.to_owned() }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(format!("cistern_{name}"), help), labels))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(format!("cistern_{name}"), help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(format!("cistern_{name}"), help))
}

fn first_byte(registry: &Registry) -> HistogramVec {
    let help = "Seconds from a host's request to the head of the answer.";
    let options = HistogramOpts::new("cistern_http_time_to_first_byte_seconds", help).buckets(FIRST_BYTE_BUCKETS.to_vec());
    register(registry, HistogramVec::new(options, &["route", "result"]))
}
