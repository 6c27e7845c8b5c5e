//! Who owns which alias and which fingerprint at the root.

use std::cmp::Reverse;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use crate::digest::Fingerprint;
use crate::image::architecture::Architecture;
use crate::image::ftype::{Client, ImageType, Root};
use crate::simplestreams::images::{self, Image};
use crate::simplestreams::products::{Product, Products};

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

/// A product with the images of it that clients can see.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// Where it stands.
    spot: Spot,
    aliases: Vec<String>,
    images: Vec<Seen>,
}

/// An image that a client can see.
#[derive(Clone, Debug)]
struct Seen {
    spot: Spot,
    class: Class,
    fingerprint: Fingerprint,
    serial: Arc<str>,
    root: Option<Root>,
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
    /// The products of which not every image has all aliases. There are few: most remotes share nothing.
    touched: HashSet<Spot>,
    /// The images of these that belong where they stand, with their aliases.
    images: HashMap<Spot, Vec<String>>,
}

/// Adds all products of a document that clients can see. `spot` says where the document stands.
pub fn survey(document: &Products<'_>, spot: Spot, surveyed: &mut Vec<Surveyed>) {
    for (number, product) in document.products.iter().enumerate() {
        let spot = Spot { product: number, ..spot };
        let Ok(architecture) = images::architecture(product) else { continue };
        let images: Vec<Seen> = seen(product, spot, architecture).collect();
        if !images.is_empty() {
            surveyed.push(Surveyed { spot, aliases: product.aliases(), images });
        }
    }
}

fn seen<'a>(product: &'a Product<'_>, spot: Spot, architecture: Architecture) -> impl Iterator<Item = Seen> + 'a {
    let versions = product.versions.iter().enumerate().filter(|(_, version)| images::serial_date(&version.name).is_ok());
    versions.flat_map(move |(version_at, version)| {
        let serial: Arc<str> = (*version.name).into();
        let (images, _) = images::of_version(&product.name, version);
        images.into_iter().enumerate().map(move |(image_at, Image { client, image_type, fingerprint, root, .. })| Seen {
            spot: Spot { version: version_at, image: image_at, ..spot },
            class: Class { client, image_type, architecture },
            fingerprint,
            serial: Arc::clone(&serial),
            root: root.map(|(root, _)| root),
        })
    })
}

impl Ownership {
    /// Gives each alias and each fingerprint to the first that has it.
    ///
    /// A remote may lose an image to another one and own an alias whose newest image that is. The alias then goes over
    /// to the place that the image kept: it must not fall back to an older image.
    pub fn settle(products: &[Surveyed]) -> Self {
        let owners = Owners::first_come(products);
        let touched: HashSet<Spot> = products.iter().flat_map(|product| owners.touched_by(product)).collect();
        let is_touched = |spot: &Spot| touched.contains(&self::product(*spot));
        let kept = owners.images.values().filter(|spot| is_touched(spot));
        let mut images: HashMap<Spot, Vec<String>> = kept.map(|spot| (*spot, Vec::new())).collect();
        for product in products.iter().filter(|product| touched.contains(&product.spot)) {
            for class in product.classes() {
                for heir in owners.heirs(product, class) {
                    let Some(aliases) = images.get_mut(&heir) else { continue };
                    owners.own_aliases(product, class).for_each(|alias| push_new(aliases, alias));
                }
            }
        }
        Self { touched, images }
    }

    /// Whether anything of a product is to be changed.
    pub fn touches(&self, product: Spot) -> bool {
        self.touched.contains(&product)
    }

    /// The aliases of an image of such a product; `None` if the image belongs to another spot.
    pub fn aliases(&self, spot: Spot) -> Option<&[String]> {
        self.images.get(&spot).map(Vec::as_slice)
    }
}

/// Who came first: for each alias the remote, for each image the spot.
#[derive(Default)]
struct Owners<'a> {
    aliases: HashMap<(&'a str, Class), usize>,
    images: HashMap<(Client, Fingerprint), Spot>,
}

impl<'a> Owners<'a> {
    fn first_come(products: &'a [Surveyed]) -> Self {
        let mut owners = Self::default();
        for product in products {
            for image in &product.images {
                owners.images.entry((image.class.client, image.fingerprint)).or_insert(image.spot);
            }
            for class in product.classes() {
                for alias in &product.aliases {
                    owners.aliases.entry((alias, class)).or_insert(product.spot.remote);
                }
            }
        }
        owners
    }

    /// This product if not all of its images stay with all of its aliases, and those to which its aliases move.
    fn touched_by(&self, product: &Surveyed) -> Vec<Spot> {
        let is_lost = |image: &Seen| self.spot(image) != image.spot;
        let loses_alias = |class| !self.own_aliases(product, class).eq(&product.aliases);
        let classes = product.classes();
        let mut touched = Vec::new();
        if product.images.iter().any(is_lost) || classes.iter().any(|class| loses_alias(*class)) {
            touched.push(product.spot);
            touched.extend(classes.iter().map(|class| self::product(self.spot(product.newest(*class)))));
        }
        touched
    }

    /// To whom the aliases of a class go: to all its images, unless the newest has moved away. Then they move there.
    fn heirs(&self, product: &Surveyed, class: Class) -> Vec<Spot> {
        let newest = product.newest(class);
        let kept = self.spot(newest);
        if kept == newest.spot { product.of(class).map(|image| image.spot).collect() } else { vec![kept] }
    }

    /// The aliases that a product has for a class, but for those of remotes before its own.
    fn own_aliases<'p>(&self, product: &'p Surveyed, class: Class) -> impl Iterator<Item = &'p String> {
        product.aliases.iter().filter(move |alias| self.aliases[&(alias.as_str(), class)] == product.spot.remote)
    }

    fn spot(&self, image: &Seen) -> Spot {
        self.images[&(image.class.client, image.fingerprint)]
    }
}

impl Surveyed {
    fn classes(&self) -> Vec<Class> {
        let mut classes = Vec::new();
        for image in &self.images {
            if !classes.contains(&image.class) {
                classes.push(image.class);
            }
        }
        classes
    }

    fn of(&self, class: Class) -> impl DoubleEndedIterator<Item = &Seen> {
        self.images.iter().filter(move |image| image.class == class)
    }

    /// The image that the aliases mean: the newest serial, and there the root that clients prefer; the first of equals.
    fn newest(&self, class: Class) -> &Seen {
        let rank = |image: &Seen| (Arc::clone(&image.serial), Reverse(image.root));
        self.of(class).rev().max_by_key(|image| rank(image)).expect("a class is that of some image")
    }
}

fn product(spot: Spot) -> Spot {
    Spot { version: 0, image: 0, ..spot }
}

fn push_new(aliases: &mut Vec<String>, alias: &str) {
    if !aliases.iter().any(|other| other == alias) {
        aliases.push(alias.to_owned());
    }
}
