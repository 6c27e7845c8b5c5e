//! How a remote's documents are to be changed.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::{HashMap, HashSet as FoldSet};

use crate::digest::{Digest, Fingerprint};
use crate::http::path::StreamPath;
use crate::image::ftype::ImageType;
use crate::image::version::Version;
use crate::ledger::holdings::Holdings;
use crate::selection::Selection;

/// How a remote's documents are to be changed.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// What of them is listed.
    pub selection: Selection,
    /// Whether LXD's images are listed for Incus, and the other way round.
    pub twins: bool,
    /// Keys of images whose bytes turned out to have another fingerprint. No client would take them.
    pub wrong: HashSet<Digest>,
    /// Of a remote that is offline: what is held. The rest cannot be had, and is not listed.
    pub held: Option<Arc<Holdings>>,
    /// Which images are held whole, and are to be kept up to date or listed for longer than upstream lists them.
    pub stock: Stock,
}

/// The images that are held of a remote, as far as rendering depends on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// Of each product, the newest version of each type that is held and kept up to date.
    pub tracked: HashMap<String, Vec<(ImageType, String)>>,
    /// All images that are held whole, whichever remote they came from.
    pub whole: FoldSet<Fingerprint>,
    /// Versions that wait for being held no longer: product, type, serial.
    pub released: FoldSet<Slot>,
    /// Images that may have to be listed when upstream lists them no more.
    pub retained: Vec<Retained>,
}

/// One type of one version of a product.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The product's name.
    pub product: String,
    /// What the images run as.
    pub image_type: ImageType,
    /// The version's serial.
    pub serial: String,
}

/// An image that stays listed by what was kept of the documents that listed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Which image.
    pub fingerprint: Fingerprint,
    /// What it is.
    pub slot: Slot,
    /// Whether a newer one would take its place.
    pub is_tracked: bool,
    /// Whether it is there only because a selection names it: when upstream has nothing newer in its place, it goes.
    pub is_selected: bool,
    /// The document that listed it.
    pub document: StreamPath,
    /// Its product with this one version, as JSON.
    pub product: Arc<str>,
}

impl Slot {
    /// Where the images of a version and type stand.
    pub fn of(version: &Version, image_type: ImageType) -> Self {
        Self { product: version.product.name.clone(), image_type, serial: version.serial.to_string() }
    }
}

impl Stock {
    /// The newest version of a product and type that is held and kept up to date.
    pub fn tracked(&self, product: &str) -> &[(ImageType, String)] {
        self.tracked.get(product).map_or(&[], Vec::as_slice)
    }
}
