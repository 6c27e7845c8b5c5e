//! Watches the answers of an h2 connection.
//!
//! Over HTTP/1.1 a host that takes nothing fills its socket, and writing to it stalls. Over h2 a host can answer every
//! ping and open no window: then nothing is written at all, and only the answers show that they do not move.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// How often a connection is looked at, as a share of the shortest patience.
const LOOKS: u32 = 4;

/// The requests of a connection that are under way. There are no more of them than h2 streams.
#[derive(Debug)]
pub struct Watch {
    requests: Mutex<Requests>,
}

#[derive(Debug)]
struct Requests {
    under_way: HashMap<u64, Turn>,
    next: u64,
    /// When one came or ended last.
    last: Instant,
}

/// Whose turn it is in a request.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// Ours, to bring the next bytes.
    Ours,
    /// The host's, to take what there is, since then.
    Theirs(Instant),
}

/// Why a connection is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Verdict {
    /// A host takes nothing of any answer.
    #[error("the host takes nothing any more")]
    Stalled,
    /// There was no request for long.
    #[error("the host asks nothing any more")]
    Idle,
}

/// A request that is watched until this is dropped.
#[derive(Debug)]
pub struct Watched {
    watch: Arc<Watch>,
    number: u64,
}

/// The body of an answer that is watched.
#[derive(Debug)]
pub struct WatchedBody<B> {
    body: B,
    request: Watched,
}

impl Default for Watch {
    fn default() -> Self {
        Self { requests: Mutex::new(Requests { under_way: HashMap::new(), next: 0, last: Instant::now() }) }
    }
}

impl Watch {
    /// Watches a request from now on. It is our turn first.
    pub fn begin(self: &Arc<Self>) -> Watched {
        let mut requests = self.requests();
        let number = requests.next;
        requests.next += 1;
        requests.last = Instant::now();
        requests.under_way.insert(number, Turn::Ours);
        Watched { watch: Arc::clone(self), number }
    }

    /// Returns when a host has taken nothing for `stalled` while there was something for it to take in every answer, or has
    /// asked nothing for `idle`.
    pub async fn verdict(&self, stalled: Duration, idle: Duration) -> Verdict {
        loop {
            tokio::time::sleep(stalled.min(idle) / LOOKS).await;
            if let Some(verdict) = self.look(stalled, idle) {
                return verdict;
            }
        }
    }

    fn look(&self, stalled: Duration, idle: Duration) -> Option<Verdict> {
        let requests = self.requests();
        let now = Instant::now();
        if requests.under_way.is_empty() {
            return (now - requests.last >= idle).then_some(Verdict::Idle);
        }
        // A host may read one answer after the other: as long as one of them moves, it is alive.
        let is_stalled = |turn: &Turn| matches!(turn, Turn::Theirs(since) if now - *since >= stalled);
        requests.under_way.values().all(is_stalled).then_some(Verdict::Stalled)
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Goes on to watch the answer.
    pub fn over<B>(self, body: B) -> WatchedBody<B> {
        self.turn(Turn::Theirs(Instant::now()));
        WatchedBody { body, request: self }
    }

    fn turn(&self, turn: Turn) {
        self.watch.requests().under_way.insert(self.number, turn);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut requests = self.watch.requests();
        requests.under_way.remove(&self.number);
        requests.last = Instant::now();
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for WatchedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // hyper asks for a frame only when there is window for it: while it does not ask, it is the host that waits.
        self.request.turn(if frame.is_pending() { Turn::Ours } else { Turn::Theirs(Instant::now()) });
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::Frame;
    use tokio::time::{Instant, sleep, timeout};

    use crate::server::watch::{Verdict, Watch};

    const STALLED: Duration = Duration::from_mins(1);
    const IDLE: Duration = Duration::from_secs(15);

    type Piece = Result<Frame<Bytes>, Infallible>;

    fn frame(byte: &'static [u8]) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(byte))
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_takes_nothing_is_told_from_an_upstream_that_brings_nothing() {
        let watch = Arc::new(Watch::default());
        let slow = stream::iter([Piece::Ok(frame(b"a"))]).chain(stream::once(async {
            sleep(10 * STALLED).await;
            Piece::Ok(frame(b"b"))
        }));
        let mut answer = watch.begin().over(StreamBody::new(Box::pin(slow)));
        answer.frame().await.unwrap().unwrap();
        let waiting = tokio::spawn(async move {
            answer.frame().await.unwrap().unwrap();
            sleep(10 * STALLED).await;
        });
        let started = Instant::now();
        assert_eq!(watch.verdict(STALLED, IDLE).await, Verdict::Stalled);
        let waited = started.elapsed();
        assert!(waited >= 11 * STALLED && waited < 12 * STALLED, "only the host's own time counts: {waited:?}");
        waiting.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_answers_is_idle_after_a_while() {
        let watch = Arc::new(Watch::default());
        let answer = watch.begin().over(StreamBody::new(stream::pending::<Piece>()));
        let mut answer = Box::pin(answer);
        assert!(timeout(10 * IDLE, answer.frame()).await.is_err());
        assert!(timeout(IDLE, watch.verdict(STALLED, IDLE)).await.is_err(), "an answer is under way");
        drop(answer);
        let started = Instant::now();
        assert_eq!(watch.verdict(STALLED, IDLE).await, Verdict::Idle);
        assert!(started.elapsed() <= 2 * IDLE, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn many_short_requests_and_one_long_wait_for_upstream_are_no_idleness() {
        let watch = Arc::new(Watch::default());
        let asking = Arc::clone(&watch);
        let busy = tokio::spawn(async move {
            for _ in 0..20 {
                drop(asking.begin());
                sleep(IDLE / 2).await;
            }
            let long = asking.begin();
            sleep(10 * IDLE).await;
            drop(long);
        });
        assert!(timeout(19 * IDLE, watch.verdict(STALLED, IDLE)).await.is_err());
        assert_eq!(watch.verdict(STALLED, IDLE).await, Verdict::Idle);
        assert!(busy.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_reads_one_answer_after_the_other_is_alive() {
        let watch = Arc::new(Watch::default());
        let full = || StreamBody::new(stream::repeat_with(|| Piece::Ok(frame(b"a"))));
        let (_waiting, mut read) = (watch.begin().over(full()), watch.begin().over(full()));
        let reading = tokio::spawn(async move {
            for _ in 0..10 {
                sleep(STALLED / 2).await;
                read.frame().await.unwrap().unwrap();
            }
            sleep(10 * STALLED).await;
        });
        let started = Instant::now();
        assert_eq!(watch.verdict(STALLED, IDLE).await, Verdict::Stalled);
        assert!(started.elapsed() >= 6 * STALLED, "{:?}", started.elapsed());
        reading.abort();
    }
}
