//! The selections of which a site has bundles, whole or in part. Waits for the disk.

use std::collections::BTreeSet;

use crate::api::{BundleState, ImportedBundle};
use crate::bundle::error::NotImported;
use crate::bundle::joining::remotes;
use crate::bundle::offer::called;
use crate::cache::Cache;
use crate::digest::Digest;
use crate::manifest::{Manifest, Selection};
use crate::store::imports::{self, Imported};
use crate::store::{begun, keys};

/// So much of a selection's name is shown.
const SHOWN_DIGITS: usize = 12;

/// All of them.
pub fn all(cache: &Cache) -> Result<Vec<ImportedBundle>, NotImported> {
    let (disk, layout) = (&**cache.store().disk(), cache.store().layout());
    let (imported, unreadable) = imports::load(disk, layout)?;
    let trusted = keys::trusted(disk, layout)?;
    let mut all: Vec<ImportedBundle> = Vec::new();
    for Imported { place, manifest, text, signature, .. } in &imported {
        let key = trusted.iter().find(|key| key.has_signed(text, signature)).map(ToString::to_string);
        all.push(ImportedBundle { signed_by: key, ..shown(*place, manifest, BundleState::Listed) });
    }
    let damaged = |place| shown(place, &Manifest::default(), BundleState::Damaged);
    let on_its_way = |(place, manifest): (Digest, Option<Manifest>)| match manifest {
        Some(manifest) => shown(place, &manifest, BundleState::Incomplete),
        None => damaged(place),
    };
    all.extend(begun::load(disk, layout)?.into_iter().map(on_its_way));
    all.extend(unreadable.iter().map(|other| damaged(other.place)));
    all.sort_by(|one, other| (&one.selection, &one.id, one.generation).cmp(&(&other.selection, &other.id, other.generation)));
    Ok(all)
}

/// What was let go of.
#[derive(Debug)]
pub struct Forgotten {
    /// The remotes that may list less now.
    pub remotes: BTreeSet<String>,
    /// What people are told.
    pub said: String,
}

/// Lets go of what came of a bundle that is not complete, or of a selection that is listed. The remotes have to be fed anew.
pub fn forget(cache: &Cache, id: &str) -> Result<Forgotten, NotImported> {
    let (disk, layout) = (&**cache.store().disk(), cache.store().layout());
    let (imported, unreadable) = imports::load(disk, layout)?;
    let on_their_way: BTreeSet<Digest> = begun::load(disk, layout)?.into_iter().map(|(place, _)| place).collect();
    let places: BTreeSet<Digest> =
        imported.iter().map(|bundle| bundle.place).chain(unreadable.iter().map(|other| other.place)).chain(on_their_way.clone()).collect();
    let mut meant = places.into_iter().filter(|place| !id.is_empty() && place.to_string().starts_with(id));
    let place = meant.next().filter(|_| meant.next().is_none()).ok_or_else(|| NotImported::NoSelection(id.to_owned()))?;
    let listed = imported.into_iter().find(|bundle| bundle.place == place).map(|bundle| bundle.manifest);
    if on_their_way.contains(&place) {
        begun::forget(disk, layout, place)?;
        cache.let_go(&cache.begun().end(place));
        let stays = listed.map(|manifest| format!("; bundle {} stays listed", called(&manifest))).unwrap_or_default();
        return Ok(Forgotten { remotes: BTreeSet::new(), said: format!("nothing more of it is waited for{stays}") });
    }
    // Of one that cannot be read nobody knows which it had.
    let remotes = match &listed {
        Some(manifest) => remotes(manifest),
        None => imports::remotes(disk, layout)?,
    };
    if let Some(other) = unreadable.into_iter().find(|other| other.place != place) {
        // What is left could not be joined.
        return Err(other.into());
    }
    imports::remove(disk, layout, place)?;
    Ok(Forgotten { remotes, said: "nothing is listed for it any more".to_owned() })
}

fn shown(place: Digest, manifest: &Manifest, state: BundleState) -> ImportedBundle {
    ImportedBundle {
        id: place.to_string()[..SHOWN_DIGITS].to_owned(),
        selection: said(&manifest.selection),
        state,
        generation: manifest.generation,
        created_at: manifest.created_at.clone(),
        signed_by: None,
        remotes: remotes(manifest).into_iter().collect(),
        files: manifest.blobs().count(),
        size: manifest.blobs().map(|(_, file)| file.size).sum(),
    }
}

/// A selection as 'bundle export' is told of it.
fn said(selection: &Selection) -> String {
    let Selection { images, select, arch, vm, versions } = selection;
    let mut words = images.clone();
    words.extend(select.iter().map(|filter| format!("--select {filter}")));
    words.extend(arch.iter().map(|arch| format!("--arch {arch}")));
    words.extend(vm.then(|| "--vm".to_owned()));
    words.extend((*versions > 0).then(|| format!("--versions {versions}")));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use crate::bundle::selections::said;
    use crate::manifest::Selection;

    #[test]
    fn a_selection_is_said_as_an_export_is_told() {
        assert_eq!(said(&Selection::default()), "");
        let selection = Selection {
            images: vec!["ubuntu:24.04".to_owned(), "lab:".to_owned()],
            select: vec!["os=Ubuntu".to_owned()],
            arch: Some("arm64".to_owned()),
            vm: true,
            versions: 2,
        };
        assert_eq!(said(&selection), "ubuntu:24.04 lab: --select os=Ubuntu --arch arm64 --vm --versions 2");
    }
}
