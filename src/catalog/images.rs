//! The images of one remote, by fingerprint and by the files that they need.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::catalog::files::place;
use crate::digest::{Digest, Expected, Fingerprint};
use crate::image::ftype::{ImageType, Root};
use crate::image::version::Version;
use crate::simplestreams::file::ListedFile;

/// Metadata and root.
const FILES_OF_MOST_IMAGES: usize = 2;

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

/// Images in their order; tables hold their places.
#[derive(Debug, Default)]
pub struct Images {
    all: Vec<Image>,
    by_image: HashTable<u32>,
    /// Of each fingerprint the first image. Others may claim it of other files.
    by_fingerprint: HashTable<u32>,
    /// What all images need, and for each file the last place where it is needed.
    needs: Vec<Need>,
    by_file: HashTable<u32>,
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

impl Image {
    /// What tells this image from every other, also from one that claims the same fingerprint of other files.
    pub fn key(&self) -> Digest {
        Self::key_of(self.fingerprint, self.expected())
    }

    /// The same of an image of which only this is known.
    pub fn key_of(fingerprint: Fingerprint, files: impl Iterator<Item = Expected>) -> Digest {
        let files: Vec<String> = files.map(|file| file.to_string()).collect();
        Digest::of(format!("{fingerprint} {}", files.join(" ")).as_bytes())
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

impl Images {
    /// Makes room for so many more: tables that grow step by step are hashed anew as often.
    pub fn reserve(&mut self, count: usize) {
        let Self { all, by_image, by_fingerprint, needs, by_file, hasher } = self;
        by_image.reserve(count, |place| hash_of_image(hasher, &all[*place as usize]));
        by_fingerprint.reserve(count, |place| hasher.hash_one(all[*place as usize].fingerprint));
        by_file.reserve(count * FILES_OF_MOST_IMAGES, |place| hasher.hash_one(needs[*place as usize].of(all)));
        all.reserve(count);
        needs.reserve(count * FILES_OF_MOST_IMAGES);
    }

    /// Lists an image.
    pub fn add(&mut self, image: Image) {
        let Self { all, by_image, by_fingerprint, hasher, .. } = self;
        let is_same = |at: &u32| all[*at as usize].fingerprint == image.fingerprint && all[*at as usize].files == image.files;
        let hash_of = |at: &u32| hash_of_image(hasher, &all[*at as usize]);
        let Entry::Vacant(vacant) = by_image.entry(hash_of_image(hasher, &image), is_same, hash_of) else { return };
        let (at, files) = (place(all.len()), place(image.files.len()));
        vacant.insert(at);
        let hash_of = |at: &u32| hasher.hash_one(all[*at as usize].fingerprint);
        let is_called = |at: &u32| all[*at as usize].fingerprint == image.fingerprint;
        by_fingerprint.entry(hasher.hash_one(image.fingerprint), is_called, hash_of).or_insert(at);
        self.all.push(image);
        (0..files).for_each(|file| self.add_need(at, file));
    }

    fn add_need(&mut self, image: u32, file: u32) {
        let Self { all, needs, by_file, hasher, .. } = self;
        let (at, mut need) = (place(needs.len()), Need { image, file, before: None });
        let is_same = |other: &u32| needs[*other as usize].of(all) == need.of(all);
        match by_file.entry(hasher.hash_one(need.of(all)), is_same, |other| hasher.hash_one(needs[*other as usize].of(all))) {
            Entry::Occupied(mut last) => need.before = Some(std::mem::replace(last.get_mut(), at)),
            Entry::Vacant(vacant) => {
                vacant.insert(at);
            }
        }
        needs.push(need);
    }

    /// Whether one of them is called this.
    pub fn has(&self, fingerprint: Fingerprint) -> bool {
        let is_called = |at: &u32| self.all[*at as usize].fingerprint == fingerprint;
        self.by_fingerprint.find(self.hasher.hash_one(fingerprint), is_called).is_some()
    }

    /// All that need this file.
    pub fn with(&self, file: Expected) -> impl Iterator<Item = &Image> {
        let of = |need: &Need| need.of(&self.all);
        let last = self.by_file.find(self.hasher.hash_one(file), |at| of(&self.needs[*at as usize]) == file);
        let needs = std::iter::successors(last, |at| self.needs[**at as usize].before.as_ref());
        needs.map(|at| &self.all[self.needs[*at as usize].image as usize])
    }

    /// All of them.
    pub fn all(&self) -> &[Image] {
        &self.all
    }
}

fn hash_of_image(hasher: &RandomState, image: &Image) -> u64 {
    hasher.hash_one((image.fingerprint, &image.files))
}
