//! Whole, verified files.

use std::io;

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
}

impl Blob {
    /// A blob whose file is open already.
    pub fn new(digest: Digest, size: u64, file: File) -> Self {
        Self { digest, size, file }
    }

    /// Opens a blob; `None` if it is not there. Any other trouble is an error: unknown is not absent.
    pub fn open(disk: &dyn Disk, layout: &Layout, digest: Digest) -> io::Result<Option<Self>> {
        match disk.open(&layout.blob(digest)) {
            Ok(file) => Ok(Some(Self { digest, size: file.len()?, file })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its bytes.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// The digest and size of every blob; files with other names are none of ours.
pub fn scan(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<(Digest, u64)>> {
    let mut blobs = Vec::new();
    for folder in disk.list(&layout.blobs())?.into_iter().filter(|found| found.is_directory) {
        let files = disk.list(&folder.path)?;
        blobs.extend(files.iter().filter(|file| !file.is_directory).filter_map(|file| Some((Digest::from_hex(&file.name)?, file.len))));
    }
    Ok(blobs)
}
