//! A disk that runs full.

#![allow(dead_code, reason = "each test target uses another part")]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
