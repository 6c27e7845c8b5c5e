//! A folder of a bundle that was opened: its manifest was read, and its signature if there is a key for it.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::manifest::{BadManifest, MANIFEST, MAX_MANIFEST_BYTES, Manifest, SIGNATURE};
use crate::seal::PublicKey;

/// What a folder has while somebody writes to it, or if whoever did was killed.
pub const LOCK: &str = ".cistern.lock";
/// What every file system of ext4's kind has at its top.
pub const LOST_AND_FOUND: &str = "lost+found";
const MAX_SIGNATURE_BYTES: u64 = 4096;

/// A manifest, as it was written and as it was signed.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// What it says.
    pub manifest: Manifest,
    /// Its bytes.
    pub text: Vec<u8>,
    /// Their signature.
    pub signature: Vec<u8>,
}

/// Why a folder is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BadBundle {
    /// There is no manifest in it; it is written last.
    #[error("{} has no {name}: it is no bundle, or its export was interrupted; run the export again", folder.display())]
    Absent {
        /// The folder.
        folder: PathBuf,
        /// What it lacks.
        name: &'static str,
    },
    /// A disk may not be mounted.
    #[error("there is no folder {}; is its disk mounted?", .0.display())]
    NoFolder(PathBuf),
    /// The parts of it are below.
    #[error("{} has volumes in it; name them: {}/volume-1 and so on", .0.display(), .0.display())]
    Volumes(PathBuf),
    /// What should be its manifest is a link, a folder or a pipe.
    #[error("{} is no plain file", .0.display())]
    NoFile(PathBuf),
    /// The disk says no.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its manifest is none.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        reason: BadManifest,
    },
    /// Somebody else made it, or it was changed.
    #[error("{} is not what the owner of key {key} signed", path.display())]
    NotSigned {
        /// The manifest.
        path: PathBuf,
        /// Whose signature it should have.
        key: PublicKey,
    },
    /// Two folders do not belong together.
    #[error("{} and {} are of different bundles", folder.display(), first.display())]
    Mixed {
        /// One.
        folder: PathBuf,
        /// The one before.
        first: PathBuf,
    },
}

/// Reads the manifest and the signature of a folder.
pub fn open(disk: &dyn Disk, folder: &Path) -> Result<Sealed, BadBundle> {
    let text = read(disk, folder, MANIFEST, MAX_MANIFEST_BYTES)?;
    let signature = read(disk, folder, SIGNATURE, MAX_SIGNATURE_BYTES)?;
    let manifest = Manifest::parse(&text).map_err(|reason| BadBundle::Manifest { path: folder.join(MANIFEST), reason })?;
    Ok(Sealed { manifest, text, signature })
}

/// Reads those of all folders, which have to be of one bundle; `key` is whose it has to be.
pub fn open_all(disk: &dyn Disk, folders: &[PathBuf], key: Option<&PublicKey>) -> Result<Sealed, BadBundle> {
    let (first, others) = folders.split_first().expect("there is at least one folder");
    let sealed = open(disk, first)?;
    if let Some(key) = key.filter(|key| !key.has_signed(&sealed.text, &sealed.signature)) {
        return Err(BadBundle::NotSigned { path: first.join(MANIFEST), key: *key });
    }
    for folder in others {
        let other = open(disk, folder)?;
        if (&other.text, &other.signature) != (&sealed.text, &sealed.signature) {
            return Err(BadBundle::Mixed { folder: folder.clone(), first: first.clone() });
        }
    }
    Ok(sealed)
}

/// Why a folder has no manifest.
fn absent(disk: &dyn Disk, folder: &Path, name: &'static str) -> BadBundle {
    // To be no socket a path has to be there.
    if disk.is_socket(folder).is_err() {
        return BadBundle::NoFolder(folder.to_owned());
    }
    match disk.names(folder) {
        Ok(names) if names.iter().any(|name| name == "volume-1") => BadBundle::Volumes(folder.to_owned()),
        _ => BadBundle::Absent { folder: folder.to_owned(), name },
    }
}

fn read(disk: &dyn Disk, folder: &Path, name: &'static str, limit: u64) -> Result<Vec<u8>, BadBundle> {
    let path = folder.join(name);
    let read = disk.open_own(&path).and_then(|file| file.map(|file| file.read_all(limit)).transpose());
    match read {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) if disk.is_socket(&path).is_ok() => Err(BadBundle::NoFile(path)),
        Ok(None) => Err(absent(disk, folder, name)),
        Err(error) => Err(BadBundle::Unreadable { path, error }),
    }
}
