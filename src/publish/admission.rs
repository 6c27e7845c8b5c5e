//! By which rules an image is held that has just become whole (design.md §3).

use std::sync::Arc;

use jiff::Timestamp;

use crate::catalog::Catalog;
use crate::catalog::images::Image;
use crate::catalog::mode::Mode;
use crate::digest::{Digest, Fingerprint};
use crate::ledger::Ledger;
use crate::ledger::record::{Fate, Owner, Piece, Reason, Record};
use crate::render::retain;
use crate::retention::Rules;
use crate::simplestreams::products::Products;
use crate::store::records::Excerpt;

/// A record, and the images whose place it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The record.
    pub record: Record,
    /// The images that are superseded by it, the newest first.
    pub superseded: Vec<Fingerprint>,
}

impl Admitted {
    /// Enters it into the ledger; whether all its files are still held.
    pub fn enter(self, ledger: &mut Ledger, now: Timestamp) -> bool {
        if !ledger.record(self.record) {
            return false;
        }
        for fingerprint in self.superseded {
            ledger.set_fate(fingerprint, Fate::Leaves(now, Reason::Superseded));
        }
        true
    }
}

/// Decides how an image is held. `blobs` are the digests and sizes of its files.
pub fn admit(
    ledger: &Ledger,
    catalog: &Catalog,
    rules: Rules,
    remote: &Arc<str>,
    image: &Image,
    blobs: &[(Digest, u64)],
    now: Timestamp,
) -> Admitted {
    let owner = match catalog.mode(remote) {
        Some(Mode::Mirror) => Owner::Selection,
        // What a bundle lists is there because somebody selected it, and goes when that one does so no more.
        Some(Mode::Offline) if catalog.is_fed(remote) => Owner::Selection,
        Some(Mode::Offline | Mode::Own) => Owner::Operator,
        Some(Mode::Proxy) | None => Owner::Hosts,
    };
    let is_current = catalog.is_current(remote, image) || is_held_back(catalog, remote, image);
    let auto_update = match owner {
        // A request for a version that is not the newest is for that one.
        Owner::Hosts => rules.auto_update_cached && is_current,
        // Nothing newer comes by itself where nobody is asked.
        Owner::Selection => catalog.mode(remote) == Some(Mode::Mirror),
        Owner::Operator => false,
    };
    let pieces = image.files.iter().zip(blobs);
    let mut record = Record {
        fingerprint: image.fingerprint,
        remote: Arc::clone(remote),
        image_type: image.image_type,
        root: image.root,
        version: Arc::clone(&image.version),
        pieces: pieces.map(|(file, (digest, size))| Piece::new(file.path.clone(), file.expected, *digest, *size)).collect(),
        owner,
        auto_update,
        public: true,
        cached_at: now,
        last_used_at: now,
        use_count: u64::from(owner == Owner::Hosts),
        expires_at: image.version.product.expires_at().filter(|_| owner == Owner::Hosts),
        fate: Fate::Stays,
    };
    // What a selection lists goes when it is listed no more, and not when there is something newer.
    let mut older = if is_current && owner != Owner::Selection { predecessors(ledger, &record) } else { Vec::new() };
    older.sort_by(|one, other| (&other.version.serial, other.fingerprint).cmp(&(&one.version.serial, one.fingerprint)));
    if let Some(newest) = older.first() {
        record.inherit(newest);
        record.use_count = 0;
    }
    Admitted { record, superseded: older.iter().map(|older| older.fingerprint).collect() }
}

fn is_held_back(catalog: &Catalog, remote: &str, image: &Image) -> bool {
    let held_back = catalog.remotes.get(remote).map_or(&[][..], |remote| &remote.held_back);
    held_back.iter().any(|held_back| held_back.image.fingerprint == image.fingerprint)
}

/// The images that are kept up to date and older than this one.
fn predecessors<'a>(ledger: &'a Ledger, record: &Record) -> Vec<&'a Record> {
    let is_older = |other: &&Record| other.is_tracked() && other.is_sibling_of(record) && other.version.serial < record.version.serial;
    ledger.images().filter(is_older).collect()
}

/// The part of a remote's documents that lists an image, so that it can go on being listed; `None` if none does.
pub fn excerpt(catalog: &Catalog, remote: &str, image: &Image) -> Option<Excerpt> {
    let remote = catalog.remotes.get(remote)?;
    let held_back = remote.held_back.iter().find(|held_back| held_back.image.fingerprint == image.fingerprint);
    if let Some((path, product)) = held_back.and_then(|held_back| held_back.excerpt.clone()) {
        return Some(Excerpt { document: path.to_string(), product });
    }
    remote.documents.iter().find_map(|(path, document)| {
        let (products, _) = Products::parse(std::str::from_utf8(&document.plain).ok()?).ok()?;
        let product = products.products.iter().find(|product| *product.name == *image.version.product.name)?;
        let product = retain::excerpt(product, &image.version.serial, image.fingerprint)?;
        Some(Excerpt { document: path.to_string(), product })
    })
}
