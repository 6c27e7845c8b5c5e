//! Images of our own and names that people gave: one file for each, written as carefully as a document.

use std::io;
use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk::{self, Disk};
use crate::ledger::publication::{OwnAlias, Publication};
use crate::store::layout::Layout;

const MAX_FILE_BYTES: u64 = 1 << 20;

/// Writes an image of our own down.
pub fn save(disk: &dyn Disk, layout: &Layout, publication: &Publication) -> io::Result<()> {
    write(disk, &layout.publications().join(&publication.fingerprint), publication)
}

/// Forgets an image of our own.
pub fn remove(disk: &dyn Disk, layout: &Layout, fingerprint: &str) -> io::Result<()> {
    disk.remove(&layout.publications().join(fingerprint))?;
    disk.sync_directory(&layout.publications())
}

/// All images of our own. One that cannot be read is an error: it is what people decided, and nothing may overwrite it.
pub fn load(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<Publication>> {
    read_all(disk, &layout.publications())
}

/// Writes a name down.
pub fn save_alias(disk: &dyn Disk, layout: &Layout, alias: &OwnAlias) -> io::Result<()> {
    write(disk, &layout.aliases().join(escaped(&alias.name)), alias)
}

/// Forgets a name.
pub fn remove_alias(disk: &dyn Disk, layout: &Layout, name: &str) -> io::Result<()> {
    disk.remove(&layout.aliases().join(escaped(name)))?;
    disk.sync_directory(&layout.aliases())
}

/// All names that people gave.
pub fn load_aliases(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<OwnAlias>> {
    read_all(disk, &layout.aliases())
}

fn escaped(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

fn write<T: Serialize>(disk: &dyn Disk, path: &Path, value: &T) -> io::Result<()> {
    disk::replace(disk, path, &serde_json::to_vec_pretty(value)?)
}

fn read_all<T: DeserializeOwned>(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<T>> {
    // What was written and not named yet was not decided.
    let found = disk.list(folder)?.into_iter().filter(|found| found.path.extension().is_none_or(|extension| extension != "new"));
    found
        .map(|found| {
            let bytes = disk.open(&found.path)?.read_all(MAX_FILE_BYTES)?;
            serde_json::from_slice(&bytes).map_err(|error| io::Error::other(format!("{}: {error}", found.path.display())))
        })
        .collect()
}
