//! The access log: a line on standard output for each answer, when it is over.
//!
//! Lines are written by a thread of their own. If whoever reads them is too slow, lines are lost and no host waits.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use jiff::Timestamp;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// How many lines may wait to be written.
const QUEUED_LINES: usize = 8192;

/// How long a stop waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(1500);

/// The form of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The format of that name, that Apache and nginx use.
    Combined,
    /// JSON.
    Json,
}

/// Who has the log written. The thread that does it begins with the first line.
#[derive(Debug, Default)]
pub struct Scribe(OnceLock<Writing>);

#[derive(Debug)]
struct Writing {
    lines: NonBlocking,
    lost: ErrorCounter,
    reported: AtomicUsize,
    /// Dropped, it lets the thread write what it has.
    thread: Option<WorkerGuard>,
}

/// A line of the log, but for what is known at the end only.
#[derive(Clone, Debug)]
pub struct Entry {
    /// In which form.
    pub form: Form,
    /// Who writes it.
    pub lines: NonBlocking,
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

impl Scribe {
    /// Who takes lines.
    pub fn lines(&self) -> NonBlocking {
        self.0.get_or_init(Writing::begin).lines.clone()
    }

    /// Says so if lines were lost since this was asked last.
    pub fn report_lost(&self) {
        let Some(writing) = self.0.get() else { return };
        let lost = writing.lost.dropped_lines();
        let more = lost - writing.reported.swap(lost, Ordering::Relaxed).min(lost);
        if more > 0 {
            tracing::warn!(lines = more, "lines of the access log were lost; whoever reads them is too slow");
        }
    }
}

impl Writing {
    fn begin() -> Self {
        let builder = NonBlockingBuilder::default().buffered_lines_limit(QUEUED_LINES).lossy(true).thread_name("access-log");
        let (lines, thread) = builder.finish(io::stdout());
        Self { lost: lines.error_counter(), lines, reported: AtomicUsize::new(0), thread: Some(thread) }
    }
}

impl Drop for Writing {
    /// Lets the thread write what it has, for a while. If nobody reads that, the library would say so where nobody reads, and wait
    /// for ever; so that is left to a thread that is not waited for.
    fn drop(&mut self) {
        let (thread, (ended, wait)) = (self.thread.take(), mpsc::channel());
        std::thread::spawn(move || {
            drop(thread);
            ended.send(())
        });
        // An error is that it took too long.
        let _ = wait.recv_timeout(LAST_LINES);
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.report_lost();
    }
}

impl Entry {
    /// Logs it.
    pub fn log(mut self, bytes: u64, result: &str) {
        let line = match self.form {
            Form::Combined => self.combined(bytes),
            Form::Json => self.json(bytes, result),
        };
        // It cannot fail: a line that there is no room for is counted as lost.
        let _ = self.lines.write_all(format!("{line}\n").as_bytes());
    }

    fn combined(&self, bytes: u64) -> String {
        let Self { client, method, target, version, user_agent, status, .. } = self;
        let time = self.time.strftime("%d/%b/%Y:%H:%M:%S +0000");
        format!("{client} - - [{time}] \"{method} {target} {version}\" {status} {bytes} \"-\" \"{user_agent}\"")
    }

    fn json(&self, bytes: u64, result: &str) -> String {
        let Self { client, method, target, version, user_agent, status, .. } = self;
        let line = serde_json::json!({
            "time": self.time.to_string(),
            "client": client, "method": method, "target": target, "version": version,
            "status": status, "bytes": bytes, "result": result, "user_agent": user_agent,
        });
        line.to_string()
    }
}
