//! What a site says that it holds.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::cache::books::Books;
use crate::catalog::{Catalog, Standing};
use crate::digest::{Claim, Digest};
use crate::inventory::{self, Imported, Inventory};
use crate::ledger::record::Record;
use crate::ledger::{Held, Ledger};
use crate::retention::is_cached;
use crate::seal::PublicKey;
use crate::store::imports;

/// What is there to stay, and what was imported. What is on its way out, or here only because hosts asked for it, may be gone when the
/// next bundle comes.
pub fn inventory(books: &Books, catalog: &Catalog, bundles: Vec<Imported>, now: Timestamp) -> Inventory {
    let (mut blobs, others) = books.read(|ledger| split(ledger, catalog));
    // Where else a file is listed takes many look-ups, and hosts wait for the ledger.
    let is_protected = |claims: &[Claim]| claims.iter().any(|claim| catalog.standing(*claim) == Standing::Protected);
    blobs.extend(others.into_iter().filter(|(_, claims)| is_protected(claims)).map(|(digest, _)| digest));
    Inventory {
        format: inventory::FORMAT.to_owned(),
        created_at: now.to_string(),
        bundles,
        blobs: blobs.iter().map(ToString::to_string).collect(),
    }
}

/// What belongs to images that stay, and what is claimed of everything else.
fn split(ledger: &Ledger, catalog: &Catalog) -> (BTreeSet<Digest>, Vec<(Digest, Vec<Claim>)>) {
    let stays = |record: &Record| record.stays() && !is_cached(record, catalog);
    let is_needed = |held: &Held| held.images.iter().any(|image| ledger.image(*image).is_some_and(stays));
    let (needed, others): (Vec<_>, Vec<_>) = ledger.blobs().partition(|(_, held)| is_needed(held));
    let claims = |(digest, _): (Digest, &Held)| (digest, ledger.claims(digest).collect());
    (needed.into_iter().map(|(digest, _)| digest).collect(), others.into_iter().map(claims).collect())
}

/// What was imported, by whom it is signed.
pub fn bundles(imported: &[imports::Imported], trusted: &[PublicKey]) -> Vec<Imported> {
    let signer = |bundle: &imports::Imported| trusted.iter().find(|key| key.has_signed(&bundle.text, &bundle.signature));
    let bundle = |bundle: &imports::Imported| {
        let selection = bundle.manifest.selection.id().to_string();
        Some(Imported { key: signer(bundle)?.to_string(), selection, generation: bundle.manifest.generation })
    };
    imported.iter().filter_map(bundle).collect()
}
