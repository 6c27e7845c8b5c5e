//! A disk that runs full, and one that counts what is on it.

#![allow(dead_code, reason = "each test target uses another part")]

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cistern::disk::{Disk, File, OsDisk};

/// What a disk for tests leaves to the machine's: whatever only looks.
macro_rules! looks_of_the_machine {
    () => {
        fn restrict(&self, path: &std::path::Path, mode: u32) -> std::io::Result<()> {
            cistern::disk::OsDisk.restrict(path, mode)
        }

        fn is_socket(&self, path: &std::path::Path) -> std::io::Result<bool> {
            cistern::disk::OsDisk.is_socket(path)
        }

        fn list(&self, path: &std::path::Path) -> std::io::Result<Vec<cistern::disk::Found>> {
            cistern::disk::OsDisk.list(path)
        }

        fn names(&self, path: &std::path::Path) -> std::io::Result<Vec<String>> {
            cistern::disk::OsDisk.names(path)
        }

        fn space(&self, path: &std::path::Path) -> std::io::Result<cistern::disk::Space> {
            cistern::disk::OsDisk.space(path)
        }
    };
}
pub(crate) use looks_of_the_machine;

/// The machine's disk, which takes so many bytes more and then says that it is full.
#[derive(Clone, Debug)]
pub struct FullDisk {
    left: Arc<AtomicU64>,
}

impl FullDisk {
    /// A disk that takes everything, for now.
    pub fn empty() -> Self {
        Self { left: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// From now on it takes so many bytes.
    pub fn leave(&self, bytes: u64) {
        self.left.store(bytes, Ordering::SeqCst);
    }
}

impl Disk for FullDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        OsDisk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OsDisk.open(path)
    }

    fn open_own(&self, path: &Path) -> io::Result<Option<File>> {
        OsDisk.open_own(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let takes = |left: u64| left.checked_sub(bytes.len() as u64);
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, takes) {
            Ok(_) => OsDisk.write_at(file, bytes, offset),
            Err(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn reserve(&self, _file: &File, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        OsDisk.truncate(file, len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        OsDisk.sync(file)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        OsDisk.sync_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        OsDisk.create_directory(path)
    }

    looks_of_the_machine!();
}

/// The machine's disk, and how many bytes its files have at most, each by itself: a look through the folders would take so
/// long that what goes meanwhile is counted beside what takes its place.
#[derive(Clone, Debug, Default)]
pub struct CountingDisk(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    top: PathBuf,
    sizes: HashMap<u64, u64>,
    most: u64,
}

impl CountingDisk {
    /// Counts the blobs, partial files and trash of this store, which is empty so far.
    pub fn count_below(&self, store: &Path) {
        *self.0.lock().unwrap() = Counted { top: store.to_owned(), ..Counted::default() };
    }

    /// How many bytes there were at most.
    pub fn most(&self) -> u64 {
        self.0.lock().unwrap().most
    }

    fn gone(&self, path: &Path, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let inode = rustix::fs::lstat(path).map(|stat| stat.st_ino);
        act()?;
        if let Ok(inode) = inode {
            self.0.lock().unwrap().sizes.remove(&inode);
        }
        Ok(())
    }
}

impl Counted {
    fn is_ours(&self, file: &File) -> bool {
        let name = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file.as_fd())));
        name.is_ok_and(|name| ["blobs", "partials", "trash"].iter().any(|folder| name.starts_with(self.top.join(folder))))
    }
}

impl Disk for CountingDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        OsDisk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OsDisk.open(path)
    }

    fn open_own(&self, path: &Path) -> io::Result<Option<File>> {
        OsDisk.open_own(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        OsDisk.write_at(file, bytes, offset)?;
        let mut counted = self.0.lock().unwrap();
        if counted.is_ours(file) {
            let end = offset + bytes.len() as u64;
            let size = counted.sizes.entry(rustix::fs::fstat(file)?.st_ino).or_default();
            *size = end.max(*size);
            let total = counted.sizes.values().sum();
            counted.most = counted.most.max(total);
        }
        Ok(())
    }

    fn reserve(&self, file: &File, len: u64) -> io::Result<()> {
        OsDisk.reserve(file, len)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        OsDisk.truncate(file, len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        OsDisk.sync(file)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        OsDisk.sync_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        // What had that name has none any more.
        self.gone(to, || OsDisk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.gone(path, || OsDisk.remove(path))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        OsDisk.create_directory(path)
    }

    looks_of_the_machine!();
}
