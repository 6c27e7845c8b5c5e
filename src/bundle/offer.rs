//! A bundle that is offered: whose it is, whether it may come, and what is wanted of it. Waits for the disk.

use bytes::Bytes;

use crate::api::ImportPlan;
use crate::bundle::arrival::{Arrival, expected};
use crate::bundle::error::NotImported;
use crate::bundle::joining::made_at;
use crate::cache::Cache;
use crate::manifest::{File, Manifest};
use crate::store::imports::{self, Imported};
use crate::store::keys;

/// Looks at what is offered.
pub fn consider(cache: &Cache, text: Bytes, signature: Bytes, allow_rollback: bool) -> Result<Arrival, NotImported> {
    let trusted = keys::trusted(&**cache.store().disk(), cache.store().layout())?;
    let mut arrival = Arrival::new(&trusted, text, signature, allow_rollback)?;
    let imported = before(cache, &arrival)?;
    arrival.kept = imported.into_iter().find(|bundle| bundle.place == arrival.place && bundle.text == arrival.text);
    Ok(arrival)
}

/// What was imported before, if the bundle may come beside and after that. In the place of what cannot be read it may.
pub fn before(cache: &Cache, arrival: &Arrival) -> Result<Vec<Imported>, NotImported> {
    let (disk, layout) = (&**cache.store().disk(), cache.store().layout());
    if !keys::trusted(disk, layout)?.contains(&arrival.key) {
        // Somebody said so meanwhile.
        return Err(NotImported::NotTrusted);
    }
    let (imported, unreadable) = imports::load(disk, layout)?;
    if let Some(other) = unreadable.into_iter().find(|other| other.place != arrival.place) {
        return Err(other.into());
    }
    let ours = imported.iter().find(|bundle| bundle.place == arrival.place).map(|bundle| &bundle.manifest);
    match ours.filter(|ours| age(ours) > age(&arrival.manifest) && !arrival.allow_rollback) {
        Some(ours) => Err(NotImported::Older { theirs: called(&arrival.manifest), ours: called(ours) }),
        None => Ok(imported),
    }
}

/// What is wanted of a bundle, if there is room for that.
pub fn plan(cache: &Cache, arrival: &Arrival) -> Result<ImportPlan, NotImported> {
    let blobs = || arrival.manifest.blobs().map(|(_, file)| file);
    let wanted: Vec<&File> = cache.books().read(|ledger| blobs().filter(|file| !ledger.has(expected(file))).collect());
    // What another command is sending has its room.
    let bytes = wanted.iter().filter(|file| !cache.is_coming(expected(file))).map(|file| file.size).sum();
    // What came of it already is not to make room for the rest.
    let lacking = if cache.books().is_counted() { cache.lacking(bytes, &|digest| arrival.has(digest))? } else { 0 };
    if lacking > 0 {
        return Err(NotImported::NoRoom { wanted: bytes, lacking });
    }
    let documents = arrival.rendered().filter(|_| arrival.kept.is_none());
    Ok(ImportPlan {
        id: arrival.id.to_string(),
        is_known: arrival.kept.is_some(),
        documents: documents.map(|document| document.path.to_string()).collect(),
        blobs: wanted.into_iter().map(|file| file.path.to_string()).collect(),
    })
}

/// What tells which of two bundles is newer. Whoever lost count of them begins anew, and time goes on.
fn age(manifest: &Manifest) -> (jiff::Timestamp, u64) {
    (made_at(manifest), manifest.generation)
}

/// What people call a bundle.
pub fn called(manifest: &Manifest) -> String {
    format!("{} of {}", manifest.generation, manifest.created_at)
}
