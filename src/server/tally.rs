//! What is counted and logged of one answer.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use jiff::Timestamp;

use crate::metrics::Metrics;
use crate::server::door::AccessLog;

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
    access: Option<Access>,
}

/// A body whose bytes are counted.
#[derive(Debug)]
pub struct Tallied<B> {
    body: B,
    tally: Tally,
}

/// A line of the access log.
#[derive(Clone, Debug)]
pub struct Access {
    /// In which form.
    pub log: AccessLog,
    /// When it was asked.
    pub time: Timestamp,
    /// Who asked.
    pub client: IpAddr,
    /// How.
    pub method: String,
    /// For what.
    pub target: String,
    /// In which version of HTTP.
    pub version: String,
    /// By what it calls itself.
    pub user_agent: String,
    /// What it was answered.
    pub status: u16,
}

impl Tally {
    /// The tally of an answer that has not been sent yet.
    pub fn new(metrics: Arc<Metrics>, route: &'static str, result: &'static str, access: Option<Access>) -> Self {
        Self { metrics, route, result, uncounted: 0, sent: 0, access }
    }

    /// Counts what is sent of a body.
    pub fn count_in<B>(self, body: B) -> Tallied<B> {
        Tallied { body, tally: self }
    }

    fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.uncounted += bytes as u64;
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
        if let Some(access) = self.access.take() {
            access.log(self.sent, self.result);
        }
    }
}

impl<B: hyper::body::Body<Data = Bytes> + Unpin> hyper::body::Body for Tallied<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(bytes) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.tally.sent(bytes.len());
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

impl Access {
    fn log(&self, bytes: u64, result: &str) {
        let Self { client, method, target, version, user_agent, status, .. } = self;
        match self.log {
            AccessLog::Off => {}
            AccessLog::Combined => {
                let time = self.time.strftime("%d/%b/%Y:%H:%M:%S +0000");
                print(&format!("{client} - - [{time}] \"{method} {target} {version}\" {status} {bytes} \"-\" \"{user_agent}\""));
            }
            AccessLog::Json => {
                let line = serde_json::json!({
                    "time": self.time.to_string(),
                    "client": client, "method": method, "target": target, "version": version,
                    "status": status, "bytes": bytes, "result": result, "user_agent": user_agent,
                });
                print(&line.to_string());
            }
        }
    }
}

/// Prints a line. A reader of the log that has gone away is no reason to stop serving, so errors are let go.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
