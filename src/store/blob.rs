//! Whole, verified files.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::digest::Digest;
use crate::disk::{Disk, File};
use crate::store::layout::Layout;

/// An open blob.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    file: File,
    has_failed: Arc<AtomicBool>,
    is_wrong: Arc<AtomicBool>,
}

impl Blob {
    /// A blob whose file is open already.
    pub fn new(digest: Digest, size: u64, file: File) -> Self {
        Self { digest, size, file, has_failed: Arc::default(), is_wrong: Arc::default() }
    }

    /// Opens a blob; `None` if it is not there. Any other trouble is an error: unknown is not absent.
    pub fn open(disk: &dyn Disk, layout: &Layout, digest: Digest) -> io::Result<Option<Self>> {
        let file = disk.open_own(&layout.blob(digest))?;
        file.map(|file| Ok(Self::new(digest, file.len()?, file))).transpose()
    }

    /// Notes that its bytes are not what it is called.
    pub fn note_wrong(&self) {
        self.is_wrong.store(true, Ordering::Release);
    }

    /// Whether they turned out not to be.
    pub fn is_wrong(&self) -> bool {
        self.is_wrong.load(Ordering::Acquire)
    }

    /// Whether both are the same file on the disk, and not two of one name.
    pub fn is_same_file(&self, other: &Self) -> bool {
        // An error means that one of them cannot be looked at; then nobody may act on what the other was.
        matches!((self.file.identity(), other.file.identity()), (Ok(one), Ok(other)) if one == other)
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

/// Calls for the digest of every blob; files with other names are none of ours.
pub fn scan(disk: &dyn Disk, layout: &Layout, mut each: impl FnMut(Digest)) -> io::Result<()> {
    let is_ours = |name: &String| name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    for folder in disk.names(&layout.blobs())?.into_iter().filter(is_ours) {
        let names = disk.names(&layout.blobs().join(&folder))?;
        names.iter().filter(|name| name.starts_with(&folder)).filter_map(|name| Digest::from_hex(name)).for_each(&mut each);
    }
    Ok(())
}
