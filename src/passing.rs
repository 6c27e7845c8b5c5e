//! Open files that cross a Unix socket (`SCM_RIGHTS`).
//!
//! Who runs a command may read files that the server may not, and the other way round. A command opens what is its own and
//! hands it over, open, with the first bytes that it sends; the server opens no path that a command names, and the bytes of
//! the file do not have to go through the socket. One file crosses a connection at most.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use crate::disk::File;

/// A connection that open files cross.
#[derive(Debug)]
pub struct Passage {
    stream: UnixStream,
    /// What goes with the first bytes that are sent.
    outgoing: Option<File>,
    /// Where what comes with the first bytes is put; nowhere once those have come.
    incoming: Option<Handed>,
}

/// A file that came over a connection, until somebody takes it.
#[derive(Clone, Debug, Default)]
pub struct Handed(Arc<Mutex<Option<OwnedFd>>>);

impl Handed {
    /// The file, if one came; an error if it is none that can be read at a place, as a pipe.
    pub fn take(&self) -> io::Result<Option<File>> {
        let handed = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        handed.map(File::handed).transpose()
    }

    fn put(&self, file: OwnedFd) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    }
}

impl Passage {
    /// Sends `file` with the first bytes.
    pub fn sending(stream: UnixStream, file: Option<File>) -> Self {
        Self { stream, outgoing: file, incoming: None }
    }

    /// Receives what comes with the first bytes.
    pub fn receiving(stream: UnixStream) -> (Self, Handed) {
        let handed = Handed::default();
        (Self { stream, outgoing: None, incoming: Some(handed.clone()) }, handed)
    }
}

impl AsyncRead for Passage {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, incoming, .. } = &mut *self;
        let Some(handed) = incoming else { return Pin::new(stream).poll_read(context, buffer) };
        loop {
            ready!(stream.poll_read_ready(context))?;
            match stream.try_io(Interest::READABLE, || receive(stream, buffer.initialize_unfilled(), handed)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => {
                    buffer.advance(received?);
                    *incoming = None;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Passage {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, outgoing, .. } = &mut *self;
        let Some(file) = outgoing else { return Pin::new(stream).poll_write(context, bytes) };
        loop {
            ready!(stream.poll_write_ready(context))?;
            match stream.try_io(Interest::WRITABLE, || send(stream, bytes, file)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => {
                    *outgoing = None;
                    return Poll::Ready(sent);
                }
            }
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.outgoing.is_some() {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.poll_write(context, first);
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Receives bytes, and a file if one comes with them. The system closes what there is no place for.
fn receive(stream: &UnixStream, bytes: &mut [u8], handed: &Handed) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            files.for_each(|file| handed.put(file));
        }
    }
    Ok(received.bytes)
}

/// Sends bytes, and a file with them.
fn send(stream: &UnixStream, bytes: &[u8], file: &File) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&files));
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use crate::disk::{Disk as _, File, OsDisk};
    use crate::passing::{Handed, Passage};

    fn file(bytes: &[u8]) -> File {
        let folder = tempfile::tempdir().unwrap();
        let file = OsDisk.create(&folder.path().join("file")).unwrap();
        OsDisk.write_at(&file, bytes, 0).unwrap();
        file
    }

    async fn passed(file: Option<File>, bytes: &[u8]) -> (Vec<u8>, Handed) {
        let (one, other) = UnixStream::pair().unwrap();
        let mut sender = Passage::sending(one, file);
        let (mut receiver, handed) = Passage::receiving(other);
        sender.write_all(bytes).await.unwrap();
        drop(sender);
        let mut received = Vec::new();
        receiver.read_to_end(&mut received).await.unwrap();
        (received, handed)
    }

    #[tokio::test]
    async fn a_file_comes_with_the_first_bytes_once() {
        let (received, handed) = passed(Some(file(b"content")), b"bytes").await;
        assert_eq!(received, b"bytes");
        let file = handed.take().unwrap().expect("a file came");
        assert_eq!(file.read_all(100).unwrap(), b"content");
        assert!(handed.take().unwrap().is_none());
    }

    #[tokio::test]
    async fn bytes_come_without_a_file_too() {
        let (received, handed) = passed(None, b"bytes").await;
        assert_eq!(received, b"bytes");
        assert!(handed.take().unwrap().is_none());
    }

    #[tokio::test]
    async fn how_far_a_file_was_read_is_seen_by_whoever_handed_it_over() {
        let own = file(b"content");
        let (_, handed) = passed(Some(own.clone()), b"bytes").await;
        let file = handed.take().unwrap().expect("a file came");
        assert_eq!(own.marked().unwrap(), 0);
        file.mark(5).unwrap();
        assert_eq!(own.marked().unwrap(), 5);
    }

    #[tokio::test]
    async fn what_is_no_plain_file_is_refused() {
        let handed = Handed::default();
        handed.put(OwnedFd::from(std::io::pipe().unwrap().0));
        assert_eq!(handed.take().unwrap_err().to_string(), "it is no plain file");
    }
}
