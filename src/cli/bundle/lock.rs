//! One export at a time writes to a folder.

use std::io;
use std::path::{Path, PathBuf};

use crate::bundle::volume::LOCK;
use crate::cli::bundle::part::BadFolder;
use crate::cli::bundle::place::remove_link;
use crate::disk::{Disk as _, File, OsDisk};

/// The right to write to a folder, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Makes the folder if it is not there, and takes it.
    pub fn take(folder: &Path) -> Result<Self, BadFolder> {
        let path = folder.join(LOCK);
        OsDisk.create_directory(folder).map_err(|error| BadFolder::disk(folder, error))?;
        match lock(&path) {
            Ok(Some(file)) => Ok(Self { path, _file: file }),
            Ok(None) => Err(BadFolder::Busy(folder.to_owned())),
            Err(error) => Err(BadFolder::disk(&path, error)),
        }
    }
}

fn lock(path: &Path) -> io::Result<Option<File>> {
    remove_link(path)?;
    loop {
        let file = OsDisk.create(path)?;
        if !file.try_lock()? {
            return Ok(None);
        }
        // Whoever had it before may have removed it since it was opened.
        let there = OsDisk.open_own(path)?.map(|there| there.identity()).transpose()?;
        if there == Some(file.identity()?) {
            return Ok(Some(file));
        }
        if there.is_none() {
            OsDisk.remove(path)?;
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What stays is no harm: the next one takes it.
        drop(OsDisk.remove(&self.path));
    }
}
