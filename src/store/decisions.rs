//! What people decided about images: one file for each, written as carefully as a document.

use std::io;

use crate::digest::Fingerprint;
use crate::disk::{self, Disk};
use crate::ledger::decision::Decision;
use crate::store::layout::Layout;

const MAX_DECISION_BYTES: u64 = 64 << 10;

/// Writes a decision down; one that decides nothing is removed.
pub fn save(disk: &dyn Disk, layout: &Layout, fingerprint: Fingerprint, decision: &Decision) -> io::Result<()> {
    if decision.is_empty() {
        return remove(disk, layout, fingerprint);
    }
    disk::replace(disk, &layout.decision(fingerprint), &serde_json::to_vec_pretty(decision)?)
}

/// What was decided about an image. An error means that nobody knows.
pub fn load(disk: &dyn Disk, layout: &Layout, fingerprint: Fingerprint) -> io::Result<Decision> {
    let path = layout.decision(fingerprint);
    let read = disk.open(&path).and_then(|file| file.read_all(MAX_DECISION_BYTES));
    let decision = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
    match decision {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Decision::default()),
        // Whoever reads that looks for the file.
        decision => decision.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

/// The images about which something was decided.
pub fn list(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<Fingerprint>> {
    Ok(disk.names(&layout.decisions())?.iter().filter_map(|name| Fingerprint::from_hex(name)).collect())
}

/// Forgets what was decided about an image.
pub fn remove(disk: &dyn Disk, layout: &Layout, fingerprint: Fingerprint) -> io::Result<()> {
    let path = layout.decision(fingerprint);
    disk.remove(&path)?;
    disk.sync_directory(path.parent().unwrap_or(&path))
}
