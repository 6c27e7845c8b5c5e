//! Goes on listing images that upstream lists no more.
//!
//! Only upstream's documents decide upstream's aliases. So an image whose product has something newer goes back to its
//! place there, where the newer one has the aliases, or is hidden for its sake; any other one gets a product of its own,
//! without the aliases that upstream now gives elsewhere.

use std::collections::BTreeSet;

use crate::digest::Fingerprint;
use crate::image::ftype::ImageType;
use crate::render::policy::{Retained, Slot, Stock};
use crate::render::prune::{Rest, prune};
use crate::selection::Selection;
use crate::simplestreams::images;
use crate::simplestreams::object::Object;
use crate::simplestreams::products::{Item, Product, Version};

/// Puts images back into a product that has something newer; the places of those that need a product of their own.
///
/// `there` are the versions that it had before some were hidden, and `stock` says what is held.
pub fn put_back<'a>(
    product: &mut Product<'a>,
    there: &[(ImageType, String)],
    stock: &Stock,
    retained: &[(&'a Retained, Product<'a>)],
) -> Vec<usize> {
    let (mut apart, upstreams) = (Vec::new(), product.versions.len());
    for (place, (retained, excerpt)) in retained.iter().enumerate().filter(|(_, (retained, _))| retained.slot.product == *product.name) {
        let Slot { image_type, serial, .. } = &retained.slot;
        let is_newer = |(of, other): &(ImageType, String)| of == image_type && other > serial;
        if lists(product, retained) || (retained.is_tracked && has_heir(product, retained, stock)) {
            continue;
        }
        let taken = product.versions.iter().position(|version| *version.name == **serial);
        match taken {
            None if there.iter().any(is_newer) => product.versions.extend(excerpt.versions.iter().cloned()),
            // Another image of that version was put back already.
            Some(place) if place >= upstreams => {
                excerpt.versions.iter().for_each(|other| merge(&mut product.versions[place], &other.items));
            }
            _ if retained.is_selected => {}
            _ => apart.push(place),
        }
    }
    apart
}

/// Whether the newer image that hosts see is held: then nobody needs the older one any more.
fn has_heir(product: &Product<'_>, retained: &Retained, stock: &Stock) -> bool {
    let newer =
        product.versions.iter().filter(|version| *version.name > *retained.slot.serial && images::serial_date(&version.name).is_ok());
    let mut images = newer.flat_map(|version| images::of_version(&product.name, version).0);
    images.any(|image| image.image_type == retained.slot.image_type && stock.whole.contains(&image.fingerprint))
}

/// Adds the items of another image of the same version.
pub fn merge<'a>(version: &mut Version<'a>, items: &[Item<'a>]) {
    for item in items {
        match version.items.iter_mut().find(|other| other.name == item.name) {
            // One metadata file may serve several roots, and says of each which image it makes.
            Some(other) => {
                let fresh: Vec<_> = item
                    .fields
                    .iter()
                    .filter(|(name, _)| other.fields.get(name).is_none())
                    .map(|(name, value)| (name.to_string(), value.clone()))
                    .collect();
                fresh.iter().for_each(|(name, value)| other.fields.set(name, &**value));
            }
            None => version.items.push(item.clone()),
        }
    }
}

fn lists(product: &Product<'_>, retained: &Retained) -> bool {
    let of_serial = product.versions.iter().filter(|version| *version.name == *retained.slot.serial);
    of_serial.flat_map(|version| images::of_version(&product.name, version).0).any(|image| image.fingerprint == retained.fingerprint)
}

/// The excerpts that pass a remote's filters, as products of their own.
pub fn excerpts<'a>(stock: &'a Stock, selection: &Selection, document: &Object<'a>) -> Vec<(&'a Retained, Product<'a>)> {
    let filters = Selection { versions: 0, ..selection.clone() };
    let parsed =
        stock.retained.iter().filter_map(|retained| Some((retained, Product::parse(&retained.slot.product, &retained.product).ok()?)));
    parsed
        .filter_map(|(retained, mut product)| {
            filters.select(&mut product, document);
            (!product.versions.is_empty()).then_some((retained, product))
        })
        .collect()
}

/// What lists an image of its product: the product with this one version, and in it the items of this one image, as JSON.
pub fn excerpt(product: &Product<'_>, serial: &str, fingerprint: Fingerprint) -> Option<String> {
    let mut excerpt = product.clone();
    excerpt.versions.retain_mut(|version| {
        let (images, _) = images::of_version(&product.name, version);
        let has_it = *version.name == *serial && images.iter().any(|image| image.fingerprint == fingerprint);
        prune(version, &images, |image| image.fingerprint == fingerprint, Rest::Drop);
        has_it
    });
    (!excerpt.versions.is_empty()).then(|| excerpt.to_json())
}

/// Makes a product of its own of an excerpt, under a name and with aliases that nobody else has.
pub fn set_apart<'a>(mut product: Product<'a>, names: &mut BTreeSet<String>, aliases: &BTreeSet<String>) -> Product<'a> {
    let own: Vec<String> = product.aliases().into_iter().filter(|alias| !aliases.contains(alias)).collect();
    if own.is_empty() {
        product.fields.remove("aliases");
    } else {
        product.fields.set("aliases", &own.join(","));
    }
    let wanted = product.name.to_string();
    let mut free = std::iter::once(wanted.clone()).chain((1..).map(|number| format!("{wanted}:retained-{number}")));
    product.name = free.find(|name| names.insert(name.clone())).expect("a numbered name is free sooner or later").into();
    product
}
