//! What a site says that it holds.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::catalog::{Catalog, Standing};
use crate::digest::Digest;
use crate::inventory::{self, Imported, Inventory};
use crate::ledger::record::Record;
use crate::ledger::{Held, Ledger};
use crate::seal::PublicKey;
use crate::store::imports;

/// What is there to stay, and what was imported. What is on its way out may be gone when the next bundle comes.
pub fn inventory(ledger: &Ledger, catalog: &Catalog, imported: &[imports::Imported], trusted: &[PublicKey], now: Timestamp) -> Inventory {
    let is_protected = |digest| ledger.claims(digest).any(|claim| catalog.standing(claim) == Standing::Protected);
    let is_needed = |held: &Held| held.images.iter().any(|image| ledger.image(*image).is_some_and(Record::stays));
    let stays = ledger.blobs().filter(|(digest, held)| is_needed(held) || is_protected(*digest));
    let blobs: BTreeSet<Digest> = stays.map(|(digest, _)| digest).collect();
    let signer = |bundle: &imports::Imported| trusted.iter().find(|key| key.has_signed(&bundle.text, &bundle.signature));
    let bundle = |bundle: &imports::Imported| {
        let selection = bundle.manifest.selection.id().to_string();
        Some(Imported { key: signer(bundle)?.to_string(), selection, generation: bundle.manifest.generation })
    };
    Inventory {
        format: inventory::FORMAT.to_owned(),
        created_at: now.to_string(),
        bundles: imported.iter().filter_map(bundle).collect(),
        blobs: blobs.iter().map(ToString::to_string).collect(),
    }
}
