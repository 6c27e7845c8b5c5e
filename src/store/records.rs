//! What is known of each held image: one file for each, from which the database can be made anew.
//!
//! Beside the record there is the part of upstream's documents that lists the image: it goes on being listed when upstream
//! lists it no more.

use std::io;

use serde::{Deserialize, Serialize};

use crate::digest::Fingerprint;
use crate::disk::{self, Disk};
use crate::ledger::record::Record;
use crate::ledger::written::Written;
use crate::store::layout::Layout;

const MAX_RECORD_BYTES: u64 = 4 << 20;

/// A document's part that lists one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// The path of the document, below its remote's name.
    pub document: String,
    /// The product with this one version, and in it the items of this one image, as JSON.
    pub product: String,
}

#[derive(Serialize, Deserialize)]
struct Whole {
    #[serde(flatten)]
    record: Written,
    excerpt: Option<Excerpt>,
}

/// Writes down an image.
pub fn save(disk: &dyn Disk, layout: &Layout, record: &Record, excerpt: Option<Excerpt>) -> io::Result<()> {
    let whole = Whole { record: Written::from(record), excerpt };
    disk::replace(disk, &layout.record(record.fingerprint), &serde_json::to_vec_pretty(&whole)?)
}

/// The excerpt of an image, if there is one. An error means that nobody knows.
pub fn excerpt(disk: &dyn Disk, layout: &Layout, fingerprint: Fingerprint) -> io::Result<Option<Excerpt>> {
    match read(disk, layout, fingerprint) {
        Ok(whole) => Ok(whole.excerpt),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The images of which something is written.
pub fn list(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<Fingerprint>> {
    Ok(disk.names(&layout.records())?.iter().filter_map(|name| Fingerprint::from_hex(name)).collect())
}

/// Whether something is written of an image; also if nobody knows.
pub fn exists(disk: &dyn Disk, layout: &Layout, fingerprint: Fingerprint) -> bool {
    !matches!(disk.open_own(&layout.record(fingerprint)), Ok(None))
}

/// What is written of an image; `None` if it cannot be read.
pub fn load(disk: &dyn Disk, layout: &Layout, fingerprint: Fingerprint) -> Option<Record> {
    match read(disk, layout, fingerprint).map(|whole| whole.record.read()) {
        Ok(Some(record)) => Some(record),
        Ok(None) => {
            tracing::warn!(%fingerprint, "passing over a record that makes no sense");
            None
        }
        Err(error) => {
            tracing::warn!(%fingerprint, %error, "passing over a record that cannot be read");
            None
        }
    }
}

/// Removes what is written of an image.
pub fn remove(disk: &dyn Disk, layout: &Layout, fingerprint: Fingerprint) -> io::Result<()> {
    disk.remove(&layout.record(fingerprint))
}

fn read(disk: &dyn Disk, layout: &Layout, fingerprint: Fingerprint) -> io::Result<Whole> {
    let bytes = disk.open(&layout.record(fingerprint))?.read_all(MAX_RECORD_BYTES)?;
    serde_json::from_slice(&bytes).map_err(io::Error::from)
}
