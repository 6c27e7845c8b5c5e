//! Which images a bundle is to have, of all that are listed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use crate::bundle::rendering::{selected, served};
use crate::catalog::images::Image;
use crate::catalog::query::{self, Found};
use crate::catalog::{Catalog, Remote};
use crate::digest::Fingerprint;
use crate::image::architecture::Architecture;
use crate::image::ftype::ImageType;
use crate::ledger::publication::OwnAlias;
use crate::library::error::LibraryError;
use crate::library::names;
use crate::manifest::Selection;
use crate::selection::{self, BadFilter};

/// The images of a bundle, by remote.
pub type Chosen = BTreeMap<Arc<str>, Vec<Image>>;

/// Why there is nothing to put into a bundle.
#[derive(Debug, thiserror::Error)]
pub enum NotChosen {
    /// A name means nothing, or an architecture is none.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// A filter is none.
    #[error(transparent)]
    Filter(#[from] BadFilter),
    /// An image has a name and does not pass the filters.
    #[error("'{0}' does not pass --select, --arch or --vm")]
    Filtered(String),
    /// No document lists an image.
    #[error("'{0}' is in no document that hosts get: it is private, or its remote is configured no more")]
    Unlisted(String),
    /// Nothing is left.
    #[error("no image is selected; cistern image list shows what there is")]
    Nothing,
}

/// Chooses the images that a selection means. Without names these are all that are held; of those that hosts do not see there is
/// none among them, since no document lists them.
pub fn choose(catalog: &Catalog, own: &[OwnAlias], wanted: &Selection, is_held: &dyn Fn(Fingerprint) -> bool) -> Result<Chosen, NotChosen> {
    let scope = Scope::new(catalog, wanted)?;
    let mut found = Vec::new();
    if wanted.images.is_empty() {
        let all = query::images(catalog, None).map_err(LibraryError::from)?;
        let held = all.into_iter().filter(|found| is_held(found.image.fingerprint) && scope.has(found));
        found.extend(newest(held.collect(), wanted.versions));
    }
    for name in &wanted.images {
        found.extend(scope.meant(own, name)?);
    }
    let (mut chosen, mut seen) = (Chosen::new(), HashSet::default());
    for Found { remote, image, .. } in found {
        if seen.insert((Arc::clone(remote), image.key())) {
            chosen.entry(Arc::clone(remote)).or_default().push(image.clone());
        }
    }
    if chosen.is_empty() { Err(NotChosen::Nothing) } else { Ok(chosen) }
}

/// The newest so many versions of each product and type; all, if that is none.
fn newest(found: Vec<Found<'_>>, versions: usize) -> Vec<Found<'_>> {
    if versions == 0 {
        return found;
    }
    let slot = |found: &Found<'_>| (Arc::clone(found.remote), found.image.version.product.name.clone(), found.image.image_type);
    let mut serials: HashMap<_, BTreeSet<Arc<str>>> = HashMap::default();
    for one in &found {
        serials.entry(slot(one)).or_default().insert(Arc::clone(&one.image.version.serial));
    }
    let is_new = |found: &Found<'_>| serials[&slot(found)].iter().rev().take(versions).any(|serial| *serial == found.image.version.serial);
    found.into_iter().filter(is_new).collect()
}

/// What passes the filters.
struct Scope<'a> {
    catalog: &'a Catalog,
    wanted: &'a Selection,
    architecture: Option<Architecture>,
    /// What documents list, and have left when they are filtered.
    passed: HashSet<(Arc<str>, Fingerprint)>,
}

impl<'a> Scope<'a> {
    fn new(catalog: &'a Catalog, wanted: &'a Selection) -> Result<Self, NotChosen> {
        let parse = |text: &String| Architecture::parse(text).ok_or_else(|| LibraryError::Architecture(text.clone()));
        let architecture = wanted.arch.as_ref().map(parse).transpose()?;
        let filters = wanted.select.iter().map(|filter| filter.parse()).collect::<Result<_, _>>()?;
        let filters = selection::Selection { filters, versions: 0 };
        let of_remote = |(name, remote): (&Arc<str>, &Arc<Remote>)| {
            let left: Vec<Fingerprint> = if filters.is_everything() {
                remote.listing.images().iter().map(|image| image.fingerprint).collect()
            } else {
                served(remote).map(|snapshot| selected(name, &snapshot, &filters)).unwrap_or_default()
            };
            left.into_iter().map(|fingerprint| (Arc::clone(name), fingerprint)).collect::<Vec<_>>()
        };
        Ok(Self { catalog, wanted, architecture, passed: catalog.remotes.iter().flat_map(of_remote).collect() })
    }

    fn has(&self, found: &Found<'_>) -> bool {
        self.passed.contains(&(Arc::clone(found.remote), found.image.fingerprint))
            && self.architecture.is_none_or(|wanted| found.image.version.product.architecture == wanted)
            && (!self.wanted.vm || found.image.image_type == ImageType::VirtualMachine)
    }

    /// The images that a name means: of a remote all, of an alias the newest or as many versions as are wanted, of a fingerprint
    /// that one.
    fn meant(&self, own: &[OwnAlias], name: &str) -> Result<Vec<Found<'a>>, NotChosen> {
        let all = |remote: &str| query::images(self.catalog, Some(remote)).map_err(LibraryError::from);
        if let Some(remote) = name.strip_suffix(':') {
            let passed = all(remote)?.into_iter().filter(|found| self.has(found)).collect();
            let passed = newest(passed, self.wanted.versions);
            let is_filtered = !self.wanted.select.is_empty() || self.wanted.arch.is_some() || self.wanted.vm;
            return if passed.is_empty() && !is_filtered { Err(NotChosen::Nothing) } else { some(passed, name) };
        }
        let named = names::find(self.catalog, own, name, self.wanted.vm, self.wanted.arch.as_deref())?;
        let is_listed = self.catalog.remotes.get(&named.remote).is_some_and(|remote| remote.listing.images().contains(&named.image));
        if !is_listed {
            return Err(NotChosen::Unlisted(name.to_owned()));
        }
        let is_exact = self.wanted.versions == 0 || is_fingerprint(name, named.image.fingerprint);
        let is_meant = |found: &Found<'_>| {
            let (one, other) = (found.image, &named.image);
            let is_sibling =
                (one.image_type, one.root) == (other.image_type, other.root) && one.version.product.name == other.version.product.name;
            if is_exact { one.fingerprint == other.fingerprint } else { is_sibling }
        };
        let meant = all(&named.remote)?.into_iter().filter(|found| is_meant(found) && self.has(found)).collect();
        some(newest(meant, self.wanted.versions), name)
    }
}

fn some<'a>(found: Vec<Found<'a>>, name: &str) -> Result<Vec<Found<'a>>, NotChosen> {
    if found.is_empty() { Err(NotChosen::Filtered(name.to_owned())) } else { Ok(found) }
}

/// Whether a name is a part of this fingerprint.
fn is_fingerprint(name: &str, fingerprint: Fingerprint) -> bool {
    let digits = name.rsplit(':').next().unwrap_or(name);
    digits.len() >= query::LEAST_DIGITS && fingerprint.to_string().starts_with(&digits.to_ascii_lowercase())
}
