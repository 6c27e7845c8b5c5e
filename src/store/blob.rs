//! Whole, verified files.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::digest::Digest;
use crate::disk::{Disk, File};
use crate::store::layout::Layout;

/// What tells a file from every other one of the machine for as long as it is open.
pub type Identity = (u64, u64);

/// An open blob.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    file: File,
    identity: Identity,
    has_failed: Arc<AtomicBool>,
    is_wrong: Arc<AtomicBool>,
}

impl Blob {
    /// A blob whose file is open already.
    pub fn new(digest: Digest, size: u64, file: File) -> io::Result<Self> {
        let identity = file.identity()?;
        Ok(Self { digest, size, file, identity, has_failed: Arc::default(), is_wrong: Arc::default() })
    }

    /// Opens a blob; `None` if it is not there. Any other trouble is an error: unknown is not absent.
    pub fn open(disk: &dyn Disk, layout: &Layout, digest: Digest) -> io::Result<Option<Self>> {
        let file = disk.open_own(&layout.blob(digest))?;
        file.map(|file| Self::new(digest, file.len()?, file)).transpose()
    }

    /// Notes that its bytes are not what it is called.
    pub fn note_wrong(&self) {
        self.is_wrong.store(true, Ordering::Release);
    }

    /// Whether they turned out not to be.
    pub fn is_wrong(&self) -> bool {
        self.is_wrong.load(Ordering::Acquire)
    }

    /// What tells its file from others of the same name.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether both are the same file on the disk, and not two of one name.
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// Its bytes.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Notes that it could not be read. Whoever wants it next opens it anew.
    pub fn note_failure(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }

    /// Whether it could not be read once.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }
}

/// The digests of the blobs that begin with this byte; files with other names are none of ours.
pub fn digests(disk: &dyn Disk, layout: &Layout, first: u8) -> io::Result<Vec<Digest>> {
    let folder = format!("{first:02x}");
    let names = match disk.names(&layout.blobs().join(&folder)) {
        // A file that somebody put there.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Vec::new()),
        names => names?,
    };
    let is_ours = |name: &&String| name.starts_with(&folder) && !name.bytes().any(|byte| byte.is_ascii_uppercase());
    Ok(names.iter().filter(is_ours).filter_map(|name| Digest::from_hex(name)).collect())
}
