//! Bodies of answers, and what is counted of them.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::cache::chunk::Chunks;
use crate::cache::error::FetchError;
use crate::cache::lease::Lent;
use crate::cache::reader::Reader;
use crate::fetch::shares::Turn;

/// What is sent to a host. An error in it breaks the connection.
#[derive(Debug)]
pub enum Body {
    /// A part of a blob, of which nothing was read yet: the kernel may send it ([`crate::server::lane`]).
    Part(Part),
    /// A file that is fetched, of which nothing was read yet: the same.
    Flow(Flow),
    /// Whatever is made frame by frame.
    Frames(UnsyncBoxBody<Bytes, FetchError>),
}

/// A part of a blob.
#[derive(Debug)]
pub struct Part {
    /// The blob.
    pub blob: Lent,
    /// Which of its bytes.
    pub range: Range<u64>,
    /// The reader's seat, kept until the part is sent.
    pub seat: Option<Turn>,
}

/// A file that is fetched.
#[derive(Debug)]
pub struct Flow {
    /// The host's way through it.
    pub reader: Reader,
    /// The reader's seat, kept until all is sent.
    pub seat: Option<Turn>,
}

/// The first frame. A host that takes nothing costs no more memory than this.
const SMALL_FRAME: usize = 32 * 1024;
/// The frames of a host that takes everything at once.
const LARGE_FRAME: usize = 256 * 1024;
/// The same while the file is fetched: upstream is rarely as fast as hosts, and there may be hundreds of them.
const FETCHED_FRAME: usize = 64 * 1024;
/// A host that asks for the next frame within this time takes everything at once.
const QUICK: Duration = Duration::from_millis(5);

/// Nothing.
pub fn empty() -> Body {
    Body::Frames(Empty::new().map_err(|never| match never {}).boxed_unsync())
}

/// Bytes that are in memory.
pub fn full(bytes: Bytes) -> Body {
    Body::Frames(Full::new(bytes).map_err(|never| match never {}).boxed_unsync())
}

/// A part of a blob.
pub fn of_blob(blob: Lent, range: Range<u64>) -> Body {
    Body::Part(Part { blob, range, seat: None })
}

/// The frames of a part.
fn frames_of_part(Part { blob, range, seat }: Part) -> UnsyncBoxBody<Bytes, FetchError> {
    let end = range.end;
    let begin = (blob, range.start, Pace::up_to(LARGE_FRAME), Chunks::default());
    let frames = stream::try_unfold(begin, move |(blob, position, mut pace, mut chunks)| async move {
        if position >= end {
            return Ok(None);
        }
        let len = usize::try_from(end - position).unwrap_or(usize::MAX).min(pace.frame().await);
        let read = chunks.read(blob.file(), position, len).await.inspect_err(|_| blob.note_failure());
        let bytes = read.map_err(|error| FetchError::Disk(error.to_string()))?;
        if blob.is_broken() {
            return Err(FetchError::Broken);
        }
        if bytes.is_empty() {
            blob.note_failure();
            return Err(FetchError::Disk("a blob is shorter than it was".to_owned()));
        }
        let position = position + bytes.len() as u64;
        Ok(Some((Frame::data(bytes), (blob, position, pace, chunks))))
    });
    keep(StreamBody::new(frames).boxed_unsync(), seat)
}

/// A body that keeps its reader's seat until it is over.
pub fn with_seat(body: Body, seat: Turn) -> Body {
    match body {
        Body::Part(part) => Body::Part(Part { seat: Some(seat), ..part }),
        Body::Flow(flow) => Body::Flow(Flow { seat: Some(seat), ..flow }),
        Body::Frames(frames) => Body::Frames(keep(frames, Some(seat))),
    }
}

fn keep(frames: UnsyncBoxBody<Bytes, FetchError>, seat: Option<Turn>) -> UnsyncBoxBody<Bytes, FetchError> {
    let kept = move |frame| {
        let _ = &seat;
        frame
    };
    frames.map_frame(kept).boxed_unsync()
}

/// What a reader reads.
pub fn of_reader(reader: Reader) -> Body {
    Body::Flow(Flow { reader, seat: None })
}

/// The frames of a file that is fetched.
fn frames_of_flow(Flow { reader, seat }: Flow) -> UnsyncBoxBody<Bytes, FetchError> {
    let frames = stream::try_unfold((reader, Pace::up_to(FETCHED_FRAME)), |(mut reader, mut pace)| async move {
        let Some(bytes) = reader.next(pace.frame().await).await.transpose()? else { return Ok(None) };
        Ok::<_, FetchError>(Some((Frame::data(bytes), (reader, pace))))
    });
    keep(StreamBody::new(frames).boxed_unsync(), seat)
}

impl Body {
    fn into_frames(self) -> UnsyncBoxBody<Bytes, FetchError> {
        match self {
            Self::Part(part) => frames_of_part(part),
            Self::Flow(flow) => frames_of_flow(flow),
            Self::Frames(frames) => frames,
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = FetchError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, FetchError>>> {
        if !matches!(*self, Self::Frames(_)) {
            *self = Self::Frames(std::mem::replace(&mut *self, empty()).into_frames());
        }
        let Self::Frames(frames) = &mut *self else { return Poll::Ready(None) };
        Pin::new(frames).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Part(part) => part.range.is_empty(),
            Self::Flow(_) => false,
            Self::Frames(frames) => frames.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Part(part) => SizeHint::with_exact(part.range.end - part.range.start),
            Self::Flow(flow) => flow.reader.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Frames(frames) => frames.size_hint(),
        }
    }
}

/// How large the next frame is: frames grow only while the host takes them at once, so that a thousand slow hosts cost
/// little.
#[derive(Debug)]
struct Pace {
    frame: usize,
    largest: usize,
    asked: Option<Instant>,
}

impl Pace {
    fn up_to(largest: usize) -> Self {
        Self { frame: SMALL_FRAME, largest, asked: None }
    }

    async fn frame(&mut self) -> usize {
        let now = Instant::now();
        let is_quick = self.asked.is_some_and(|before| now - before < QUICK);
        if self.asked.is_some() {
            // Between two frames it is others' turn: whoever comes last in a herd gets its first byte before the first in
            // it gets its tenth.
            tokio::task::yield_now().await;
        }
        self.asked = Some(Instant::now());
        self.frame = if is_quick { self.largest.min(self.frame * 2) } else { SMALL_FRAME };
        self.frame
    }
}
