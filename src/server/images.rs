//! What commands ask about images.

use std::sync::Arc;

use jiff::Timestamp;
use reqwest::Url;

use crate::api;
use crate::cache::{Cache, blocking};
use crate::catalog::Catalog;
use crate::catalog::query::{self, Filter, Found, NoImage};
use crate::image::architecture::Architecture;
use crate::ledger::record::{Fate, Record};
use crate::retention::is_cached;

/// Why images cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is no such image.
    #[error(transparent)]
    NoImage(#[from] NoImage),
    /// The store cannot be looked at.
    #[error("the store cannot be looked at: {0}")]
    Store(#[from] std::io::Error),
}

/// Which images are to be listed.
#[derive(Debug, Default)]
pub struct Wish {
    remote: Option<String>,
    filters: Vec<Filter>,
    held: bool,
    virtual_machine: bool,
}

impl Wish {
    /// Reads a query: `remote`, `filter` any number of times, `held`, `vm`.
    pub fn read(query: Option<&str>) -> Self {
        let mut wish = Self::default();
        let url = Url::parse(&format!("http://admin/?{}", query.unwrap_or_default()));
        for (name, value) in url.iter().flat_map(Url::query_pairs) {
            match &*name {
                "remote" => wish.remote = Some(value.into_owned()),
                "filter" => wish.filters.push(Filter::from(&*value)),
                "held" => wish.held = true,
                "vm" => wish.virtual_machine = true,
                _ => {}
            }
        }
        wish
    }
}

/// The images that are wished for. There may be very many, and regular expressions: nobody else's thread does that.
pub async fn list(cache: &Arc<Cache>, wish: Wish) -> Result<Vec<api::Image>, Problem> {
    let cache = Arc::clone(cache);
    let listed = blocking(move || {
        let catalog = cache.current().load();
        Ok(query::images(&catalog, wish.remote.as_deref()).map(|images| {
            let wanted = images.into_iter().filter(|found| found.passes(&wish.filters));
            wanted.map(|found| show(&found, &catalog, &cache)).filter(|image| image.held || !wish.held).collect()
        }))
    });
    Ok(listed.await??)
}

/// The image that a name means.
pub async fn find(cache: &Arc<Cache>, name: String, wish: Wish) -> Result<api::Image, Problem> {
    let cache = Arc::clone(cache);
    let found = blocking(move || {
        let catalog = cache.current().load();
        let found = query::find(&catalog, &name, wish.virtual_machine, Architecture::parse(std::env::consts::ARCH));
        Ok(found.map(|found| show(&found, &catalog, &cache)))
    });
    Ok(found.await??)
}

fn show(found: &Found<'_>, catalog: &Catalog, cache: &Cache) -> api::Image {
    let Found { remote, image, aliases } = found;
    let (version, product) = (&image.version, &image.version.product);
    let record = cache.books().image(image.fingerprint);
    let of_record = |of: fn(&Record) -> Timestamp| record.as_ref().map(|record| of(record).to_string());
    let expires_at = record.as_ref().and_then(|record| record.expires_at).or_else(|| product.expires_at());
    api::Image {
        fingerprint: image.fingerprint.to_string(),
        remote: remote.to_string(),
        product: product.name.clone(),
        version: version.serial.clone(),
        image_type: image.image_type.to_string(),
        architecture: product.architecture.to_string(),
        aliases: aliases.to_vec(),
        size: image.size(),
        held: record.is_some(),
        cached: record.as_ref().is_some_and(|record| is_cached(record, catalog)),
        auto_update: record.as_ref().is_some_and(|record| record.auto_update),
        public: true,
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
