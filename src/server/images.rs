//! What commands ask about images.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use reqwest::Url;

use crate::api;
use crate::cache::{Cache, blocking};
use crate::catalog::Catalog;
use crate::catalog::query::{self, Filter, Found, NoImage};
use crate::digest::Digest;
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

/// The images that are wished for.
pub async fn list(catalog: &Catalog, cache: &Arc<Cache>, wish: &Wish) -> Result<Vec<api::Image>, Problem> {
    let images = query::images(catalog, wish.remote.as_deref())?;
    let store = Holdings::look(cache).await?;
    let mut shown = Vec::new();
    for found in images.into_iter().filter(|found| found.passes(&wish.filters)) {
        let held = store.has_whole(&found).await;
        shown.extend((held || !wish.held).then(|| show(&found, held)));
    }
    Ok(shown)
}

/// The image that a name means.
pub async fn find(catalog: &Catalog, cache: &Arc<Cache>, name: &str, wish: &Wish) -> Result<api::Image, Problem> {
    let found = query::find(catalog, name, wish.virtual_machine, Architecture::parse(std::env::consts::ARCH))?;
    let held = Holdings::look(cache).await?.has_whole(&found).await;
    Ok(show(&found, held))
}

/// What is in the store at this moment.
struct Holdings<'a> {
    cache: &'a Arc<Cache>,
    blobs: HashSet<Digest>,
}

impl<'a> Holdings<'a> {
    async fn look(cache: &'a Arc<Cache>) -> Result<Self, std::io::Error> {
        let looking = Arc::clone(cache);
        let blobs = blocking(move || looking.store().blobs()).await?;
        Ok(Self { cache, blobs: blobs.into_iter().map(|(digest, _)| digest).collect() })
    }

    async fn has_whole(&self, found: &Found<'_>) -> bool {
        for file in &found.image.files {
            let digest = self.cache.digest(*file).await;
            if !digest.is_some_and(|digest| self.blobs.contains(&digest)) {
                return false;
            }
        }
        true
    }
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
