//! Looks at the folders of a bundle and says what is missing, broken or too much. Needs no server.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::bundle::volume::{BadBundle, LOCK, LOST_AND_FOUND, open_all};
use crate::digest::{Claim, Expected, Hasher, Mismatch};
use crate::disk::{self, Disk};
use crate::manifest::{BundlePath, File, MANIFEST, Manifest, SIGNATURE};
use crate::seal::PublicKey;

const READ_BYTES: usize = 256 * 1024;

/// The folders of a bundle, one or more of its volumes.
#[derive(Debug)]
pub struct Inspection<'a> {
    disk: &'a dyn Disk,
    folders: &'a [PathBuf],
    manifest: Manifest,
    /// Whether the bytes of files are looked at, and not only their names and sizes.
    reads: bool,
}

/// What is told while a bundle is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// So many bytes more were read.
    Read(u64),
    /// Something is wrong.
    Wrong(Finding),
}

/// Something that is wrong with a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub fault: Fault,
}

/// What can be wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// Its size or its digest is another.
    #[error("{0}")]
    Wrong(#[from] Mismatch),
    /// It is a link, a folder or a pipe.
    #[error("is no plain file")]
    NoFile,
    /// The disk does not say what is in it.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The manifest does not name it.
    #[error("is not in the manifest")]
    Surplus,
    /// It has documents, and none of the blobs that belong to them.
    #[error("has no blob of any volume")]
    Bare,
}

/// How a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All of it is here.
    Whole,
    /// Of so many of its blobs that is not so.
    Broken(u64),
    /// Nothing of it is here; it may be on another disk.
    NotHere,
}

impl State {
    /// What people and programs call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Broken(_) => "broken",
            Self::NotHere => "not here",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A terminal is not to obey what somebody put on the disk.
        let path = self.path.to_string_lossy();
        let escaped: String = path.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
        write!(f, "{escaped}: {}", self.fault)
    }
}

impl<'a> Inspection<'a> {
    /// Opens the bundle that lies in these folders; `key` is whose it has to be.
    pub fn open(disk: &'a dyn Disk, folders: &'a [PathBuf], key: Option<&PublicKey>) -> Result<Self, BadBundle> {
        let manifest = open_all(disk, folders, key)?.manifest;
        Ok(Self { disk, folders, manifest, reads: true })
    }

    /// Looks at names and sizes only, of a bundle that was opened: whoever takes the bytes looks at those.
    pub fn at_a_glance(disk: &'a dyn Disk, folders: &'a [PathBuf], manifest: Manifest) -> Self {
        Self { disk, folders, manifest, reads: false }
    }

    /// What the bundle says that it has.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Looks at everything; how each volume is. What is wrong is told as it is found, with documents and what is too much.
    pub fn run(&self, tell: &mut dyn FnMut(Told)) -> Vec<State> {
        for folder in self.folders {
            for document in &self.manifest.documents {
                self.check(folder, document, tell);
            }
        }
        for folder in self.folders.iter().filter(|folder| self.is_bare(folder)) {
            tell(Told::Wrong(Finding { path: folder.clone(), fault: Fault::Bare }));
        }
        let states = self.manifest.volumes.iter().map(|volume| self.volume(&volume.blobs, tell)).collect();
        let expected: HashSet<&BundlePath> = self.manifest.files().map(|file| &file.path).collect();
        self.folders.iter().for_each(|folder| self.surplus(folder, "", &expected, tell));
        states
    }

    fn volume(&self, blobs: &[File], tell: &mut dyn FnMut(Told)) -> State {
        // One that is left alone is on another disk, unless there is no other.
        let is_only = self.manifest.volumes.len() == 1;
        let Some(home) = self.folders.iter().find(|folder| self.has_any(folder, blobs)).or(self.folders.first().filter(|_| is_only)) else {
            return State::NotHere;
        };
        let mut broken = 0;
        for blob in blobs {
            let there: Vec<&PathBuf> = self.with(blob).collect();
            let looked_at = if there.is_empty() { &[home] } else { &there[..] };
            let faults = looked_at.iter().filter(|folder| !self.check(folder, blob, tell)).count();
            broken += u64::from(faults > 0);
        }
        if broken == 0 { State::Whole } else { State::Broken(broken) }
    }

    fn has_any(&self, folder: &Path, blobs: &[File]) -> bool {
        blobs.iter().any(|blob| self.exists(&folder.join(blob.path.to_string())))
    }

    /// Whether a folder has nothing of any volume.
    fn is_bare(&self, folder: &Path) -> bool {
        let volumes = &self.manifest.volumes;
        volumes.len() > 1 && !volumes.iter().any(|volume| self.has_any(folder, &volume.blobs))
    }

    /// The folders that have something of a blob's name.
    fn with(&self, blob: &File) -> impl Iterator<Item = &'a PathBuf> {
        let name = blob.path.to_string();
        self.folders.iter().filter(move |folder| self.exists(&folder.join(&name)))
    }

    /// Whether there is anything of that name, be it a link.
    fn exists(&self, path: &Path) -> bool {
        !matches!(self.disk.is_socket(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Reads a file, and tells what is wrong with it; whether nothing is.
    fn check(&self, folder: &Path, file: &File, tell: &mut dyn FnMut(Told)) -> bool {
        let path = folder.join(file.path.to_string());
        let fault = match self.read(&path, file, tell) {
            Ok(fault) => fault,
            Err(error) => Some(Fault::Unreadable(error.to_string())),
        };
        let is_good = fault.is_none();
        if let Some(fault) = fault {
            tell(Told::Wrong(Finding { path, fault }));
        }
        is_good
    }

    fn read(&self, path: &Path, expected: &File, tell: &mut dyn FnMut(Told)) -> io::Result<Option<Fault>> {
        let Some(file) = self.disk.open_own(path)? else {
            return Ok(Some(if self.exists(path) { Fault::NoFile } else { Fault::Missing }));
        };
        let (actual, size) = (file.len()?, expected.size);
        if actual != size {
            return Ok(Some(Mismatch::Size { expected: size, actual }.into()));
        }
        if !self.reads {
            return Ok(None);
        }
        let mut hasher = Hasher::new(Expected { claim: Claim::Sha256(expected.sha256), size: Some(size) });
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = file.read_at(&mut buffer, hasher.len())?;
            if read == 0 {
                return Ok(hasher.verify().err().map(Fault::from));
            }
            hasher.update(&buffer[..read]);
            tell(Told::Read(read as u64));
        }
    }

    /// Tells what lies below a folder and is not in the manifest.
    fn surplus(&self, folder: &Path, below: &str, expected: &HashSet<&BundlePath>, tell: &mut dyn FnMut(Told)) {
        let found = self.disk.list(&folder.join(below)).and_then(|found| Ok((found, disk::strange(&folder.join(below))?)));
        let found = match found {
            Ok((found, strange)) => {
                strange.into_iter().for_each(|path| tell(Told::Wrong(Finding { path, fault: Fault::Surplus })));
                found
            }
            Err(error) => {
                let fault = Fault::Unreadable(error.to_string());
                return tell(Told::Wrong(Finding { path: folder.join(below), fault }));
            }
        };
        let is_nothing = |name: &str| below.is_empty() && [LOCK, LOST_AND_FOUND].contains(&name);
        for entry in found.into_iter().filter(|entry| !is_nothing(&entry.name)) {
            let path = if below.is_empty() { entry.name } else { format!("{below}/{}", entry.name) };
            let is_expected = || BundlePath::parse(&path).is_some_and(|path| expected.contains(&path));
            if entry.is_directory {
                self.surplus(folder, &path, expected, tell);
            } else if ![MANIFEST, SIGNATURE].contains(&path.as_str()) && !is_expected() {
                tell(Told::Wrong(Finding { path: folder.join(&path), fault: Fault::Surplus }));
            }
        }
    }
}
