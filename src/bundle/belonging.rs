//! What a bundle lists is held because of that, whatever it was held for before. Waits for the disk.

use std::io;

use crate::cache::Cache;
use crate::digest::Fingerprint;
use crate::ledger::record::{Fate, Owner, Reason, Record};
use crate::store::{decisions, records};

/// Has images held because of a bundle that lists them as of this remote, also those that were on their way out. What a person copied
/// stays that person's.
pub fn claim(cache: &Cache, remote: &str, listed: &[Fingerprint]) -> io::Result<()> {
    listed.iter().filter_map(|fingerprint| cache.books().image(*fingerprint)).try_for_each(|record| claim_one(cache, remote, &record))
}

fn claim_one(cache: &Cache, remote: &str, record: &Record) -> io::Result<()> {
    let (disk, layout, fingerprint) = (&**cache.store().disk(), cache.store().layout(), record.fingerprint);
    let is_of_it = *record.remote == *remote;
    if is_of_it && record.owner != Owner::Selection {
        let decision = decisions::load(disk, layout, fingerprint)?;
        if !decision.kept {
            let auto_update = decision.auto_update.unwrap_or_default();
            let owned = Record { owner: Owner::Selection, auto_update, expires_at: None, ..record.clone() };
            records::save(disk, layout, &owned, records::excerpt(disk, layout, fingerprint)?)?;
            cache.books().change(|ledger| {
                ledger.amend(fingerprint, |record| {
                    record.owner = Owner::Selection;
                    record.auto_update = auto_update;
                    record.expires_at = None;
                });
            });
        }
    }
    // What another remote lets go of stays on the account of this one; what a person deleted comes back with whoever lists it anew.
    if !record.stays() && (is_of_it || matches!(record.fate, Fate::Leaves(_, Reason::Deleted))) {
        cache.books().change(|ledger| ledger.set_fate(fingerprint, Fate::Stays));
    }
    Ok(())
}
