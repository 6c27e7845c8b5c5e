//! The files and images of one remote.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::SystemTime;

use foldhash::fast::RandomState;
use foldhash::{HashMap, HashSet};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::digest::{Claim, Digest, Expected, Fingerprint};
use crate::http::path::StreamPath;
use crate::image::ftype::{ImageType, Root};
use crate::image::version::Version;
use crate::simplestreams::file::ListedFile;

/// All files of a remote by path and by hash, and its images.
///
/// A large remote has as many files as all documents that are served have lines: they are here once, and tables hold
/// their places only.
#[derive(Debug, Default)]
pub struct Listing {
    files: Vec<File>,
    by_path: HashTable<u32>,
    by_claim: HashTable<u32>,
    images: Vec<Image>,
    /// The images that need each file: the place of the image, and that of the file among its own.
    by_file: HashTable<(u32, u32)>,
    /// The root that each delta makes.
    roots: HashMap<Expected, ListedFile>,
    hasher: RandomState,
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

impl File {
    /// A file as a document lists it, of a version of this day.
    pub fn new(listed: ListedFile, modified: Option<SystemTime>) -> Self {
        Self { path: listed.path, expected: listed.expected, modified }
    }
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
        let Self { files: all, by_path, by_claim, hasher, .. } = self;
        by_path.reserve(files, |place| hasher.hash_one(&all[*place as usize].path));
        by_claim.reserve(files, |place| hasher.hash_one(all[*place as usize].expected.claim));
        all.reserve(files);
    }

    /// Lists a file. The first to claim a path keeps it.
    pub fn add_file(&mut self, file: File) {
        let Self { files, by_path, by_claim, hasher, .. } = self;
        let place = place(files.len());
        let hash_of_path = |place: &u32| hasher.hash_one(&files[*place as usize].path);
        let has_path = |place: &u32| files[*place as usize].path == file.path;
        let Entry::Vacant(path) = by_path.entry(hasher.hash_one(&file.path), has_path, hash_of_path) else { return };
        path.insert(place);
        let hash_of_claim = |place: &u32| hasher.hash_one(files[*place as usize].expected.claim);
        let has_claim = |place: &u32| files[*place as usize].expected.claim == file.expected.claim;
        by_claim.entry(hasher.hash_one(file.expected.claim), has_claim, hash_of_claim).or_insert(place);
        files.push(file);
    }

    /// The paths that mean other bytes here than in `older`.
    pub fn changed_since<'a>(&'a self, older: &'a Self) -> impl Iterator<Item = &'a StreamPath> {
        let is_other = |file: &&File| older.file(&file.path).is_some_and(|old| old.expected.claim != file.expected.claim);
        self.files.iter().filter(is_other).map(|file| &file.path)
    }

    /// Lists an image.
    pub fn add_image(&mut self, image: Image) {
        let is_same = |other: &&Image| other.fingerprint == image.fingerprint && other.files == image.files;
        if image.files.first().is_some_and(|file| self.images_with(file.expected).any(|other| is_same(&other))) {
            return;
        }
        let at = place(self.images.len());
        let files = place(image.files.len());
        self.images.push(image);
        let Self { images, by_file, hasher, .. } = self;
        let hash_of = |(image, file): &(u32, u32)| hasher.hash_one(images[*image as usize].files[*file as usize].expected);
        for entry in (0..files).map(|file| (at, file)) {
            by_file.insert_unique(hash_of(&entry), entry, hash_of);
        }
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
    pub fn file(&self, path: &StreamPath) -> Option<&File> {
        let has_path = |place: &u32| self.files[*place as usize].path == *path;
        self.by_path.find(self.hasher.hash_one(path), has_path).map(|place| &self.files[*place as usize])
    }

    /// All files.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Whether it has a file of which this is claimed.
    pub fn has_claim(&self, claim: Claim) -> bool {
        self.file_with(claim).is_some()
    }

    /// A file of which this is claimed.
    pub fn file_with(&self, claim: Claim) -> Option<&File> {
        let has_claim = |place: &u32| self.files[*place as usize].expected.claim == claim;
        self.by_claim.find(self.hasher.hash_one(claim), has_claim).map(|place| &self.files[*place as usize])
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
        let found =
            self.by_file.iter_hash(self.hasher.hash_one(file)).map(|(image, place)| (&self.images[*image as usize], *place as usize));
        found.filter(move |(image, place)| image.files[*place].expected == file).map(|(image, _)| image)
    }
}

/// A place in a list of files or images.
fn place(len: usize) -> u32 {
    u32::try_from(len).expect("a document has fewer entries than bytes")
}

/// What tells an image of these files from every other one.
pub fn key(fingerprint: Fingerprint, files: impl Iterator<Item = Expected>) -> Digest {
    let files: Vec<String> = files.map(|file| file.to_string()).collect();
    Digest::of(format!("{fingerprint} {}", files.join(" ")).as_bytes())
}
