//! What clients see of a product: its images, and the names by which they find the newest.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::digest::Fingerprint;
use crate::image::architecture::Architecture;
use crate::image::ftype::{Client, ImageType, Root};
use crate::simplestreams::images::{self, Image};
use crate::simplestreams::products::Product;

/// What clients see of a product.
#[derive(Clone, Debug)]
pub struct View {
    /// Its aliases.
    pub aliases: Vec<String>,
    /// Its images, in the order of its versions.
    pub images: Vec<Seen>,
}

/// An image that a client sees.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its version: counted from 0 among those of the product.
    pub version: usize,
    /// The image: counted from 0 among those of the version.
    pub image: usize,
    /// Among which images an alias names one.
    pub class: Class,
    /// What it is called.
    pub fingerprint: Fingerprint,
    serial: Arc<str>,
    root: Option<Root>,
}

/// Among which images an alias names one: clients look at one kind for one architecture. LXD and Incus never see each
/// other's, so that an alias may belong to one remote for LXD and to another for Incus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// Who sees it.
    pub client: Client,
    /// What it runs as.
    pub image_type: ImageType,
    /// On what.
    pub architecture: Architecture,
}

impl View {
    /// Looks at a product as clients do; `None` if there is nothing to see.
    pub fn of(product: &Product<'_>) -> Option<Self> {
        let architecture = images::architecture(product).ok()?;
        let mut seen = Vec::new();
        for (version_at, version) in product.versions.iter().enumerate().filter(|(_, version)| images::serial_date(&version.name).is_ok()) {
            let serial: Arc<str> = (*version.name).into();
            let (images, _) = images::of_version(&product.name, version);
            seen.extend(images.into_iter().enumerate().map(|(image_at, image)| {
                let Image { client, image_type, fingerprint, root, .. } = image;
                let class = Class { client, image_type, architecture };
                let root = root.map(|(root, _)| root);
                Seen { version: version_at, image: image_at, class, fingerprint, serial: Arc::clone(&serial), root }
            }));
        }
        // It stays until the next documents come.
        seen.shrink_to_fit();
        (!seen.is_empty()).then(|| Self { aliases: product.aliases(), images: seen })
    }

    /// The classes that its images are of.
    pub fn classes(&self) -> Vec<Class> {
        let mut classes = Vec::new();
        for image in &self.images {
            if !classes.contains(&image.class) {
                classes.push(image.class);
            }
        }
        classes
    }

    /// Its images of a class.
    pub fn of_class(&self, class: Class) -> impl DoubleEndedIterator<Item = &Seen> {
        self.images.iter().filter(move |image| image.class == class)
    }

    /// The image that its aliases mean: the newest serial, and there the root that clients prefer; the first of equals.
    pub fn newest(&self, class: Class) -> Option<&Seen> {
        self.of_class(class).rev().max_by_key(|image| (Arc::clone(&image.serial), Reverse(image.root)))
    }
}
