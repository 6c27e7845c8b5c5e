//! The files and images of one remote.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use foldhash::{HashMap, HashSet};

use crate::digest::{Claim, Digest, Expected, Fingerprint};
use crate::http::path::StreamPath;
use crate::image::ftype::{ImageType, Root};
use crate::image::version::Version;
use crate::simplestreams::file::ListedFile;

/// All files of a remote by path and by hash, and its images.
#[derive(Debug, Default)]
pub struct Listing {
    files: HashMap<StreamPath, Details>,
    by_claim: HashMap<Claim, StreamPath>,
    images: Vec<Image>,
    images_by_file: HashMap<Expected, Vec<usize>>,
    /// The root that each delta makes.
    roots: HashMap<Expected, ListedFile>,
}

/// A file that may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is, below the top of its remote.
    pub path: StreamPath,
    /// What its document claims of it.
    pub expected: Expected,
    /// The day of its version's serial.
    pub modified: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug)]
struct Details {
    expected: Expected,
    modified: Option<SystemTime>,
}

/// An image that is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What its document says that its fingerprint is.
    pub fingerprint: Fingerprint,
    /// Its one file, or metadata and root.
    pub files: Vec<ListedFile>,
    /// What it runs as.
    pub image_type: ImageType,
    /// What its root is, if it is split.
    pub root: Option<Root>,
    /// What it is a build of.
    pub version: Arc<Version>,
}

impl Image {
    /// What tells this image from every other, also from one that claims the same fingerprint of other files.
    pub fn key(&self) -> Digest {
        key(self.fingerprint, self.expected())
    }

    /// What is claimed of its files.
    pub fn expected(&self) -> impl Iterator<Item = Expected> {
        self.files.iter().map(|file| file.expected)
    }

    /// The properties that LXD gives it.
    pub fn properties(&self) -> BTreeMap<String, String> {
        self.version.properties(self.root.map_or("tar.gz", Root::ftype))
    }

    /// Its size in bytes, as far as its document says.
    pub fn size(&self) -> u64 {
        self.expected().filter_map(|file| file.size).sum()
    }
}

impl Listing {
    /// Makes room for so many files more.
    pub fn reserve(&mut self, files: usize) {
        self.files.reserve(files);
        self.by_claim.reserve(files);
    }

    /// Lists a file. The first to claim a path keeps it.
    pub fn add_file(&mut self, path: &StreamPath, expected: Expected, modified: Option<SystemTime>) {
        self.by_claim.entry(expected.claim).or_insert_with(|| path.clone());
        let details = Details { expected, modified };
        self.files.entry(path.clone()).or_insert(details);
    }

    /// The paths that mean other bytes here than in `older`.
    pub fn changed_since<'a>(&'a self, older: &'a Self) -> impl Iterator<Item = &'a StreamPath> {
        let is_other = |(path, details): &(&StreamPath, &Details)| {
            older.files.get(*path).is_some_and(|old| old.expected.claim != details.expected.claim)
        };
        self.files.iter().filter(is_other).map(|(path, _)| path)
    }

    /// Lists an image.
    pub fn add_image(&mut self, image: Image) {
        let same = |place: &usize| self.images[*place].fingerprint == image.fingerprint && self.images[*place].files == image.files;
        if image.files.first().and_then(|file| self.images_by_file.get(&file.expected)).is_some_and(|places| places.iter().any(same)) {
            return;
        }
        for file in &image.files {
            self.images_by_file.entry(file.expected).or_default().push(self.images.len());
        }
        self.images.push(image);
    }

    /// Notes which root a delta makes.
    pub fn add_delta(&mut self, delta: Expected, root: ListedFile) {
        self.roots.insert(delta, root);
    }

    /// The root that a delta makes.
    pub fn root_of(&self, delta: Expected) -> Option<&ListedFile> {
        self.roots.get(&delta)
    }

    /// The file at a path.
    pub fn file(&self, path: &StreamPath) -> Option<File> {
        self.files.get(path).map(|details| File { path: path.clone(), expected: details.expected, modified: details.modified })
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = File> {
        self.files.iter().map(|(path, details)| File { path: path.clone(), expected: details.expected, modified: details.modified })
    }

    /// Whether it has a file of which this is claimed.
    pub fn has_claim(&self, claim: Claim) -> bool {
        self.by_claim.contains_key(&claim)
    }

    /// A file of which this is claimed.
    pub fn file_with(&self, claim: Claim) -> Option<File> {
        self.by_claim.get(&claim).and_then(|path| self.file(path)).filter(|file| file.expected.claim == claim)
    }

    /// All images.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// What its images are called.
    pub fn fingerprints(&self) -> HashSet<Fingerprint> {
        self.images.iter().map(|image| image.fingerprint).collect()
    }

    /// Whether an image is among the newest of its product and type.
    pub fn is_newest(&self, image: &Image) -> bool {
        let is_rival = |other: &&Image| other.image_type == image.image_type && other.version.product.name == image.version.product.name;
        let newest = self.images.iter().filter(is_rival).map(|other| &*other.version.serial).max();
        newest.is_some_and(|newest| *newest == *image.version.serial)
    }

    /// All images that need this file.
    pub fn images_with(&self, file: Expected) -> impl Iterator<Item = &Image> {
        self.images_by_file.get(&file).into_iter().flatten().map(|place| &self.images[*place])
    }
}

/// What tells an image of these files from every other one.
pub fn key(fingerprint: Fingerprint, files: impl Iterator<Item = Expected>) -> Digest {
    let files: Vec<String> = files.map(|file| file.to_string()).collect();
    Digest::of(format!("{fingerprint} {}", files.join(" ")).as_bytes())
}
