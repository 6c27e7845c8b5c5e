//! A disk whose power can fail. From when it is armed it remembers what was synced; when the power is gone nothing is
//! written any more, and then it says what is found when the power is back: what was not synced is lost, kept or torn.
//!
//! It is stricter than most file systems: each name that was not synced is lost or kept by itself, so that a rename from one
//! folder to another may leave both names or none.

#![allow(dead_code, reason = "each test target uses another part")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use cistern::disk::{Disk, File, OsDisk};

use crate::support::disk::looks_of_the_machine;

const MAX_FILE_BYTES: u64 = 64 << 20;
const DATABASE: &str = "ledger.sqlite";

/// What became of names or bytes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// They are as they were when they were last synced.
    Lost,
    /// They are there.
    Kept,
    /// Some are there: of names every second one, of bytes the first half, and zeros in the place of the rest.
    Torn,
}

/// What the database, which goes past this disk, is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// As it is.
    Now,
    /// As it was when the disk was armed.
    Then,
    /// It is not there.
    Missing,
}

/// What is found when the power is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Names in folders.
    pub names: Unsynced,
    /// Bytes of files.
    pub bytes: Unsynced,
    /// The database.
    pub database: Database,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct PowerDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    top: PathBuf,
    model: Option<Model>,
    /// What it remembered when the power went.
    past: Option<Model>,
    /// So many changes are made yet.
    left: usize,
    /// What was to be changed when the power went.
    last: Option<String>,
    /// Syncs of this kind of path do nothing.
    deaf: Option<String>,
    synced: BTreeSet<String>,
    /// The next sync of this kind of path fails.
    fails: Option<String>,
}

#[derive(Debug, Default)]
struct Model {
    nodes: Vec<Node>,
    files: BTreeMap<u64, usize>,
    database: Vec<(String, Vec<u8>)>,
}

#[derive(Debug)]
enum Node {
    Folder { live: BTreeMap<String, usize>, durable: BTreeMap<String, usize> },
    File { file: File, path: PathBuf, durable: Vec<u8> },
}

impl PowerDisk {
    /// From now on what is below `top` is remembered, and the power goes instead of the change with this number.
    pub fn arm(&self, top: &Path, changes: usize) {
        let mut state = self.state();
        let mut model = Model::default();
        model.learn(top);
        model.database = databases(top);
        *state = State { top: top.to_owned(), model: Some(model), left: changes, deaf: state.deaf.take(), ..State::default() };
    }

    /// Forgets syncs of this kind of path, as a mistake in the program would.
    pub fn ignore_syncs_of(&self, kind: &str) {
        self.state().deaf = Some(kind.to_owned());
    }

    /// Lets one sync of this kind of path fail.
    pub fn fail_one_sync_of(&self, kind: &str) {
        self.state().fails = Some(kind.to_owned());
    }

    /// Whether it did.
    pub fn has_failed(&self) -> bool {
        self.state().fails.is_none()
    }

    /// The change that was not made because the power was gone, if it is.
    pub fn went_at(&self) -> Option<String> {
        self.state().last.clone()
    }

    /// Turns the power off now, if it is not.
    pub fn cut(&self) {
        let mut state = self.state();
        state.left = 0;
        state.last.get_or_insert_with(|| "the end".to_owned());
    }

    /// Forgets everything: it is a disk like any other.
    pub fn disarm(&self) {
        *self.state() = State::default();
    }

    /// What was synced since it was armed, by kinds of paths.
    pub fn synced(&self) -> BTreeSet<String> {
        self.state().synced.clone()
    }

    /// Puts on the real disk what is found when the power is back. Nothing is remembered any more, and all changes are made.
    pub fn restore(&self, outcome: Outcome) {
        let mut state = self.state();
        if let Some(model) = state.model.take() {
            state.past = Some(model);
        }
        let model = state.past.as_ref().unwrap();
        let database = match outcome.database {
            Database::Now => databases(&state.top),
            Database::Then => model.database.clone(),
            Database::Missing => Vec::new(),
        };
        let (files, folders) = (model.found(outcome), model.folders(outcome));
        // Making hundreds of folders anew each time would be most of a test's time.
        clear(&state.top, &state.top, &folders);
        folders.iter().for_each(|folder| std::fs::create_dir_all(state.top.join(folder)).unwrap());
        files.iter().for_each(|(path, bytes)| std::fs::write(state.top.join(path), bytes).unwrap());
        database.iter().for_each(|(name, bytes)| std::fs::write(state.top.join(name), bytes).unwrap());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Makes a change, unless the power is gone.
    fn change<T>(&self, what: &str, path: &Path, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        if state.model.is_some() && path.starts_with(&state.top) {
            if state.left == 0 {
                let what = format!("{what} {}", path.strip_prefix(&state.top).unwrap().display());
                state.last.get_or_insert(what);
                return Err(io::Error::other("the power is gone"));
            }
            state.left -= 1;
        }
        change(&mut state)
    }
}

/// Removes all files, and the folders that are not to stay.
fn clear(folder: &Path, top: &Path, stay: &BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if !entry.file_type().unwrap().is_dir() {
            std::fs::remove_file(path).unwrap();
        } else if stay.contains(path.strip_prefix(top).unwrap()) {
            clear(&path, top, stay);
        } else {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
}

fn databases(top: &Path) -> Vec<(String, Vec<u8>)> {
    let names = ["", "-wal", "-shm"].map(|side| format!("{DATABASE}{side}"));
    names.into_iter().filter_map(|name| Some((name.clone(), std::fs::read(top.join(name)).ok()?))).collect()
}

impl State {
    fn model(&mut self, path: &Path) -> Option<(&mut Model, PathBuf)> {
        let below = path.strip_prefix(&self.top).ok()?.to_owned();
        self.model.as_mut().map(|model| (model, below))
    }

    /// Whether a sync is to be done; it is noted. An error if it is to fail.
    fn hears(&mut self, path: &Path) -> io::Result<bool> {
        let kind: Vec<String> = path.components().map(|part| kind(&part.as_os_str().to_string_lossy())).collect();
        let kind = kind.join("/");
        if self.fails.take_if(|fails| *fails == kind).is_some() {
            return Err(io::Error::other("a sync failed"));
        }
        let is_deaf = self.deaf.as_ref() == Some(&kind);
        self.synced.insert(kind);
        Ok(!is_deaf)
    }
}

/// A name without what is another one each time.
fn kind(name: &str) -> String {
    let (stem, rest) = name.split_once('.').unwrap_or((name, ""));
    let is_digest = stem.len() >= 2 && stem.trim_start_matches("sha256-").bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    match (is_digest, rest) {
        (true, "") => "*".to_owned(),
        (true, rest) => format!("*.{rest}"),
        (false, _) => name.to_owned(),
    }
}

impl Model {
    /// What is there when it is armed is durable.
    fn learn(&mut self, path: &Path) -> usize {
        let place = self.nodes.len();
        if !path.is_dir() {
            let file = OsDisk.open(path).unwrap();
            let durable = file.read_all(MAX_FILE_BYTES).unwrap();
            self.files.insert(inode(&file), place);
            self.nodes.push(Node::File { file, path: path.to_owned(), durable });
            return place;
        }
        self.nodes.push(Node::Folder { live: BTreeMap::new(), durable: BTreeMap::new() });
        for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if !name.starts_with(DATABASE) && !entry.file_type().unwrap().is_socket() {
                let child = self.learn(&entry.path());
                self.folder(place).0.insert(name.clone(), child);
                self.folder(place).1.insert(name, child);
            }
        }
        place
    }

    fn folder(&mut self, place: usize) -> (&mut BTreeMap<String, usize>, &mut BTreeMap<String, usize>) {
        match &mut self.nodes[place] {
            Node::Folder { live, durable } => (live, durable),
            Node::File { path, .. } => panic!("{} is no folder", path.display()),
        }
    }

    fn find(&mut self, path: &Path) -> Option<usize> {
        names(path).try_fold(0, |place, name| self.folder(place).0.get(&name).copied())
    }

    /// The folder that a path is in, and its name there.
    fn parent(&mut self, path: &Path) -> (usize, String) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (self.find(path.parent().unwrap()).unwrap_or_else(|| panic!("{} is in no folder", path.display())), name)
    }

    fn link(&mut self, path: &Path, child: usize) {
        let (parent, name) = self.parent(path);
        self.folder(parent).0.insert(name, child);
    }

    /// What is not there was removed already.
    fn unlink(&mut self, path: &Path) -> Option<usize> {
        let parent = self.find(path.parent()?)?;
        self.folder(parent).0.remove(path.file_name()?.to_str()?)
    }

    fn add_file(&mut self, path: &Path, whole: &Path, file: &File) {
        if self.find(path).is_none() {
            let place = self.nodes.len();
            self.files.insert(inode(file), place);
            self.nodes.push(Node::File { file: file.clone(), path: whole.to_owned(), durable: Vec::new() });
            self.link(path, place);
        }
    }

    fn add_folder(&mut self, path: &Path) {
        let mut so_far = PathBuf::new();
        for name in names(path) {
            so_far.push(name);
            if self.find(&so_far).is_none() {
                let place = self.nodes.len();
                self.nodes.push(Node::Folder { live: BTreeMap::new(), durable: BTreeMap::new() });
                self.link(&so_far, place);
            }
        }
    }

    /// All files that are found, with what is in them.
    fn found(&self, outcome: Outcome) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        self.walk(0, Path::new(""), outcome, &mut |path, node| {
            if let Node::File { file, durable, .. } = node {
                let live = file.read_all(MAX_FILE_BYTES).unwrap();
                found.push((path.to_owned(), bytes(durable, live, outcome.bytes)));
            }
        });
        found
    }

    fn folders(&self, outcome: Outcome) -> BTreeSet<PathBuf> {
        let mut folders = BTreeSet::new();
        self.walk(0, Path::new(""), outcome, &mut |path, node| {
            if matches!(node, Node::Folder { .. }) {
                folders.insert(path.to_owned());
            }
        });
        folders
    }

    fn walk(&self, place: usize, path: &Path, outcome: Outcome, each: &mut impl FnMut(&Path, &Node)) {
        each(path, &self.nodes[place]);
        let Node::Folder { live, durable } = &self.nodes[place] else { return };
        let all: BTreeSet<&String> = live.keys().chain(durable.keys()).collect();
        let mut unsynced = 0;
        for name in all {
            let (now, then) = (live.get(name), durable.get(name));
            unsynced += usize::from(now != then);
            let found = match outcome.names {
                Unsynced::Kept => now,
                Unsynced::Torn if unsynced % 2 == 0 => now,
                Unsynced::Lost | Unsynced::Torn => then,
            };
            if let Some(child) = found {
                self.walk(*child, &path.join(name), outcome, each);
            }
        }
    }
}

fn bytes(durable: &[u8], live: Vec<u8>, unsynced: Unsynced) -> Vec<u8> {
    match unsynced {
        Unsynced::Lost => durable.to_vec(),
        Unsynced::Kept => live,
        Unsynced::Torn if live == durable => live,
        Unsynced::Torn => {
            let half = live.len() / 2;
            live.iter().enumerate().map(|(at, byte)| if at < half { *byte } else { 0 }).collect()
        }
    }
}

fn names(path: &Path) -> impl Iterator<Item = String> {
    path.components().filter(|part| matches!(part, Component::Normal(_))).map(|part| part.as_os_str().to_str().unwrap().to_owned())
}

fn inode(file: &File) -> u64 {
    rustix::fs::fstat(file).unwrap().st_ino
}

impl Disk for PowerDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.change("create", path, |state| {
            let file = OsDisk.create(path)?;
            if let Some((model, below)) = state.model(path) {
                model.add_file(&below, path, &file);
            }
            Ok(file)
        })
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OsDisk.open(path)
    }

    fn open_own(&self, path: &Path) -> io::Result<Option<File>> {
        OsDisk.open_own(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let path = self.path_of(file);
        self.change("write", &path, |_| OsDisk.write_at(file, bytes, offset))
    }

    fn reserve(&self, file: &File, len: u64) -> io::Result<()> {
        OsDisk.reserve(file, len)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        let path = self.path_of(file);
        self.change("truncate", &path, |_| OsDisk.truncate(file, len))
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let path = self.path_of(file);
        self.change("sync", &path, |state| {
            let Some((_, below)) = state.model(&path) else { return Ok(()) };
            let is_heard = state.hears(&below)?;
            let model = state.model.as_mut().unwrap();
            if is_heard
                && let Some(place) = model.files.get(&inode(file))
                && let Node::File { durable, file, .. } = &mut model.nodes[*place]
            {
                *durable = file.read_all(MAX_FILE_BYTES)?;
            }
            Ok(())
        })
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.change("sync", path, |state| {
            let Some((_, below)) = state.model(path) else { return Ok(()) };
            if state.hears(&below.join(""))? {
                let model = state.model.as_mut().unwrap();
                if let Some(place) = model.find(&below) {
                    let (live, durable) = model.folder(place);
                    durable.clone_from(live);
                }
            }
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change("rename", to, |state| {
            OsDisk.rename(from, to)?;
            if let Some((model, below)) = state.model(from) {
                let child = model.unlink(&below).unwrap();
                let (model, below) = state.model(to).unwrap();
                model.link(&below, child);
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change("remove", path, |state| {
            OsDisk.remove(path)?;
            if let Some((model, below)) = state.model(path) {
                model.unlink(&below);
            }
            Ok(())
        })
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.change("create folder", path, |state| {
            OsDisk.create_directory(path)?;
            if let Some((model, below)) = state.model(path) {
                model.add_folder(&below);
            }
            Ok(())
        })
    }

    looks_of_the_machine!();
}

impl PowerDisk {
    /// Where a file was made; nowhere if that was before it was armed.
    fn path_of(&self, file: &File) -> PathBuf {
        let state = self.state();
        let node = state.model.as_ref().and_then(|model| model.files.get(&inode(file)).map(|place| &model.nodes[*place]));
        if let Some(Node::File { path, .. }) = node { path.clone() } else { PathBuf::new() }
    }
}
