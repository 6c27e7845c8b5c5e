//! What commands ask about images.

use std::sync::Arc;

use jiff::Timestamp;
use reqwest::Url;

use crate::api;
use crate::cache::{Cache, blocking};
use crate::catalog::Catalog;
use crate::catalog::images::Image;
use crate::catalog::query::{self, Filter, Found, NoImage};
use crate::ledger::publication::OwnAlias;
use crate::ledger::record::{Fate, Record};
use crate::library::Library;
use crate::library::entry::LOCAL;
use crate::library::error::LibraryError;
use crate::library::names::{self, Named};
use crate::retention::is_cached;

/// Which images are to be listed.
#[derive(Debug, Default)]
pub struct Wish {
    remote: Option<String>,
    filters: Vec<Filter>,
    held: bool,
    virtual_machine: bool,
    architecture: Option<String>,
    from: u64,
}

impl Wish {
    /// An image for these machines.
    pub fn for_machine(virtual_machine: bool, architecture: Option<String>) -> Self {
        Self { virtual_machine, architecture, ..Self::default() }
    }

    /// Reads a query: `remote`, `filter` any number of times, `held`, `vm`, `arch`, `from`.
    pub fn read(query: Option<&str>) -> Self {
        let mut wish = Self::default();
        let url = Url::parse(&format!("http://admin/?{}", query.unwrap_or_default()));
        for (name, value) in url.iter().flat_map(Url::query_pairs) {
            match &*name {
                "remote" => wish.remote = Some(value.into_owned()),
                "filter" => wish.filters.push(Filter::from(&*value)),
                "held" => wish.held = true,
                "vm" => wish.virtual_machine = true,
                "from" => wish.from = value.parse().unwrap_or_default(),
                "arch" => wish.architecture = Some(value.into_owned()),
                _ => {}
            }
        }
        wish
    }
}

impl Wish {
    /// The first byte of a file that is wanted.
    pub fn from(&self) -> u64 {
        self.from
    }
}

/// The images that are wished for. There may be very many, and regular expressions: nobody else's thread does that.
pub async fn list(library: &Library, wish: Wish) -> Result<Vec<api::Image>, LibraryError> {
    let (cache, own) = (Arc::clone(&library.cache), library.shelf.aliases());
    let listed = blocking(move || {
        let catalog = cache.current().load();
        Ok(query::images(&catalog, wish.remote.as_deref()).map(|images| {
            let wanted = images.into_iter().filter(|found| found.passes(&wish.filters));
            wanted.map(|found| show(&found, &catalog, &cache, &own)).filter(|image| image.held || !wish.held).collect()
        }))
    });
    Ok(listed.await??)
}

/// The image that a name means, as people see it.
pub async fn info(library: &Library, name: String, wish: Wish) -> Result<api::Image, LibraryError> {
    let (cache, own, wanted) = (Arc::clone(&library.cache), library.shelf.aliases(), name.clone());
    let found = blocking(move || {
        let catalog = cache.current().load();
        let found = names::find(&catalog, &own, &name, wish.virtual_machine, wish.architecture.as_deref());
        Ok(found.map(|named| {
            let all = query::images(&catalog, Some(&named.remote)).unwrap_or_default();
            let same = all.iter().find(|found| found.image.fingerprint == named.image.fingerprint);
            same.map(|found| show(found, &catalog, &cache, &own))
        }))
    });
    found.await??.ok_or_else(|| NoImage::Name(wanted).into())
}

/// The image that a name means.
pub async fn find(library: &Library, name: String, wish: Wish) -> Result<Named, LibraryError> {
    let (cache, own) = (Arc::clone(&library.cache), library.shelf.aliases());
    let found = blocking(move || {
        let catalog = cache.current().load();
        Ok(names::find(&catalog, &own, &name, wish.virtual_machine, wish.architecture.as_deref()))
    });
    found.await?
}

fn show(found: &Found<'_>, catalog: &Catalog, cache: &Cache, own: &[OwnAlias]) -> api::Image {
    let Found { remote, image, aliases } = found;
    let (version, product) = (&image.version, &image.version.product);
    let record = cache.books().image(image.fingerprint);
    let of_record = |of: fn(&Record) -> Timestamp| record.as_ref().map(|record| of(record).to_string());
    let expires_at = record.as_ref().and_then(|record| record.expires_at).or_else(|| product.expires_at());
    api::Image {
        fingerprint: image.fingerprint.to_string(),
        remote: remote.to_string(),
        product: product.name.clone(),
        version: version.serial.to_string(),
        image_type: image.image_type.to_string(),
        architecture: product.architecture.to_string(),
        aliases: if ***remote == *LOCAL { named(image, own) } else { aliases.to_vec() },
        size: image.size(),
        held: record.is_some(),
        cached: record.as_ref().is_some_and(|record| is_cached(record, catalog)),
        auto_update: record.as_ref().is_some_and(|record| record.auto_update),
        public: record.as_ref().is_none_or(|record| record.public),
        created_at: version.created_at().to_string(),
        expires_at: expires_at.map(|at| at.to_string()),
        cached_at: of_record(|record| record.cached_at),
        last_used_at: of_record(|record| record.last_used_at),
        use_count: record.as_ref().map_or(0, |record| record.use_count),
        leaving: record.as_ref().and_then(|record| match record.fate {
            Fate::Stays => None,
            Fate::Leaves(_, reason) => Some(reason.label().to_owned()),
        }),
        properties: image.properties(),
    }
}

/// The names that people gave an image.
fn named(image: &Image, own: &[OwnAlias]) -> Vec<String> {
    let fingerprint = image.fingerprint.to_string();
    own.iter().filter(|alias| alias.fingerprint == fingerprint).map(|alias| alias.name.clone()).collect()
}
