//! The folder of a volume, which is written file by file, so that an interrupted export can be gone on with.
//!
//! A file has its last name when it is whole and on the disk, and the manifest is the last of all; until then it is there under
//! another name, and says whose files these are.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::bundle::volume::{LOCK, LOST_AND_FOUND};
use crate::cli::bundle::part::{BadFolder, FRESH, PART, Part, publish, sync_folders, whole};
use crate::cli::bundle::place::{check, remove_file};
use crate::digest::{Claim, Expected};
use crate::disk::{Disk as _, OsDisk};
use crate::manifest::{BundlePath, File, MANIFEST, MAX_MANIFEST_BYTES, Manifest, SIGNATURE};

/// The folder of one volume, with the files that belong there.
#[derive(Debug)]
pub struct Folder<'a> {
    path: PathBuf,
    files: Vec<&'a File>,
}

impl<'a> Folder<'a> {
    /// Opens the folder of a volume of this bundle, and removes what an interrupted export left there that is not in it any more.
    pub fn open(path: PathBuf, text: &[u8], manifest: &'a Manifest, number: usize) -> Result<Self, BadFolder> {
        let blobs = manifest.volumes.get(number).map_or(&[][..], |volume| &volume.blobs);
        let folder = Self { path, files: manifest.documents.iter().chain(blobs).collect() };
        OsDisk.create_directory(&folder.path).map_err(|error| BadFolder::disk(&folder.path, error))?;
        match (folder.read(MANIFEST)?, folder.read(&begun())?) {
            (Some(there), _) if there == text => return Ok(folder),
            (Some(_), _) => return Err(BadFolder::Other(folder.path)),
            (None, Some(interrupted)) => folder.clear(&interrupted)?,
            (None, None) if folder.is_empty()? => {}
            (None, None) => return Err(BadFolder::NotEmpty(folder.path)),
        }
        publish(&folder.path.join(begun()), text)?;
        Ok(folder)
    }

    /// The files that belong there.
    pub fn files(&self) -> &[&'a File] {
        &self.files
    }

    /// Goes on with a file, or begins it; `None` if it is whole already. A document may have been another one before, of the same
    /// size; a blob's name says what it is.
    pub fn begin(&self, file: &File) -> Result<Option<Part>, BadFolder> {
        let name = file.path.to_string();
        let path = self.path.join(&name);
        check(&self.path, &name).map_err(|error| BadFolder::disk(&path, error))?;
        let expected = Expected { claim: Claim::Sha256(file.sha256), size: Some(file.size) };
        let is_blob = matches!(file.path, BundlePath::Blob(_));
        if whole(&path, expected, is_blob)? { Ok(None) } else { Part::begin(path, expected).map(Some) }
    }

    /// Writes the signature, and gives the manifest its name: from now on it is a bundle.
    pub fn seal(&self, signature: &[u8]) -> Result<(), BadFolder> {
        let names: Vec<String> = self.files.iter().map(|file| file.path.to_string()).collect();
        sync_folders(&self.path, names.iter().map(String::as_str))?;
        if self.read(SIGNATURE)?.is_none_or(|there| there != signature) {
            publish(&self.path.join(SIGNATURE), signature)?;
        }
        let [from, to] = [begun().as_str(), MANIFEST].map(|name| self.path.join(name));
        let name = || match OsDisk.rename(&from, &to) {
            // It was whole before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed.and_then(|()| OsDisk.sync_directory(&self.path)),
        };
        name().map_err(|error| BadFolder::disk(&to, error))
    }

    /// Removes what belonged to the interrupted bundle, and does not belong here or is another one now.
    fn clear(&self, interrupted: &[u8]) -> Result<(), BadFolder> {
        let unreadable =
            |reason: crate::manifest::BadManifest| BadFolder::Unreadable { path: self.path.join(begun()), reason: reason.to_string() };
        let interrupted = Manifest::parse(interrupted).map_err(unreadable)?;
        let kept: HashSet<&File> = self.files.iter().copied().collect();
        for file in interrupted.files().filter(|file| !kept.contains(file)) {
            self.remove(&file.path.to_string())?;
            self.remove(&format!("{}{PART}", file.path))?;
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), BadFolder> {
        remove_file(&self.path, name).map_err(|error| BadFolder::disk(&self.path.join(name), error))
    }

    fn is_empty(&self) -> Result<bool, BadFolder> {
        let is_ours = |name: &String| [LOCK, LOST_AND_FOUND].contains(&name.as_str()) || *name == format!("{}{FRESH}", begun());
        OsDisk.names(&self.path).map(|names| names.iter().all(is_ours)).map_err(|error| BadFolder::disk(&self.path, error))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, BadFolder> {
        let path = self.path.join(name);
        let read = || -> io::Result<_> { OsDisk.open_own(&path)?.map(|file| file.read_all(MAX_MANIFEST_BYTES)).transpose() };
        read().map_err(|error| BadFolder::disk(&path, error))
    }
}

/// The folders of all volumes. What is besides them is of an export that was split otherwise, or somebody else's.
pub fn volumes(top: &Path, count: usize) -> Result<Vec<PathBuf>, BadFolder> {
    let name = |number: usize| format!("volume-{}", number + 1);
    let names = OsDisk.names(top).map_err(|error| BadFolder::disk(top, error))?;
    let is_strange =
        |there: &String| if count == 1 { there.starts_with("volume-") } else { !(0..count).any(|number| name(number) == *there) };
    let is_nothing = |there: &&String| [LOCK, LOST_AND_FOUND].contains(&there.as_str());
    if names.iter().filter(|there| !is_nothing(there)).any(is_strange) {
        return Err(BadFolder::NotEmpty(top.to_owned()));
    }
    if count == 1 {
        return Ok(vec![top.to_owned()]);
    }
    let folder = |number| {
        let name = name(number);
        // Whatever is in it is in that folder and nowhere else.
        check(top, &format!("{name}/{MANIFEST}")).map_err(|error| BadFolder::disk(&top.join(&name), error))?;
        Ok(top.join(name))
    };
    (0..count).map(folder).collect()
}

/// What the manifest is called while files are missing.
fn begun() -> String {
    format!("{MANIFEST}{PART}")
}
