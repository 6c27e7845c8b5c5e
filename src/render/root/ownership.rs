//! Who owns which alias and which fingerprint at the root.

use std::collections::HashMap;
use std::sync::Arc;

use crate::digest::Fingerprint;
use crate::image::architecture::Architecture;
use crate::image::ftype::{Client, ImageType, Root};
use crate::simplestreams::images::{self, Image};
use crate::simplestreams::products::Products;

/// Where an image stands: counted from 0 in each list. Those of an earlier remote sort before those of a later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    /// The remote.
    pub remote: usize,
    /// Its document.
    pub part: usize,
    /// The product there.
    pub product: usize,
    /// The version there.
    pub version: usize,
    /// The image there.
    pub image: usize,
}

/// An image that a client can see, and the aliases of its product.
#[derive(Clone, Debug)]
pub struct Seen {
    spot: Spot,
    class: Class,
    fingerprint: Fingerprint,
    serial: String,
    root: Option<Root>,
    aliases: Arc<[String]>,
}

/// Among which images an alias names one: clients look at one kind for one architecture. LXD and Incus never see each
/// other's, so that an alias may belong to one remote for LXD and to another for Incus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Class {
    client: Client,
    image_type: ImageType,
    architecture: Architecture,
}

/// Who owns what.
#[derive(Debug, Default)]
pub struct Ownership {
    images: HashMap<Spot, Vec<String>>,
}

/// Adds all images of a document that clients can see. `spot` says where the document stands.
pub fn survey(document: &Products<'_>, spot: Spot, seen: &mut Vec<Seen>) {
    for (product_at, product) in document.products.iter().enumerate() {
        let Ok(architecture) = images::architecture(product) else { continue };
        let aliases: Arc<[String]> = product.aliases().into();
        for (version_at, version) in product.versions.iter().enumerate().filter(|(_, version)| images::serial_date(&version.name).is_ok()) {
            for (image_at, image) in images::of_version(&product.name, version).0.into_iter().enumerate() {
                let Image { client, image_type, fingerprint, root, .. } = image;
                let spot = Spot { product: product_at, version: version_at, image: image_at, ..spot };
                let class = Class { client, image_type, architecture };
                let root = root.map(|(root, _)| root);
                seen.push(Seen { spot, class, fingerprint, serial: version.name.to_string(), root, aliases: Arc::clone(&aliases) });
            }
        }
    }
}

impl Ownership {
    /// Gives each alias and each fingerprint to the first that has it.
    ///
    /// A remote may lose an image to another one and own an alias whose newest image that is. The alias then goes over
    /// to the place that the image kept: it must not fall back to an older image.
    pub fn settle(seen: &[Seen]) -> Self {
        let (alias_owners, image_owners) = first_come(seen);
        let mut images: HashMap<Spot, Vec<String>> = image_owners.values().map(|spot| (*spot, Vec::new())).collect();
        let newest = newest(seen);
        for image in seen {
            let own = image.aliases.iter().filter(|alias| alias_owners[&(alias.as_str(), image.class)] == image.spot.remote);
            let target = newest[&(product(image.spot), image.class)];
            let target_spot = image_owners[&(image.class.client, target.fingerprint)];
            let is_moved = target_spot != target.spot;
            let heir = if !is_moved {
                image.spot
            } else if image.spot == target.spot {
                target_spot
            } else {
                continue;
            };
            if let Some(aliases) = images.get_mut(&heir) {
                own.for_each(|alias| push_new(aliases, alias));
            }
        }
        Self { images }
    }

    /// The aliases of an image at its spot; `None` if the image belongs to another spot.
    pub fn aliases(&self, spot: Spot) -> Option<&[String]> {
        self.images.get(&spot).map(Vec::as_slice)
    }
}

type AliasOwners<'a> = HashMap<(&'a str, Class), usize>;
type ImageOwners = HashMap<(Client, Fingerprint), Spot>;

fn first_come(seen: &[Seen]) -> (AliasOwners<'_>, ImageOwners) {
    let mut aliases = HashMap::new();
    let mut images = HashMap::new();
    for image in seen {
        images.entry((image.class.client, image.fingerprint)).or_insert(image.spot);
        for alias in image.aliases.iter() {
            aliases.entry((alias.as_str(), image.class)).or_insert(image.spot.remote);
        }
    }
    (aliases, images)
}

/// The image that each product's aliases mean: the newest serial, and there the root that clients prefer.
fn newest(seen: &[Seen]) -> HashMap<(Spot, Class), &Seen> {
    let mut newest: HashMap<(Spot, Class), &Seen> = HashMap::new();
    for image in seen {
        let best = newest.entry((product(image.spot), image.class)).or_insert(image);
        if (&image.serial, std::cmp::Reverse(image.root)) > (&best.serial, std::cmp::Reverse(best.root)) {
            *best = image;
        }
    }
    newest
}

fn product(spot: Spot) -> Spot {
    Spot { version: 0, image: 0, ..spot }
}

fn push_new(aliases: &mut Vec<String>, alias: &str) {
    if !aliases.iter().any(|other| other == alias) {
        aliases.push(alias.to_owned());
    }
}
