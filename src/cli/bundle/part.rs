//! A file on its way to a folder: it has its last name when it is whole and on the disk.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crate::cli::bundle::place::remove_link;
use crate::digest::{Expected, Hasher};
use crate::disk::{self, Disk as _, File, OsDisk};
use crate::store::partial::rehash;

/// What a kill leaves of a small file that is put in its place whole.
pub const FRESH: &str = ".new";
/// What stands after the name of a file that is not whole.
pub const PART: &str = ".part";
/// Whoever gets the folder may read it: web servers, and people elsewhere.
const MODE: u32 = 0o644;
/// So much is written before it is synced beside the writing.
const SYNC_BYTES: u64 = 32 << 20;

/// A file that is being written.
#[derive(Debug)]
pub struct Part {
    whole: PathBuf,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    /// How much was there when it was last synced beside the writing, and that sync.
    synced: u64,
    syncing: Option<JoinHandle<io::Result<()>>>,
}

/// Why a folder cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum BadFolder {
    /// Somebody's files are in it.
    #[error("{} is not empty, and what is in it is no export that could be gone on with; give a folder of its own", .0.display())]
    NotEmpty(PathBuf),
    /// Two would undo each other's work.
    #[error("another export writes to {}; wait until it has ended", .0.display())]
    Busy(PathBuf),
    /// Another bundle is in it.
    #[error("{} holds another bundle; give a folder of its own, or remove that one", .0.display())]
    Other(PathBuf),
    /// What an interrupted export left cannot be read.
    #[error("{} cannot be read ({reason}); remove the folder, and run this again", path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The disk says no.
    #[error("cannot write {}: {error}", path.display())]
    Disk {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl BadFolder {
    /// What the disk said of a path.
    pub fn disk(path: &Path, error: io::Error) -> Self {
        Self::Disk { path: path.to_owned(), error }
    }
}

/// Whether a file is there and whole; if its name alone does not say so, it is read.
pub fn whole(path: &Path, expected: Expected, is_named_when_whole: bool) -> Result<bool, BadFolder> {
    let look = || {
        let Some(file) = OsDisk.open_own(path)? else { return Ok(false) };
        if Some(file.len()?) != expected.size {
            return Ok(false);
        }
        Ok(is_named_when_whole || hash(&file, expected)?.verify().is_ok())
    };
    look().map_err(|error| BadFolder::disk(path, error))
}

/// Sees to it that the names of files, and of the folders that they are in below `top`, survive a loss of power.
pub fn sync_folders<'a>(top: &Path, files: impl Iterator<Item = &'a str>) -> Result<(), BadFolder> {
    let mut folders = BTreeSet::from([top.to_owned()]);
    for file in files {
        let path = top.join(file);
        folders.extend(path.ancestors().skip(1).take_while(|above| *above != top).map(Path::to_owned));
    }
    // The folder itself may be new, too.
    folders.extend(top.parent().filter(|parent| !parent.as_os_str().is_empty()).map(Path::to_owned));
    folders.iter().rev().try_for_each(|folder| match OsDisk.sync_directory(folder) {
        // What was to be there and is wanted no more.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        synced => synced.map_err(|error| BadFolder::disk(folder, error)),
    })
}

/// Puts a small file in its place, whole.
pub fn publish(path: &Path, bytes: &[u8]) -> Result<(), BadFolder> {
    let put = || {
        OsDisk.create_directory(path.parent().unwrap_or(Path::new(".")))?;
        remove_link(&with_suffix(path, FRESH))?;
        disk::replace(&OsDisk, path, bytes)?;
        OsDisk.restrict(path, MODE)
    };
    put().map_err(|error| BadFolder::disk(path, error))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    name.into()
}

impl Part {
    /// Begins a file, or goes on with what is there of it, which is hashed again.
    pub fn begin(whole: PathBuf, expected: Expected) -> Result<Self, BadFolder> {
        let path = with_suffix(&whole, PART);
        let open = || {
            OsDisk.create_directory(whole.parent().unwrap_or(Path::new(".")))?;
            remove_link(&path)?;
            let file = OsDisk.create(&path)?;
            if expected.size.is_some_and(|size| file.len().is_ok_and(|len| len > size)) {
                OsDisk.truncate(&file, 0)?;
            }
            let hasher = hash(&file, expected)?;
            Ok((file, hasher))
        };
        let (file, hasher) = open().map_err(|error| BadFolder::disk(&path, error))?;
        Ok(Self { whole, path, file, synced: hasher.len(), syncing: None, hasher })
    }

    /// How much of it is there.
    pub fn len(&self) -> u64 {
        self.hasher.len()
    }

    /// Takes all bytes from a file that has them already, if the file system can let both share them; whether it did. What is
    /// shared is read like everything else before the file has its last name.
    pub fn share(&mut self, from: &File) -> Result<bool, BadFolder> {
        if self.len() > 0 || !OsDisk.share(from, &self.file) {
            return Ok(false);
        }
        rehash(&self.file, &mut self.hasher).map_err(|error| BadFolder::disk(&self.path, error))?;
        Ok(true)
    }

    /// Writes the next bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), BadFolder> {
        let write = |part: &mut Self| {
            part.sync_beside()?;
            OsDisk.write_at(&part.file, bytes, part.hasher.len())
        };
        write(self).map_err(|error| BadFolder::disk(&self.path, error))?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Begins a sync if enough was written since the last one, and that one is over: the one at the end has little left to do then.
    fn sync_beside(&mut self) -> io::Result<()> {
        if self.len() < self.synced + SYNC_BYTES || self.syncing.as_ref().is_some_and(|sync| !sync.is_finished()) {
            return Ok(());
        }
        self.end_sync()?;
        let file = self.file.clone();
        self.synced = self.len();
        self.syncing = Some(std::thread::spawn(move || OsDisk.sync(&file)));
        Ok(())
    }

    /// What came of the last sync. The system says once that bytes are lost.
    fn end_sync(&mut self) -> io::Result<()> {
        let ended = self.syncing.take().map(JoinHandle::join);
        ended.unwrap_or(Ok(Ok(()))).unwrap_or_else(|_| Err(io::Error::other("a sync ended badly")))
    }

    /// Gives it its last name if its bytes are right, and removes it otherwise; whether they are.
    pub fn finish(mut self) -> Result<bool, BadFolder> {
        let synced = self.end_sync();
        let Self { whole, path, file, hasher, .. } = self;
        let name = || {
            if let Err(error) = synced {
                // The next run would find in memory what is not on the disk.
                return OsDisk.remove(&path).and(Err(error));
            }
            if hasher.verify().is_err() {
                return OsDisk.remove(&path).map(|()| false);
            }
            OsDisk.restrict(&path, MODE)?;
            OsDisk.sync(&file)?;
            OsDisk.rename(&path, &whole)?;
            OsDisk.sync_directory(whole.parent().unwrap_or(Path::new("."))).map(|()| true)
        };
        name().map_err(|error| BadFolder::disk(&whole, error))
    }
}

fn hash(file: &File, expected: Expected) -> io::Result<Hasher> {
    let mut hasher = Hasher::new(expected);
    rehash(file, &mut hasher)?;
    Ok(hasher)
}
