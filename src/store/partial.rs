//! A blob that is being written.
//!
//! A blob comes to be in one way only: every byte goes through the hash as it is written, size and hash are compared
//! with what was claimed, and [`Verified::commit`] syncs the file, gives it its name and syncs the folder.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::digest::{Digest, Expected, Hasher, Mismatch};
use crate::disk::{Disk, File};
use crate::store::blob::Blob;
use crate::store::layout::Layout;

/// How much is read at once when an earlier fetch's bytes are hashed again.
const REHASH_BYTES: usize = 256 * 1024;

/// A file that bytes are appended to. Unless it is kept or committed, it is removed.
#[derive(Debug)]
pub struct Partial {
    place: Place,
    expected: Expected,
    hasher: Option<Hasher>,
}

#[derive(Debug)]
struct Place {
    disk: Arc<dyn Disk>,
    layout: Layout,
    path: PathBuf,
    file: File,
    is_kept: bool,
}

/// A file whose size and hash are right, and which has no name yet.
#[derive(Debug)]
pub struct Verified {
    place: Place,
    digest: Digest,
    size: u64,
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hasher({} bytes)", self.len())
    }
}

impl Partial {
    /// Opens the partial file for `expected`. What an earlier fetch wrote is hashed again and counts as written.
    pub fn open(disk: Arc<dyn Disk>, layout: &Layout, expected: Expected) -> io::Result<Self> {
        let path = layout.partial(expected);
        let file = disk.create(&path)?;
        if expected.size.is_some_and(|size| file.len().is_ok_and(|len| len > size)) {
            disk.truncate(&file, 0)?;
        }
        let place = Place { disk, layout: layout.clone(), path, file, is_kept: false };
        let mut hasher = Hasher::new(expected);
        rehash(&place.file, &mut hasher)?;
        Ok(Self { place, expected, hasher: Some(hasher) })
    }

    /// Its bytes, for readers.
    pub fn file(&self) -> &File {
        &self.place.file
    }

    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.hasher.as_ref().map_or(0, Hasher::len)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets room aside for `len` bytes.
    pub fn reserve(&self, len: u64) -> io::Result<()> {
        self.place.disk.reserve(&self.place.file, len)
    }

    /// Appends bytes. After an error the file ends where it did before.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = self.len();
        self.place.disk.write_at(&self.place.file, bytes, len)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        Ok(())
    }

    /// Waits until what was appended so far would survive a loss of power.
    pub fn sync(&self) -> io::Result<()> {
        self.place.disk.sync(&self.place.file)
    }

    /// Ends the file: the way on if size and hash are right. Otherwise it is removed.
    pub fn verify(mut self) -> Result<Verified, Mismatch> {
        let size = self.len();
        let hasher = self.hasher.take().unwrap_or_else(|| Hasher::new(self.expected));
        let digest = hasher.verify()?;
        Ok(Verified { place: self.place, digest, size })
    }

    /// Leaves the file where it is, for a later fetch to go on with.
    pub fn keep(mut self) {
        self.place.is_kept = true;
    }

    /// Gives up the file and goes on without it: what was hashed so far. The file goes when the last reader closes it.
    pub fn into_hasher(mut self) -> Hasher {
        self.hasher.take().unwrap_or_else(|| Hasher::new(self.expected))
    }
}

impl Verified {
    /// The digest of its bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Makes it a blob.
    pub fn commit(mut self) -> io::Result<Blob> {
        let Place { disk, layout, path, file, .. } = &self.place;
        let target = layout.blob(self.digest);
        disk.sync(file)?;
        disk.rename(path, &target)?;
        disk.sync_directory(target.parent().unwrap_or(Path::new("/")))?;
        let blob = Blob::new(self.digest, self.size, file.clone());
        self.place.is_kept = true;
        Ok(blob)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = self.disk.remove(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a partial file");
        }
    }
}

/// Removes partial files that were last written before `oldest`; how many bytes the others take.
pub fn sweep(disk: &dyn Disk, layout: &Layout, oldest: SystemTime) -> io::Result<u64> {
    let (old, young): (Vec<_>, Vec<_>) = disk.list(&layout.partials())?.into_iter().partition(|found| found.modified < oldest);
    old.iter().try_for_each(|found| disk.remove(&found.path))?;
    Ok(young.iter().map(|found| found.len).sum())
}

fn rehash(file: &File, hasher: &mut Hasher) -> io::Result<()> {
    let mut buffer = vec![0; REHASH_BYTES];
    loop {
        let read = file.read_at(&mut buffer, hasher.len())?;
        if read == 0 {
            return Ok(());
        }
        hasher.update(&buffer[..read]);
    }
}
