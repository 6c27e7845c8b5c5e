//! Files that are sent to the server. They are opened here: the server opens no path that a command names.

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use indicatif::ProgressBar;

use crate::disk::File;

const READ_BYTES: usize = 256 * 1024;

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
        let mut buffer = vec![0; READ_BYTES];
        let read = current.file.read_at(&mut buffer, position)?;
        if read == 0 {
            return Err(std::io::Error::other(format!("{} became shorter", current.path.display())));
        }
        buffer.truncate(read);
        bar.inc(read as u64);
        Ok(Some((Frame::data(Bytes::from(buffer)), (files, Some(current), position + read as u64, bar))))
    }))
}
