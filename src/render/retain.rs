//! Goes on listing images that upstream lists no more.
//!
//! Only upstream's documents decide upstream's aliases. So an image whose product has something newer goes back to its
//! place there, where the newer one has the aliases, or is hidden for its sake; any other one gets a product of its own,
//! without the aliases that upstream now gives elsewhere.

use std::collections::BTreeSet;

use crate::digest::Fingerprint;
use crate::image::ftype::ImageType;
use crate::render::policy::{Retained, Stock};
use crate::render::prune::{Rest, prune};
use crate::selection::Selection;
use crate::simplestreams::images;
use crate::simplestreams::object::Object;
use crate::simplestreams::products::{Product, Version};

/// What a product shows of one type, after hiding, and what it has.
struct Newest<'p> {
    visible: Option<&'p str>,
    there: Option<&'p str>,
}

/// Puts images back into a product that has something newer; those of its images that need a product of their own.
///
/// `there` are the versions that it had before some were hidden.
pub fn put_back<'a>(product: &mut Product<'a>, there: &[(ImageType, String)], retained: &[(&'a Retained, Product<'a>)]) -> Vec<usize> {
    let mut apart = Vec::new();
    for (place, (retained, excerpt)) in retained.iter().enumerate().filter(|(_, (retained, _))| retained.slot.product == *product.name) {
        if lists(product, retained) {
            continue;
        }
        let visible = newest_visible(product, retained);
        let there = there.iter().filter(|(image_type, _)| *image_type == retained.slot.image_type).map(|(_, serial)| serial.as_str()).max();
        let newest = Newest { visible: visible.as_deref(), there };
        let serial = Some(retained.slot.serial.as_str());
        if retained.is_tracked && newest.visible > serial {
            continue;
        }
        let is_taken = product.versions.iter().any(|version| *version.name == *retained.slot.serial);
        if newest.there > serial && !is_taken {
            product.versions.extend(excerpt.versions.iter().cloned());
        } else {
            apart.push(place);
        }
    }
    apart
}

fn lists(product: &Product<'_>, retained: &Retained) -> bool {
    let of_serial = product.versions.iter().filter(|version| *version.name == *retained.slot.serial);
    of_serial.flat_map(|version| images::of_version(&product.name, version).0).any(|image| image.fingerprint == retained.fingerprint)
}

fn newest_visible(product: &Product<'_>, retained: &Retained) -> Option<String> {
    let shows = |version: &&Version<'_>| {
        let (images, _) = images::of_version(&product.name, version);
        images.iter().any(|image| image.image_type == retained.slot.image_type) && images::serial_date(&version.name).is_ok()
    };
    product.versions.iter().filter(shows).map(|version| version.name.to_string()).max()
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
