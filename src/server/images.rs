//! What commands ask about images.

use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use reqwest::Url;

use crate::api;
use crate::cache::{Cache, blocking};
use crate::catalog::Catalog;
use crate::catalog::query::{self, Filter, Found, NoImage};
use crate::image::architecture::Architecture;

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
pub async fn list(catalog: Arc<Catalog>, cache: &Arc<Cache>, wish: Wish) -> Result<Vec<api::Image>, Problem> {
    let cache = Arc::clone(cache);
    let listed = blocking(move || {
        let held = cache.holdings()?;
        let is_whole = |found: &Found<'_>| found.image.files.iter().all(|file| held.has(*file));
        Ok(query::images(&catalog, wish.remote.as_deref()).map(|images| {
            let wanted = images.into_iter().filter(|found| found.passes(&wish.filters));
            wanted.map(|found| show(&found, is_whole(&found))).filter(|image| image.held || !wish.held).collect()
        }))
    });
    Ok(listed.await??)
}

/// The image that a name means.
pub async fn find(catalog: Arc<Catalog>, cache: &Arc<Cache>, name: String, wish: Wish) -> Result<api::Image, Problem> {
    let cache = Arc::clone(cache);
    let found = blocking(move || match query::find(&catalog, &name, wish.virtual_machine, Architecture::parse(std::env::consts::ARCH)) {
        Ok(found) => Ok(Ok(show(&found, is_whole(&found, &cache)?))),
        Err(no_image) => Ok(Err(no_image)),
    });
    Ok(found.await??)
}

/// Whether every file of one image is held: for one, the whole store need not be looked through.
fn is_whole(found: &Found<'_>, cache: &Cache) -> std::io::Result<bool> {
    for file in &found.image.files {
        if cache.find_on_disk(*file)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn show(found: &Found<'_>, held: bool) -> api::Image {
    let Found { remote, image, aliases } = found;
    let (version, product) = (&image.version, &image.version.product);
    api::Image {
        fingerprint: image.fingerprint.to_string(),
        remote: remote.to_string(),
        product: product.name.clone(),
        version: version.serial.clone(),
        image_type: image.image_type.to_string(),
        architecture: product.architecture.to_string(),
        aliases: aliases.to_vec(),
        size: image.size(),
        held,
        public: true,
        created_at: midnight(version.date),
        expires_at: product.expires.map(midnight),
        properties: image.properties(),
    }
}

fn midnight(date: Date) -> String {
    date.to_zoned_datetime(TimeZone::UTC).map_or_else(|_| date.to_string(), |midnight| midnight.timestamp().to_string())
}
