//! What is counted of one answer; when it is over, it is logged.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::metrics::Metrics;
use crate::server::access::Entry;

/// So many bytes are counted at once: a counter is no place for every frame.
const STEP_BYTES: u64 = 8 << 20;

/// One answer: counted while its body is sent, and logged when that is over.
#[derive(Debug)]
pub struct Tally {
    metrics: Arc<Metrics>,
    route: &'static str,
    result: &'static str,
    uncounted: u64,
    sent: u64,
    entry: Option<Entry>,
}

/// A body whose bytes are counted.
#[derive(Debug)]
pub struct Tallied<B> {
    body: B,
    tally: Tally,
}

impl<B> Tallied<B> {
    /// The body, and what it is to be counted in.
    pub fn into_parts(self) -> (B, Tally) {
        (self.body, self.tally)
    }
}

impl Tally {
    /// The tally of an answer that has not been sent yet.
    pub fn new(metrics: Arc<Metrics>, route: &'static str, result: &'static str, entry: Option<Entry>) -> Self {
        Self { metrics, route, result, uncounted: 0, sent: 0, entry }
    }

    /// Counts what is sent of a body.
    pub fn count_in<B>(self, body: B) -> Tallied<B> {
        Tallied { body, tally: self }
    }

    /// Counts bytes that were sent.
    pub fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
        self.uncounted += bytes;
        if self.uncounted >= STEP_BYTES {
            self.count();
        }
    }

    fn count(&mut self) {
        self.metrics.http_sent(self.route, self.result, std::mem::take(&mut self.uncounted));
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.count();
        if let Some(entry) = self.entry.take() {
            entry.log(self.sent, self.result);
        }
    }
}

impl<B: hyper::body::Body<Data = Bytes> + Unpin> hyper::body::Body for Tallied<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(bytes) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.tally.sent(bytes.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
