//! Hides new versions of images that are kept up to date, until they are held.
//!
//! Hosts then get the version before out of the cache. It works per instance type: a client prefers a newer serial over a
//! better kind of root, so that every root of the type is hidden, and every delta to one. Versions show again as soon as
//! the root that clients prefer is held.

use crate::image::ftype::{ImageType, Root};
use crate::render::policy::{Slot, Stock};
use crate::render::prune::{Rest, prune};
use crate::simplestreams::images::{self, Image};
use crate::simplestreams::products::{Product, Version};

/// An image that is listed when it is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The place of its version in the product.
    pub version: usize,
    /// The image.
    pub image: Image,
}

/// The images that are waited for: of each type that is held back the one that clients would take.
pub fn awaited(product: &Product<'_>, stock: &Stock) -> Vec<Awaited> {
    let tracked = stock.tracked(&product.name);
    tracked.iter().filter_map(|(image_type, serial)| hidden(product, *image_type, serial, stock).into_iter().next()).collect()
}

/// Hides what is newer than what is held, for each type that is held back.
pub fn hide(product: &mut Product<'_>, stock: &Stock) {
    for (image_type, serial) in stock.tracked(&product.name) {
        for Awaited { version, .. } in hidden(product, *image_type, serial, stock) {
            let name = product.name.clone();
            let version = &mut product.versions[version];
            let (images, _) = images::of_version(&name, version);
            prune(version, &images, |image| image.image_type != *image_type, Rest::Keep);
        }
    }
    product.versions.retain(|version| !version.items.is_empty());
}

/// What is hidden of a type, the newest version first: of each the image that clients prefer.
fn hidden(product: &Product<'_>, image_type: ImageType, held: &str, stock: &Stock) -> Vec<Awaited> {
    // What is held must be there to be seen in the place of what is hidden.
    let is_this = |slot: &Slot| slot.product == *product.name && slot.image_type == image_type && slot.serial == held;
    let is_listed = product
        .versions
        .iter()
        .filter(|version| *version.name == *held)
        .any(|version| preferred(&product.name, version, image_type).is_some());
    if !is_listed && !stock.retained.iter().any(|retained| is_this(&retained.slot)) {
        return Vec::new();
    }
    let is_newer = |version: &&(usize, &Version<'_>)| *version.1.name > *held && images::serial_date(&version.1.name).is_ok();
    let mut newer: Vec<(usize, &Version<'_>)> = product.versions.iter().enumerate().filter(|version| is_newer(&version)).collect();
    newer.sort_by(|(_, one), (_, other)| other.name.cmp(&one.name));
    let preferred = newer.into_iter().filter_map(|(place, version)| {
        let image = preferred(&product.name, version, image_type)?;
        Some((Awaited { version: place, image }, version))
    });
    let is_ready = |awaited: &Awaited, version: &Version<'_>| {
        let slot = Slot { product: product.name.to_string(), image_type, serial: version.name.to_string() };
        let (all, _) = images::of_version(&product.name, version);
        let is_preferred = |image: &&Image| kind(image) == kind(&awaited.image) && image.image_type == image_type;
        stock.released.contains(&slot) || all.iter().filter(is_preferred).any(|image| stock.whole.contains(&image.fingerprint))
    };
    preferred.take_while(|(awaited, version)| !is_ready(awaited, version)).map(|(awaited, _)| awaited).collect()
}

/// The image of a version and type that clients prefer.
fn preferred(product: &str, version: &Version<'_>, image_type: ImageType) -> Option<Image> {
    let (images, _) = images::of_version(product, version);
    images.into_iter().filter(|image| image.image_type == image_type).min_by_key(kind)
}

/// The kind of root, in the order in which clients prefer them; a unified image has none and comes last.
fn kind(image: &Image) -> (bool, Option<Root>) {
    let root = image.root.map(|(root, _)| root);
    (root.is_none(), root)
}
