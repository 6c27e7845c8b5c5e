//! What would become of a site's remotes if a bundle were taken, and what keeps it from being taken. Nothing is changed here.

use std::collections::BTreeSet;

use foldhash::HashSet;
use jiff::Timestamp;

use crate::api::ImportedRemote;
use crate::bundle::arrival::{Arrival, expected};
use crate::bundle::error::NotImported;
use crate::bundle::joining::{listed, remotes, sets};
use crate::cache::books::Books;
use crate::catalog::Catalog;
use crate::catalog::images::Image;
use crate::catalog::listing::Listing;
use crate::catalog::name;
use crate::digest::{Digest, Fingerprint};
use crate::http::path::StreamPath;
use crate::manifest::File;
use crate::render::policy::Policy;
use crate::render::remote::listing_of;
use crate::revalidation::census::Census;
use crate::revalidation::refusal::Refusal;
use crate::simplestreams::index::INDEX_PATH;
use crate::simplestreams::snapshot::{Snapshot, Source};
use crate::store::imports::Imported;

/// What would become of the remotes.
#[derive(Debug)]
pub struct Outlook {
    /// Each remote that is concerned.
    pub remotes: Vec<Prospect>,
    /// The blobs that are in the bundle and not held, with the number of their volume, from 0.
    pub missing: Vec<(usize, File)>,
    /// Whether the bundle is kept already.
    pub is_known: bool,
    /// The files that it lists and that are neither in it nor held.
    pub lacking: Vec<String>,
    /// Why that is so, and what to do.
    pub why: Option<String>,
    /// What it lists and is held, and nobody remembers to have verified.
    pub strange: Vec<Digest>,
}

/// What would become of one remote.
#[derive(Debug)]
pub struct Prospect {
    /// Its name.
    pub remote: String,
    /// Whether the bundle has something of it; otherwise the one before had.
    pub is_in_it: bool,
    /// What would be listed.
    pub documents: Vec<Source>,
    /// The images that the bundle itself has of it.
    pub own: Vec<Fingerprint>,
    added: Vec<String>,
    gone: Vec<String>,
    images: usize,
}

impl Outlook {
    /// Looks at a bundle whose documents came, beside all others that were imported.
    pub fn new(arrival: &Arrival, mut imported: Vec<Imported>, catalog: &Catalog, books: &Books) -> Result<Self, NotImported> {
        let bundle = arrival.whole()?;
        let mut names = remotes(&bundle.manifest);
        for remote in &names {
            name::check(remote).map_err(|reason| NotImported::Remote(format!("it has a remote '{}': {reason}", remote.escape_debug())))?;
        }
        check_listed(&bundle, &names)?;
        let lacking = lacking(arrival, &bundle, &names, books)?;
        let relied_on = relied_on(arrival)?;
        let strange = books.read(|ledger| ledger.strangers().filter(|digest| relied_on.contains(digest)).collect());
        let why = (!lacking.is_empty()).then(|| say(arrival, &imported, lacking.len()));
        let before = imported.iter().position(|other| other.place == bundle.place).map(|place| imported.swap_remove(place));
        let is_known = before.as_ref().is_some_and(|before| before.text == bundle.text);
        let in_it = names.clone();
        names.extend(before.iter().flat_map(|before| remotes(&before.manifest)));
        imported.push(bundle);
        let own = |remote: &str| imported.last().map(|bundle| prints_of(bundle, remote)).unwrap_or_default();
        let of_remote = |remote: String| Prospect::new(&imported, catalog, in_it.contains(&remote), own(&remote), remote);
        let missing = books.read(|ledger| {
            let blobs = arrival.manifest.blobs().filter(|(_, file)| !ledger.has(expected(file)));
            blobs.map(|(volume, file)| (volume, file.clone())).collect()
        });
        let remotes: Vec<Prospect> = names.into_iter().map(of_remote).collect();
        // Together they have to make sense, too: what is kept and cannot be served would be in the way of every bundle after it.
        remotes.iter().try_for_each(|prospect| check_documents(&prospect.remote, prospect.documents.clone()))?;
        Ok(Self { remotes, missing, is_known, lacking, why, strange })
    }
}

impl Prospect {
    fn new(bundles: &[Imported], catalog: &Catalog, is_in_it: bool, own: Vec<Fingerprint>, remote: String) -> Self {
        let documents = listed(bundles, &remote);
        let now = catalog.remotes.get(&*remote).map(|remote| &*remote.listing);
        let then = listing(documents.clone());
        let prints = |listing: &Listing| listing.images().iter().map(|image| image.fingerprint).collect::<HashSet<Fingerprint>>();
        let (old, new) = (now.map(prints).unwrap_or_default(), prints(&then));
        let without = |listing: &Listing, other: &HashSet<Fingerprint>| {
            let shown = listing.images().iter().filter(|image| !other.contains(&image.fingerprint)).map(called);
            // One image may be listed for LXD and for Incus.
            shown.collect::<BTreeSet<String>>().into_iter().collect()
        };
        let (added, gone) = (without(&then, &old), now.map(|now| without(now, &new)).unwrap_or_default());
        Self { remote, is_in_it, documents, own, added, gone, images: new.len() }
    }

    /// What people see of it.
    pub fn shown(&self, newcomers: &[String]) -> ImportedRemote {
        let Self { remote, added, gone, images, .. } = self;
        let is_new = newcomers.contains(remote);
        ImportedRemote { remote: remote.clone(), is_new, added: added.clone(), gone: gone.clone(), images: *images }
    }
}

/// Everything that a bundle whose documents came brings or lists.
pub fn relied_on(arrival: &Arrival) -> Result<HashSet<Digest>, NotImported> {
    let bundle = arrival.whole()?;
    let listed = remotes(&bundle.manifest).into_iter().flat_map(|remote| digests_of(&bundle, &remote));
    Ok(arrival.blobs().chain(listed).collect())
}

/// Whether every document of a bundle can be read.
fn check_listed(bundle: &Imported, names: &BTreeSet<String>) -> Result<(), NotImported> {
    for remote in names {
        for documents in sets(bundle, remote) {
            check_documents(remote, documents)?;
        }
    }
    Ok(())
}

fn check_documents(remote: &str, documents: Vec<Source>) -> Result<(), NotImported> {
    let refused = |reason| NotImported::Documents { remote: remote.to_owned(), reason };
    if documents.is_empty() {
        let path = StreamPath::from_document(INDEX_PATH).expect("the path of the index is a path");
        return Err(refused(Refusal::Missing { path }));
    }
    Census::of(&snapshot(documents)).map(drop).map_err(refused)
}

/// The images that a bundle lists of a remote.
fn prints_of(bundle: &Imported, remote: &str) -> Vec<Fingerprint> {
    let listings = sets(bundle, remote).into_iter().map(listing);
    listings.flat_map(|listing| listing.images().iter().map(|image| image.fingerprint).collect::<Vec<_>>()).collect()
}

/// The files that a bundle lists of a remote.
fn digests_of(bundle: &Imported, remote: &str) -> Vec<Digest> {
    let listings = sets(bundle, remote).into_iter().map(listing);
    listings.flat_map(|listing| listing.files().iter().filter_map(|file| file.expected.digest()).collect::<Vec<_>>()).collect()
}

/// The files that a bundle lists and that are neither in it nor held, each with its image.
fn lacking(arrival: &Arrival, bundle: &Imported, names: &BTreeSet<String>, books: &Books) -> Result<Vec<String>, NotImported> {
    let mut lacking = BTreeSet::new();
    for remote in names {
        for listing in sets(bundle, remote).into_iter().map(listing) {
            if let Some(file) = listing.files().iter().find(|file| file.expected.digest().is_none()) {
                return Err(NotImported::NoDigest { remote: remote.clone(), path: file.path.to_string() });
            }
            // Two images may have different files at one path, of which the listing has one.
            let of_images = listing.images().iter().flat_map(|image| image.files.iter().map(|file| (&file.path, file.expected)));
            let files = listing.files().iter().map(|file| (&file.path, file.expected)).chain(of_images);
            let elsewhere: HashSet<_> = files.filter(|(_, file)| !file.digest().is_some_and(|digest| arrival.has(digest))).collect();
            let missing = books.read(|ledger| elsewhere.into_iter().filter(|(_, file)| !ledger.has(*file)).collect::<Vec<_>>());
            lacking.extend(missing.into_iter().map(|(path, file)| match listing.images_with(file).next() {
                Some(image) => format!("{remote}/{path} of {}", called(image)),
                None => format!("{remote}/{path}"),
            }));
        }
    }
    if lacking.is_empty() || books.is_counted() { Ok(lacking.into_iter().collect()) } else { Err(NotImported::Uncounted) }
}

/// Why something is missing, and what to do.
fn say(arrival: &Arrival, imported: &[Imported], count: usize) -> String {
    let known = imported.iter().find(|bundle| bundle.place == arrival.place).map(|bundle| bundle.manifest.generation);
    let whose = match (arrival.manifest.parent, known) {
        (Some(parent), Some(known)) if known >= parent => format!("it was made for this site as it was with bundle {parent}"),
        (Some(parent), _) => format!("it is what came after bundle {parent}, which was never imported here"),
        (None, _) => "it was made for a site that has more than this one".to_owned(),
    };
    format!(
        "{whose}; {count} files are neither in it nor held; make an inventory here with 'cistern bundle inventory', and a new bundle with 'cistern bundle export --have' and that"
    )
}

/// What people call an image.
fn called(image: &Image) -> String {
    format!("{} {} ({})", image.version.product.name, image.version.serial, image.image_type)
}

fn listing(documents: Vec<Source>) -> Listing {
    listing_of(&snapshot(documents), &Policy::default())
}

fn snapshot(documents: Vec<Source>) -> Snapshot {
    Snapshot { url: String::new(), accepted_at: Timestamp::UNIX_EPOCH, documents }
}
