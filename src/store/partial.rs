//! A blob that is being written.
//!
//! A blob comes to be in one way only: every byte goes through the hash as it is written, size and hash are compared
//! with what was claimed, and [`Verified::commit`] syncs the file, gives it its name and syncs the folder.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::{Digest, Expected, Hasher, Mismatch};
use crate::disk::{Disk, File};
use crate::store::blob::Blob;
use crate::store::layout::Layout;

/// How much is read at once when an earlier fetch's bytes are hashed again.
const REHASH_BYTES: usize = 256 * 1024;

/// A file that bytes are appended to. One that is dropped stays on the disk for a later fetch to go on with, unless
/// there is nothing in it.
#[derive(Debug)]
pub struct Partial {
    place: Place,
    expected: Expected,
    hasher: Hasher,
    dropped: u64,
}

#[derive(Debug)]
struct Place {
    disk: Arc<dyn Disk>,
    layout: Layout,
    path: PathBuf,
    file: File,
    len: u64,
    fate: Fate,
}

/// What becomes of the file when it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Remove,
    Keep,
    /// It has become a blob, and is none of this one's business any more.
    Gone,
}

/// A file whose size and hash are right, and which has no name yet.
#[derive(Debug)]
pub struct Verified {
    place: Place,
    digest: Digest,
    size: u64,
}

/// Why a verified file is no blob.
#[derive(Debug, thiserror::Error)]
pub enum NotCommitted {
    /// Its bytes may not be on the disk, and so it was removed.
    #[error("its bytes could not be synced: {0}")]
    Lost(io::Error),
    /// Its bytes are there, and its name may be.
    #[error("it could not be given its name: {0}")]
    Unnamed(io::Error),
}

/// Makes what was written so far survive a loss of power, beside the writing.
#[derive(Clone, Debug)]
pub struct Syncer {
    disk: Arc<dyn Disk>,
    file: File,
}

impl Partial {
    /// Opens the partial file for `expected`. What an earlier fetch wrote is hashed again and counts as written.
    pub fn open(disk: Arc<dyn Disk>, layout: &Layout, expected: Expected) -> io::Result<Self> {
        let path = layout.partial(expected);
        let file = disk.create(&path)?;
        let len = file.len()?;
        let dropped = if expected.size.is_some_and(|size| len > size) { len } else { 0 };
        if dropped > 0 {
            disk.truncate(&file, 0)?;
        }
        let mut hasher = Hasher::new(expected);
        rehash(&file, &mut hasher)?;
        let fate = if hasher.is_empty() { Fate::Remove } else { Fate::Keep };
        let place = Place { disk, layout: layout.clone(), path, file, len: hasher.len(), fate };
        Ok(Self { place, expected, hasher, dropped })
    }

    /// What its document claims of it.
    pub fn expected(&self) -> Expected {
        self.expected
    }

    /// What was hashed so far.
    pub fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Its bytes, for readers.
    pub fn file(&self) -> &File {
        &self.place.file
    }

    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.hasher.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes. After an error the file counts as ending where it did before.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.place.disk.write_at(&self.place.file, bytes, self.hasher.len())?;
        self.place.fate = Fate::Keep;
        self.hasher.update(bytes);
        self.place.len = self.hasher.len();
        Ok(())
    }

    /// Gives it up: not all that was written will be there after a loss of power.
    pub fn spoil(&mut self) {
        self.place.fate = Fate::Remove;
    }

    /// Whether it was given up, or has nothing in it.
    pub fn is_spoilt(&self) -> bool {
        self.place.fate == Fate::Remove
    }

    /// How many bytes of an earlier fetch were too many, and are not in it any more.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What syncs it while it is written.
    pub fn syncer(&self) -> Syncer {
        Syncer { disk: Arc::clone(&self.place.disk), file: self.place.file.clone() }
    }

    /// Ends the file: the way on if size and hash are right. Otherwise it is removed.
    pub fn verify(mut self) -> Result<Verified, Mismatch> {
        let size = self.len();
        self.place.fate = Fate::Remove;
        let digest = self.hasher.verify()?;
        self.place.fate = Fate::Keep;
        Ok(Verified { place: self.place, digest, size })
    }

    /// Gives up the file and goes on without it: what was hashed so far. Its bytes go when the last reader closes it.
    pub fn into_hasher(mut self) -> Hasher {
        self.place.fate = Fate::Remove;
        self.hasher
    }
}

impl Syncer {
    /// Waits until what was written so far would survive a loss of power.
    pub fn sync(&self) -> io::Result<()> {
        self.disk.sync(&self.file)
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
    pub fn commit(mut self) -> Result<Blob, NotCommitted> {
        let Place { disk, layout, path, file, .. } = &self.place;
        let target = layout.blob(self.digest);
        if let Err(error) = disk.sync(file) {
            // The system says once that bytes are lost, and then shows what it has in memory: nobody may go on with them.
            self.place.fate = Fate::Remove;
            return Err(NotCommitted::Lost(error));
        }
        let blob = Blob::new(self.digest, self.size, file.clone()).map_err(NotCommitted::Unnamed)?;
        give_name(&**disk, path, &target).map_err(NotCommitted::Unnamed)?;
        disk.sync_directory(target.parent().unwrap_or(Path::new("/"))).map_err(NotCommitted::Unnamed)?;
        self.place.fate = Fate::Gone;
        Ok(blob)
    }
}

/// Gives a file its name, in the place of whatever has it.
fn give_name(disk: &dyn Disk, path: &Path, target: &Path) -> io::Result<()> {
    match disk.rename(path, target) {
        // Somebody took the folder away. A file in its place stays: a moment later it may be a folder with good blobs.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = target.parent().unwrap_or(Path::new("/"));
            disk.create_directory(folder)?;
            disk.sync_directory(folder.parent().unwrap_or(Path::new("/")))?;
            disk.rename(path, target)
        }
        // No file takes the place of a folder, and a folder with the name of a blob is nobody's.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => disk.remove(target).and_then(|()| disk.rename(path, target)),
        renamed => renamed,
    }
}

impl Drop for Place {
    /// A file that is kept gives back the room that was set aside for the rest of it.
    fn drop(&mut self) {
        let done = match self.fate {
            // What cannot be removed takes no room at least: it counts no more.
            Fate::Remove => self.disk.remove(&self.path).inspect_err(|_| drop(self.disk.truncate(&self.file, 0))),
            Fate::Keep => self.disk.truncate(&self.file, self.len),
            Fate::Gone => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!(path = %self.path.display(), %error, "cannot put a partial file away");
        }
    }
}

/// Hashes a file from where the hash is on, to its end.
pub fn rehash(file: &File, hasher: &mut Hasher) -> io::Result<()> {
    let mut buffer = vec![0; REHASH_BYTES];
    loop {
        let read = file.read_at(&mut buffer, hasher.len())?;
        if read == 0 {
            return Ok(());
        }
        hasher.update(&buffer[..read]);
    }
}
