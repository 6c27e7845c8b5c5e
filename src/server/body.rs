//! Bodies of answers, and what is counted of them.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Frame;
use tokio::time::Instant;

use crate::cache::chunk;
use crate::cache::error::FetchError;
use crate::cache::lease::Lent;
use crate::cache::reader::Reader;
use crate::fetch::shares::Turn;

/// What is sent to a host. An error in it breaks the connection.
pub type Body = UnsyncBoxBody<Bytes, FetchError>;

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
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Bytes that are in memory.
pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A part of a blob.
pub fn of_blob(blob: Lent, range: Range<u64>) -> Body {
    let end = range.end;
    let frames = stream::try_unfold((blob, range.start, Pace::up_to(LARGE_FRAME)), move |(blob, position, mut pace)| async move {
        if position >= end {
            return Ok(None);
        }
        let len = usize::try_from(end - position).unwrap_or(usize::MAX).min(pace.frame().await);
        let read = chunk::read(blob.file(), position, len).await.inspect_err(|_| blob.note_failure());
        let bytes = read.map_err(|error| FetchError::Disk(error.to_string()))?;
        if blob.is_broken() {
            return Err(FetchError::Disk("the bytes of a blob turned out to be wrong".to_owned()));
        }
        if bytes.is_empty() {
            blob.note_failure();
            return Err(FetchError::Disk("a blob is shorter than it was".to_owned()));
        }
        let position = position + bytes.len() as u64;
        Ok(Some((Frame::data(bytes), (blob, position, pace))))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A body that keeps its reader's seat until it is over.
pub fn with_seat(body: Body, seat: Turn) -> Body {
    let kept = move |frame| {
        let _ = &seat;
        frame
    };
    body.map_frame(kept).boxed_unsync()
}

/// What a reader reads.
pub fn of_reader(reader: Reader) -> Body {
    let frames = stream::try_unfold((reader, Pace::up_to(FETCHED_FRAME)), |(mut reader, mut pace)| async move {
        let Some(bytes) = reader.next(pace.frame().await).await.transpose()? else { return Ok(None) };
        Ok::<_, FetchError>(Some((Frame::data(bytes), (reader, pace))))
    });
    StreamBody::new(frames).boxed_unsync()
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
