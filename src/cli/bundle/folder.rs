//! A folder that a bundle is written to, file by file, so that an interrupted export can be gone on with.
//!
//! A file has its last name when it is whole and on the disk, and the manifest is the last of all; until then it is there under
//! another name, and says whose files these are.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::{Claim, Expected, Hasher};
use crate::disk::{self, Disk, File, OsDisk};
use crate::manifest::{self as bundle, BundlePath, MANIFEST, Manifest, SIGNATURE};

/// What stands after the name of a file that is not whole.
const PART: &str = ".part";
const MAX_MANIFEST_BYTES: u64 = 256 << 20;
const READ_BYTES: usize = 256 * 1024;

/// The folder of one volume.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

/// A file that is being written.
#[derive(Debug)]
pub struct Part {
    whole: PathBuf,
    path: PathBuf,
    file: File,
    hasher: Hasher,
}

/// Why a folder cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum BadFolder {
    /// Somebody's files are in it.
    #[error("{} is not empty and holds no interrupted export; give a folder of its own", .0.display())]
    NotEmpty(PathBuf),
    /// Another bundle is in it.
    #[error("{} holds another bundle; give a folder of its own, or remove that one", .0.display())]
    Other(PathBuf),
    /// The disk says no.
    #[error("cannot write {}: {error}", path.display())]
    Disk {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Folder {
    /// Opens a folder for a volume of this bundle, and removes what an interrupted export left that is not in it any more.
    /// `None` if all of it is there already; only who signed it may change then.
    pub fn open(path: &Path, text: &[u8], signature: &[u8], manifest: &Manifest) -> Result<Option<Self>, BadFolder> {
        let folder = Self { path: path.to_owned() };
        OsDisk.create_directory(path).map_err(|error| folder.failed(path, error))?;
        let read = |name: &str| read(&path.join(name)).map_err(|error| folder.failed(&path.join(name), error));
        match (read(MANIFEST)?, read(&format!("{MANIFEST}{PART}"))?) {
            (Some(there), _) if there == text => {
                let is_signed = read(SIGNATURE)?.is_some_and(|there| there == signature);
                return if is_signed { Ok(None) } else { folder.replace(SIGNATURE, signature).map(|()| None) };
            }
            (Some(_), _) => return Err(BadFolder::Other(path.to_owned())),
            (None, Some(interrupted)) => folder.clear(&interrupted, manifest)?,
            (None, None) if OsDisk.list(path).map_err(|error| folder.failed(path, error))?.is_empty() => {}
            (None, None) => return Err(BadFolder::NotEmpty(path.to_owned())),
        }
        folder.replace(&format!("{MANIFEST}{PART}"), text)?;
        Ok(Some(folder))
    }

    /// Removes what is in the interrupted manifest and not, or otherwise, in this one.
    fn clear(&self, interrupted: &[u8], manifest: &Manifest) -> Result<(), BadFolder> {
        let Ok(interrupted) = Manifest::parse(interrupted) else { return Ok(()) };
        let kept: HashSet<&bundle::File> = manifest.files().collect();
        for file in interrupted.files().filter(|file| !kept.contains(file)) {
            for name in [file.path.to_string(), format!("{}{PART}", file.path)] {
                let path = self.path.join(name);
                OsDisk.remove(&path).map_err(|error| self.failed(&path, error))?;
            }
        }
        Ok(())
    }

    /// Goes on with a file, or begins it; `None` if it is whole already.
    pub fn begin(&self, path: &BundlePath, expected: Expected) -> Result<Option<Part>, BadFolder> {
        let whole = self.path.join(path.to_string());
        let part = self.path.join(format!("{path}{PART}"));
        let opened = || {
            let there = OsDisk.open_own(&whole)?.map(|file| file.len()).transpose()?;
            if there.is_some() && there == expected.size {
                return Ok(None);
            }
            OsDisk.create_directory(whole.parent().unwrap_or(&self.path))?;
            Part::open(whole.clone(), part, expected).map(Some)
        };
        opened().map_err(|error| self.failed(&whole, error))
    }

    /// Gives a file its last name, if its bytes are right; whether they are.
    pub fn finish(&self, part: Part) -> Result<bool, BadFolder> {
        let Part { whole, path, file, hasher } = part;
        let named = || {
            if hasher.verify().is_err() {
                return OsDisk.remove(&path).map(|()| false);
            }
            OsDisk.sync(&file)?;
            OsDisk.rename(&path, &whole)?;
            OsDisk.sync_directory(whole.parent().unwrap_or(&self.path)).map(|()| true)
        };
        named().map_err(|error| self.failed(&whole, error))
    }

    /// Writes the signature and then the manifest: from now on it is a bundle.
    pub fn seal(&self, text: &[u8], signature: &[u8]) -> Result<(), BadFolder> {
        self.replace(SIGNATURE, signature)?;
        self.replace(MANIFEST, text)?;
        let path = self.path.join(format!("{MANIFEST}{PART}"));
        OsDisk.remove(&path).map_err(|error| self.failed(&path, error))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), BadFolder> {
        let path = self.path.join(name);
        disk::replace(&OsDisk, &path, bytes).map_err(|error| self.failed(&path, error))
    }

    /// What is said when the disk says no.
    pub fn failed(&self, path: &Path, error: io::Error) -> BadFolder {
        BadFolder::Disk { path: path.to_owned(), error }
    }
}

impl Part {
    /// Opens a part; what is in it is hashed again.
    fn open(whole: PathBuf, path: PathBuf, expected: Expected) -> io::Result<Self> {
        let file = OsDisk.create(&path)?;
        let mut hasher = Hasher::new(expected);
        if expected.size.is_some_and(|size| file.len().is_ok_and(|len| len > size)) {
            OsDisk.truncate(&file, 0)?;
        }
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match file.read_at(&mut buffer, hasher.len())? {
                0 => return Ok(Self { whole, path, file, hasher }),
                read => hasher.update(&buffer[..read]),
            }
        }
    }

    /// How much of it is there.
    pub fn len(&self) -> u64 {
        self.hasher.len()
    }

    /// Writes the next bytes.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        OsDisk.write_at(&self.file, bytes, self.hasher.len())?;
        self.hasher.update(bytes);
        Ok(())
    }
}

/// What every file of a bundle is checked with.
pub fn expected(file: &bundle::File) -> Expected {
    Expected { claim: Claim::Sha256(file.sha256), size: Some(file.size) }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    OsDisk.open_own(path)?.map(|file| file.read_all(MAX_MANIFEST_BYTES)).transpose()
}
