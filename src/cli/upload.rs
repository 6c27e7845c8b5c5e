//! Files that are sent to the server, or handed over open. They are opened here: the server opens no path that a command names.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body_util::StreamBody;
use hyper::Response;
use hyper::body::{Frame, Incoming};
use indicatif::ProgressBar;

use crate::cli::exit::Failure;
use crate::disk::File;

const READ_BYTES: usize = 256 * 1024;
/// How often it is looked how far the server is with a file that it was handed.
const LOOK: Duration = Duration::from_millis(100);

/// A file that is to be sent.
#[derive(Debug)]
pub struct Outgoing {
    /// Where it is.
    pub path: PathBuf,
    /// The file itself.
    pub file: File,
    /// How many bytes of it.
    pub size: u64,
}

/// All bytes of all files, one after the other.
pub fn body(files: Vec<Outgoing>, bar: ProgressBar) -> StreamBody<impl Stream<Item = std::io::Result<Frame<Bytes>>> + Send> {
    let first = (files.into_iter().filter(|file| file.size > 0), None::<Outgoing>, 0_u64, bar);
    StreamBody::new(stream::try_unfold(first, |(mut files, current, position, bar)| async move {
        let (current, position) = match current.filter(|current| position < current.size) {
            Some(current) => (current, position),
            None => match files.next() {
                Some(next) => (next, 0),
                None => return Ok(None),
            },
        };
        let bytes = current.file.read(READ_BYTES, position)?;
        if bytes.is_empty() {
            return Err(std::io::Error::other(format!("{} became shorter", current.path.display())));
        }
        let position = position + bytes.len() as u64;
        bar.inc(bytes.len() as u64);
        Ok(Some((Frame::data(Bytes::from(bytes)), (files, Some(current), position, bar))))
    }))
}

/// Shows how far the server is with a file that it was handed, while that is under way. What it had already it does not read.
pub async fn watch(
    handed: &Outgoing,
    bar: &ProgressBar,
    under_way: impl Future<Output = Result<Response<Incoming>, Failure>>,
) -> Result<Response<Incoming>, Failure> {
    let (mut under_way, mut shown) = (pin!(under_way), 0);
    loop {
        let done = tokio::time::timeout(LOOK, &mut under_way).await;
        let is_taken = matches!(&done, Ok(Ok(answer)) if answer.status().is_success());
        let reached = if is_taken { handed.size } else { handed.file.marked().unwrap_or(shown) };
        bar.inc(reached.saturating_sub(shown));
        shown = shown.max(reached);
        if let Ok(done) = done {
            return done;
        }
    }
}
