//! Which images a bundle is to have, of all that are listed.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashSet;

use crate::bundle::rendering::{selected, served};
use crate::catalog::Catalog;
use crate::catalog::listing::Image;
use crate::catalog::query::{self, Found};
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
    #[error("'{0}' does not pass --select, --arch or --versions")]
    Filtered(String),
    /// Nothing is left.
    #[error("no image is selected; cistern image list shows what there is")]
    Nothing,
}

/// Chooses the images that a selection means. Without names these are all that are held.
pub fn choose(catalog: &Catalog, own: &[OwnAlias], wanted: &Selection, is_held: &dyn Fn(Fingerprint) -> bool) -> Result<Chosen, NotChosen> {
    let scope = Scope::new(catalog, wanted)?;
    let mut chosen = Chosen::new();
    let mut add = |remote: &Arc<str>, image: &Image| {
        let images = chosen.entry(Arc::clone(remote)).or_default();
        if images.iter().all(|other| other.key() != image.key()) {
            images.push(image.clone());
        }
    };
    if wanted.images.is_empty() {
        let all = query::images(catalog, None).map_err(LibraryError::from)?;
        all.iter().filter(|found| is_held(found.image.fingerprint) && scope.has(found)).for_each(|found| add(found.remote, found.image));
    }
    for name in &wanted.images {
        let meant = scope.meant(own, name)?;
        if meant.is_empty() {
            return Err(NotChosen::Filtered(name.clone()));
        }
        meant.iter().for_each(|found| add(found.remote, found.image));
    }
    if chosen.is_empty() { Err(NotChosen::Nothing) } else { Ok(chosen) }
}

/// The filters of a selection, in two halves: what documents know, and what only images do.
pub fn filters(wanted: &Selection) -> Result<selection::Selection, BadFilter> {
    let filters = wanted.select.iter().map(|filter| filter.parse()).collect::<Result<_, _>>()?;
    Ok(selection::Selection { filters, versions: wanted.versions })
}

/// What passes the filters.
struct Scope<'a> {
    catalog: &'a Catalog,
    wanted: &'a Selection,
    architecture: Option<Architecture>,
    /// What documents are left with; `None` if nothing is filtered.
    passed: Option<HashSet<(Arc<str>, Fingerprint)>>,
}

impl<'a> Scope<'a> {
    fn new(catalog: &'a Catalog, wanted: &'a Selection) -> Result<Self, NotChosen> {
        let parse = |text: &String| Architecture::parse(text).ok_or_else(|| LibraryError::Architecture(text.clone()));
        let architecture = wanted.arch.as_ref().map(parse).transpose()?;
        let filters = filters(wanted)?;
        let of_remote = |(name, remote): (&Arc<str>, &Arc<crate::catalog::Remote>)| {
            let left = served(remote).map(|snapshot| selected(name, &snapshot, &filters)).unwrap_or_default();
            left.into_iter().map(|fingerprint| (Arc::clone(name), fingerprint)).collect::<Vec<_>>()
        };
        let passed = (!filters.is_everything()).then(|| catalog.remotes.iter().flat_map(of_remote).collect());
        Ok(Self { catalog, wanted, architecture, passed })
    }

    fn has(&self, found: &Found<'_>) -> bool {
        let passes = |passed: &HashSet<_>| passed.contains(&(Arc::clone(found.remote), found.image.fingerprint));
        self.passed.as_ref().is_none_or(passes)
            && self.architecture.is_none_or(|wanted| found.image.version.product.architecture == wanted)
            && (!self.wanted.vm || found.image.image_type == ImageType::VirtualMachine)
    }

    /// The images that a name means: of a remote all, of an alias the newest, or as many as are wanted.
    fn meant(&self, own: &[OwnAlias], name: &str) -> Result<Vec<Found<'a>>, NotChosen> {
        if let Some(remote) = name.strip_suffix(':') {
            let all = query::images(self.catalog, Some(remote)).map_err(LibraryError::from)?;
            return Ok(all.into_iter().filter(|found| self.has(found)).collect());
        }
        let named = names::find(self.catalog, own, name, self.wanted.vm, self.wanted.arch.as_deref())?;
        let all = query::images(self.catalog, Some(&named.remote)).map_err(LibraryError::from)?;
        let is_meant = |found: &Found<'_>| {
            let (one, other) = (found.image, &named.image);
            let is_sibling = one.image_type == other.image_type && one.version.product.name == other.version.product.name;
            if self.wanted.versions == 0 { one.fingerprint == other.fingerprint } else { is_sibling }
        };
        Ok(all.into_iter().filter(|found| is_meant(found) && self.has(found)).collect())
    }
}
