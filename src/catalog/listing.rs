//! The files and images of one remote.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::SystemTime;

use foldhash::HashSet;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::digest::{Claim, Digest, Expected, Fingerprint};
use crate::http::path::StreamPath;
use crate::image::ftype::{ImageType, Root};
use crate::image::version::Version;
use crate::simplestreams::file::ListedFile;

/// Metadata and root.
const FILES_OF_MOST_IMAGES: usize = 2;

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
    by_image: HashTable<u32>,
    /// What all images need, and for each file the last place where it is needed.
    needs: Vec<Need>,
    by_file: HashTable<u32>,
    /// The places of each delta and of the root that it makes.
    roots: HashTable<(u32, u32)>,
    hasher: RandomState,
}

/// An image's need of a file: the places of the image, of the file among its own, and of the need before of the same file. Very
/// many images may share one.
#[derive(Clone, Copy, Debug)]
struct Need {
    image: u32,
    file: u32,
    before: Option<u32>,
}

impl Need {
    /// What is claimed of the file.
    fn of(self, images: &[Image]) -> Expected {
        images[self.image as usize].files[self.file as usize].expected
    }
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
    /// Makes room for so many files and images more: tables that grow step by step are hashed anew as often.
    pub fn reserve(&mut self, files: usize, images: usize) {
        let Self { files: all_files, by_path, by_claim, images: all_images, by_image, needs, by_file, hasher, .. } = self;
        by_path.reserve(files, |place| hasher.hash_one(&all_files[*place as usize].path));
        by_claim.reserve(files, |place| hasher.hash_one(all_files[*place as usize].expected.claim));
        all_files.reserve(files);
        by_image.reserve(images, |place| hash_of_image(hasher, &all_images[*place as usize]));
        by_file.reserve(files, |place| hasher.hash_one(needs[*place as usize].of(all_images)));
        all_images.reserve(images);
        needs.reserve(images * FILES_OF_MOST_IMAGES);
    }

    /// Lists a file. The first to claim a path keeps it.
    pub fn add_file(&mut self, file: File) {
        let Self { files, by_path, by_claim, hasher, .. } = self;
        let at = place(files.len());
        let hash_of_path = |place: &u32| hasher.hash_one(&files[*place as usize].path);
        let has_path = |place: &u32| files[*place as usize].path == file.path;
        let Entry::Vacant(vacant) = by_path.entry(hasher.hash_one(&file.path), has_path, hash_of_path) else { return };
        vacant.insert(at);
        let hash_of_claim = |place: &u32| hasher.hash_one(files[*place as usize].expected.claim);
        let has_claim = |place: &u32| files[*place as usize].expected.claim == file.expected.claim;
        by_claim.entry(hasher.hash_one(file.expected.claim), has_claim, hash_of_claim).or_insert(at);
        files.push(file);
    }

    /// The paths that mean other bytes here than in `older`.
    pub fn changed_since<'a>(&'a self, older: &'a Self) -> impl Iterator<Item = &'a StreamPath> {
        let is_other = |file: &&File| older.file(&file.path).is_some_and(|old| old.expected.claim != file.expected.claim);
        self.files.iter().filter(is_other).map(|file| &file.path)
    }

    /// Lists an image.
    pub fn add_image(&mut self, image: Image) {
        let Self { images, by_image, hasher, .. } = self;
        let is_same = |at: &u32| images[*at as usize].fingerprint == image.fingerprint && images[*at as usize].files == image.files;
        let Entry::Vacant(vacant) =
            by_image.entry(hash_of_image(hasher, &image), is_same, |at| hash_of_image(hasher, &images[*at as usize]))
        else {
            return;
        };
        let (at, files) = (place(images.len()), place(image.files.len()));
        vacant.insert(at);
        self.images.push(image);
        (0..files).for_each(|file| self.add_need(at, file));
    }

    fn add_need(&mut self, image: u32, file: u32) {
        let Self { images, needs, by_file, hasher, .. } = self;
        let (at, mut need) = (place(needs.len()), Need { image, file, before: None });
        let is_same = |other: &u32| needs[*other as usize].of(images) == need.of(images);
        match by_file.entry(hasher.hash_one(need.of(images)), is_same, |other| hasher.hash_one(needs[*other as usize].of(images))) {
            Entry::Occupied(mut last) => need.before = Some(std::mem::replace(last.get_mut(), at)),
            Entry::Vacant(vacant) => {
                vacant.insert(at);
            }
        }
        needs.push(need);
    }

    /// Notes which root a delta makes; both are listed by their paths.
    pub fn add_delta(&mut self, delta: &StreamPath, root: &StreamPath) {
        let Some((delta, root)) = self.place_of(delta).zip(self.place_of(root)) else { return };
        let Self { files, roots, hasher, .. } = self;
        let expected = |place: u32| files[place as usize].expected;
        let is_same = |(other, _): &(u32, u32)| expected(*other) == expected(delta);
        match roots.entry(hasher.hash_one(expected(delta)), is_same, |(delta, _)| hasher.hash_one(expected(*delta))) {
            // The last one wins.
            Entry::Occupied(mut known) => known.get_mut().1 = root,
            Entry::Vacant(vacant) => drop(vacant.insert((delta, root))),
        }
    }

    /// The root that a delta makes.
    pub fn root_of(&self, delta: Expected) -> Option<&File> {
        let is_same = |(other, _): &(u32, u32)| self.files[*other as usize].expected == delta;
        self.roots.find(self.hasher.hash_one(delta), is_same).map(|(_, root)| &self.files[*root as usize])
    }

    /// The file at a path.
    pub fn file(&self, path: &StreamPath) -> Option<&File> {
        self.place_of(path).map(|place| &self.files[place as usize])
    }

    fn place_of(&self, path: &StreamPath) -> Option<u32> {
        let has_path = |place: &u32| self.files[*place as usize].path == *path;
        self.by_path.find(self.hasher.hash_one(path), has_path).copied()
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
        let of = |need: &Need| self.images[need.image as usize].files[need.file as usize].expected;
        let last = self.by_file.find(self.hasher.hash_one(file), |at| of(&self.needs[*at as usize]) == file);
        let needs = std::iter::successors(last, |at| self.needs[**at as usize].before.as_ref());
        needs.map(|at| &self.images[self.needs[*at as usize].image as usize])
    }
}

fn hash_of_image(hasher: &RandomState, image: &Image) -> u64 {
    hasher.hash_one((image.fingerprint, &image.files))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::catalog::listing::{File, Image, Listing};
    use crate::digest::{Claim, Digest, Expected, Fingerprint};
    use crate::http::path::StreamPath;
    use crate::image::architecture::Architecture;
    use crate::image::ftype::ImageType;
    use crate::image::version::{Product, Version};
    use crate::simplestreams::file::ListedFile;

    fn listed(path: &str, bytes: &str) -> ListedFile {
        let expected = Expected { claim: Claim::Sha256(Digest::of(bytes.as_bytes())), size: None };
        ListedFile { path: StreamPath::from_document(path).unwrap(), expected }
    }

    fn image(name: &str, files: &[ListedFile]) -> Image {
        let architecture = Architecture::parse("amd64").unwrap();
        let product =
            Product { name: String::new(), architecture, aliases: Vec::new(), properties: [].into(), title: String::new(), expires: None };
        let version = Version { product: Arc::new(product), serial: "".into(), date: "2026-01-01".parse().unwrap(), label: "".into() };
        let fingerprint = Fingerprint::of_unified(Digest::of(name.as_bytes()));
        Image { fingerprint, files: files.to_vec(), image_type: ImageType::Container, root: None, version: Arc::new(version) }
    }

    #[test]
    fn the_first_to_claim_a_path_keeps_it_and_what_it_is_not_is_found_where_it_is() {
        let mut listing = Listing::default();
        [listed("a", "1"), listed("a", "2"), listed("b", "2"), listed("c", "1")]
            .into_iter()
            .for_each(|file| listing.add_file(File::new(file, None)));
        let at = |bytes: &str| listing.file_with(listed("x", bytes).expected.claim).map(|file| file.path.to_string());
        assert_eq!((at("1").as_deref(), at("2").as_deref(), at("3")), (Some("a"), Some("b"), None));
        let claim = |path: &str| listing.file(&StreamPath::from_document(path).unwrap()).map(|file| file.expected.claim);
        assert_eq!((claim("a"), claim("d")), (Some(listed("x", "1").expected.claim), None));
        assert_eq!(listing.files().len(), 3);
    }

    #[test]
    fn every_image_that_needs_a_file_is_found_once() {
        let (shared, mut listing) = (listed("m", "m"), Listing::default());
        for name in ["1", "2", "1", "3"] {
            listing.add_image(image(name, &[shared.clone(), listed(name, name)]));
        }
        let with =
            |bytes: &str| listing.images_with(listed("x", bytes).expected).map(|image| image.files[1].path.to_string()).collect::<Vec<_>>();
        assert_eq!(
            (listing.images().len(), with("m"), with("2"), with("4")),
            (3, vec!["3".into(), "2".into(), "1".into()], vec!["2".into()], Vec::new())
        );
    }

    /// Every version of a hostile document names one metadata file.
    #[test]
    fn very_many_images_may_share_a_file() {
        let (shared, mut listing) = (listed("m", "m"), Listing::default());
        let started = std::time::Instant::now();
        (0..50_000).for_each(|number: u32| listing.add_image(image(&number.to_string(), std::slice::from_ref(&shared))));
        assert_eq!(listing.images_with(shared.expected).count(), 50_000);
        assert!(started.elapsed() < std::time::Duration::from_secs(10), "it takes longer with each of them");
    }
}
