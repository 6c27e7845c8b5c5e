//! Watches the answers of an h2 connection.
//!
//! Over HTTP/1.1 a host that takes nothing fills its socket, and writing to it stalls. Over h2 a host can answer every
//! ping and open no window: then nothing is written at all, and only the answers show that they do not move.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// How often a connection is looked at, as a share of the shortest patience.
const LOOKS: u32 = 4;

/// The answers of a connection.
#[derive(Debug)]
pub struct Watch {
    answers: Mutex<Answers>,
}

#[derive(Debug)]
struct Answers {
    under_way: Vec<Weak<Mutex<Turn>>>,
    /// When there was one last.
    last: Instant,
}

/// Whose turn it is in an answer.
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
    /// A host takes nothing of an answer.
    #[error("the host takes nothing any more")]
    Stalled,
    /// There was no request for long.
    #[error("the host asks nothing any more")]
    Idle,
}

/// An answer that is watched.
#[derive(Debug)]
pub struct Watched<B> {
    body: B,
    turn: Arc<Mutex<Turn>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { answers: Mutex::new(Answers { under_way: Vec::new(), last: Instant::now() }) }
    }
}

impl Watch {
    /// Watches an answer until it is over.
    pub fn over<B>(&self, body: B) -> Watched<B> {
        let turn = Arc::new(Mutex::new(Turn::Theirs(Instant::now())));
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.under_way.push(Arc::downgrade(&turn));
        Watched { body, turn }
    }

    /// Returns when a host has taken nothing of an answer for `stalled`, or asked nothing for `idle`.
    pub async fn verdict(&self, stalled: Duration, idle: Duration) -> Verdict {
        loop {
            tokio::time::sleep(stalled.min(idle) / LOOKS).await;
            if let Some(verdict) = self.look(stalled, idle) {
                return verdict;
            }
        }
    }

    fn look(&self, stalled: Duration, idle: Duration) -> Option<Verdict> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.under_way.retain(|turn| turn.strong_count() > 0);
        let turns = answers.under_way.iter().filter_map(Weak::upgrade).map(|turn| *lock(&turn));
        let now = Instant::now();
        let is_stalled = |turn| matches!(turn, Turn::Theirs(since) if now - since >= stalled);
        if turns.into_iter().any(is_stalled) {
            return Some(Verdict::Stalled);
        }
        if !answers.under_way.is_empty() {
            answers.last = now;
        }
        (now - answers.last >= idle).then_some(Verdict::Idle)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // hyper asks for a frame only when there is window for it: while it does not ask, it is the host that waits.
        *lock(&self.turn) = if frame.is_pending() { Turn::Ours } else { Turn::Theirs(Instant::now()) };
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn lock(turn: &Mutex<Turn>) -> std::sync::MutexGuard<'_, Turn> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
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
        let watch = Watch::default();
        let slow = stream::iter([Piece::Ok(frame(b"a"))]).chain(stream::once(async {
            sleep(10 * STALLED).await;
            Piece::Ok(frame(b"b"))
        }));
        let mut answer = watch.over(StreamBody::new(Box::pin(slow)));
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
        let watch = Watch::default();
        let answer = watch.over(StreamBody::new(stream::pending::<Piece>()));
        let mut answer = Box::pin(answer);
        assert!(timeout(10 * IDLE, answer.frame()).await.is_err());
        assert!(timeout(IDLE, watch.verdict(STALLED, IDLE)).await.is_err(), "an answer is under way");
        drop(answer);
        let started = Instant::now();
        assert_eq!(watch.verdict(STALLED, IDLE).await, Verdict::Idle);
        assert!(started.elapsed() <= 2 * IDLE, "{:?}", started.elapsed());
    }
}
