//! The files of one remote, by path and by hash.

use std::hash::BuildHasher as _;
use std::time::SystemTime;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::digest::{Claim, Expected};
use crate::http::path::StreamPath;
use crate::simplestreams::file::ListedFile;

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

/// Files in their order; tables hold their places.
#[derive(Debug, Default)]
pub struct Files {
    all: Vec<File>,
    by_path: HashTable<u32>,
    by_claim: HashTable<u32>,
    /// The places of each delta and of the root that it makes.
    roots: HashTable<(u32, u32)>,
    hasher: RandomState,
}

impl File {
    /// A file as a document lists it, of a version of this day.
    pub fn new(listed: ListedFile, modified: Option<SystemTime>) -> Self {
        Self { path: listed.path, expected: listed.expected, modified }
    }
}

impl Files {
    /// Makes room for so many more: tables that grow step by step are hashed anew as often.
    pub fn reserve(&mut self, count: usize) {
        let Self { all, by_path, by_claim, hasher, .. } = self;
        by_path.reserve(count, |place| hasher.hash_one(&all[*place as usize].path));
        by_claim.reserve(count, |place| hasher.hash_one(all[*place as usize].expected.claim));
        all.reserve(count);
    }

    /// Lists a file. The first to claim a path keeps it.
    pub fn add(&mut self, file: File) {
        let Self { all, by_path, by_claim, hasher, .. } = self;
        let at = place(all.len());
        let hash_of_path = |place: &u32| hasher.hash_one(&all[*place as usize].path);
        let has_path = |place: &u32| all[*place as usize].path == file.path;
        let Entry::Vacant(vacant) = by_path.entry(hasher.hash_one(&file.path), has_path, hash_of_path) else { return };
        vacant.insert(at);
        let hash_of_claim = |place: &u32| hasher.hash_one(all[*place as usize].expected.claim);
        let has_claim = |place: &u32| all[*place as usize].expected.claim == file.expected.claim;
        by_claim.entry(hasher.hash_one(file.expected.claim), has_claim, hash_of_claim).or_insert(at);
        all.push(file);
    }

    /// Notes which root a delta makes; both are listed by their paths.
    pub fn add_delta(&mut self, delta: &StreamPath, root: &StreamPath) {
        let Some((delta, root)) = self.place_of(delta).zip(self.place_of(root)) else { return };
        let Self { all, roots, hasher, .. } = self;
        let expected = |place: u32| all[place as usize].expected;
        let is_same = |(other, _): &(u32, u32)| expected(*other) == expected(delta);
        match roots.entry(hasher.hash_one(expected(delta)), is_same, |(delta, _)| hasher.hash_one(expected(*delta))) {
            // The last one wins.
            Entry::Occupied(mut known) => known.get_mut().1 = root,
            Entry::Vacant(vacant) => drop(vacant.insert((delta, root))),
        }
    }

    /// The root that a delta makes.
    pub fn root_of(&self, delta: Expected) -> Option<&File> {
        let is_same = |(other, _): &(u32, u32)| self.all[*other as usize].expected == delta;
        self.roots.find(self.hasher.hash_one(delta), is_same).map(|(_, root)| &self.all[*root as usize])
    }

    /// The file at a path.
    pub fn at(&self, path: &StreamPath) -> Option<&File> {
        self.place_of(path).map(|place| &self.all[place as usize])
    }

    /// A file of which this is claimed.
    pub fn with(&self, claim: Claim) -> Option<&File> {
        let has_claim = |place: &u32| self.all[*place as usize].expected.claim == claim;
        self.by_claim.find(self.hasher.hash_one(claim), has_claim).map(|place| &self.all[*place as usize])
    }

    /// All of them.
    pub fn all(&self) -> &[File] {
        &self.all
    }

    fn place_of(&self, path: &StreamPath) -> Option<u32> {
        let has_path = |place: &u32| self.all[*place as usize].path == *path;
        self.by_path.find(self.hasher.hash_one(path), has_path).copied()
    }
}

/// A place in a list of files or images.
pub fn place(len: usize) -> u32 {
    u32::try_from(len).expect("a document has fewer entries than bytes")
}
