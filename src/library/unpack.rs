//! Unpacks what an image is packed with. It may come from anybody, so that neither memory nor time is spent without a bound.

use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use crate::image::magic::{Magic, Packing};
use crate::store::blob::Blob;

/// How much is read at a time.
const READ_BYTES: usize = 256 * 1024;
/// How much memory xz and lzma may take: four times what `xz -9` needs.
const MAX_DICTIONARY_BYTES: u64 = 256 << 20;
/// How long what stands before an entry of a tarball may be: its header, and before that names that are too long for it.
const MAX_HEADER_BYTES: u64 = 4 << 20;

/// Unpacks a file that begins like this.
pub fn unpack(file: &Blob, magic: Magic) -> io::Result<Box<dyn Read + '_>> {
    let packed = BufReader::with_capacity(READ_BYTES, Reading::new(file));
    Ok(match magic {
        Magic::Packed(Packing::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        Magic::Packed(Packing::Bzip2) => Box::new(bzip2::read::MultiBzDecoder::new(packed)),
        Magic::Packed(Packing::Xz) => {
            let stream = liblzma::stream::Stream::new_stream_decoder(MAX_DICTIONARY_BYTES, liblzma::stream::CONCATENATED);
            Box::new(liblzma::read::XzDecoder::new_stream(packed, stream.map_err(io::Error::other)?))
        }
        Magic::Packed(Packing::Lzma) => {
            let stream = liblzma::stream::Stream::new_lzma_decoder(MAX_DICTIONARY_BYTES).map_err(io::Error::other)?;
            Box::new(liblzma::read::XzDecoder::new_stream(packed, stream))
        }
        Magic::Packed(Packing::Zstd) => Box::new(zstd::Decoder::with_buffer(packed)?),
        Magic::Tar | Magic::Squashfs | Magic::Qcow2 | Magic::Unknown => Box::new(packed),
    })
}

/// A blob from its beginning to its end.
pub struct Reading<'a> {
    file: &'a Blob,
    position: u64,
}

impl<'a> Reading<'a> {
    /// At its beginning.
    pub fn new(file: &'a Blob) -> Self {
        Self { file, position: 0 }
    }
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.file().read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// How much may be read of a tarball before its next entry: a name in it is read into memory, whatever length it claims.
pub struct Meter(Rc<Cell<u64>>);

impl Default for Meter {
    fn default() -> Self {
        Self(Rc::new(Cell::new(MAX_HEADER_BYTES)))
    }
}

impl Meter {
    /// Reads no more than is allowed.
    pub fn over<R: Read>(&self, inner: R) -> impl Read + use<R> {
        Metered { inner, left: Rc::clone(&self.0) }
    }

    /// Allows as much as an entry has, and the header after it.
    pub fn allow_for<R: Read>(&self, entry: &tar::Entry<'_, R>) -> io::Result<()> {
        let header = entry.header();
        // A sparse entry claims to be longer than what is there of it.
        let len = if header.entry_type().is_gnu_sparse() { header.entry_size()? } else { entry.size() };
        self.0.set(len.saturating_add(MAX_HEADER_BYTES));
        Ok(())
    }

    /// Allows whatever is left: nothing of it is kept.
    pub fn allow_all(&self) {
        self.0.set(u64::MAX);
    }
}

struct Metered<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a header in it has more than {MAX_HEADER_BYTES} bytes")));
        }
        let len = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..len])?;
        self.left.set(left - read as u64);
        Ok(read)
    }
}
