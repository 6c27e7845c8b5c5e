//! A disk of which single calls fail while the program goes on.

#![allow(dead_code, reason = "each test target uses another part")]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use cistern::disk::{Disk, File, Found, Space};

/// What a disk is asked to do. `Read` is a file's opening, and reads of that file are what fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Create,
    Open,
    Read,
    Write,
    Reserve,
    Truncate,
    Sync,
    SyncDirectory,
    Rename,
    Remove,
    CreateDirectory,
    List,
    Names,
    /// Names of blobs.
    BlobNames,
    Space,
}

/// How long a call that never comes back stays away.
const LONGEST_HANG: Duration = Duration::from_secs(30);

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO.
    Broken,
    /// ENOSPC.
    Full,
    /// ENOSPC after half of the bytes were written.
    Short,
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Broken => rustix::io::Errno::IO.into(),
            Self::Full | Self::Short => rustix::io::Errno::NOSPC.into(),
        }
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    state: Arc<Mutex<State>>,
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    hung: Arc<AtomicUsize>,
}

/// A call that goes on.
struct Under<'a>(&'a AtomicUsize);

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<Call, usize>,
    plan: Option<(Call, usize, Fault)>,
    /// Everything fails of these kinds.
    dead: Vec<(Call, Fault)>,
    slow: Vec<(Call, Duration)>,
    hanging: Vec<(Call, Instant)>,
    has_failed: bool,
}

impl FaultyDisk {
    /// A disk that does what another one does, for now.
    pub fn over(inner: impl Disk) -> Self {
        Self::over_another(Arc::new(inner))
    }

    /// The same, of one that is shared.
    pub fn over_another(inner: Arc<dyn Disk>) -> Self {
        Self { inner, state: Arc::default(), begun: Arc::default(), ended: Arc::default(), hung: Arc::default() }
    }

    /// How many calls there were of any kind.
    pub fn asked(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Whether one goes on.
    pub fn is_busy(&self) -> bool {
        self.ended.load(Ordering::SeqCst) != self.asked()
    }

    fn begin(&self) -> Under<'_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Under(&self.ended)
    }

    /// Counts from now on, and lets the call with this number fail, once.
    pub fn fail(&self, call: Call, number: usize, fault: Fault) {
        *self.state() = State { plan: Some((call, number, fault)), ..State::default() };
    }

    /// Lets all calls of a kind fail until it is healed.
    pub fn fail_all(&self, call: Call, fault: Fault) {
        self.state().dead.push((call, fault));
    }

    /// Lets all calls of a kind take so much longer.
    pub fn delay(&self, call: Call, time: Duration) {
        self.state().slow.push((call, time));
    }

    /// Lets no call of a kind come back until it is healed.
    pub fn hang(&self, call: Call) {
        self.state().hanging.push((call, Instant::now() + LONGEST_HANG));
    }

    /// How many calls were not let back.
    pub fn hung(&self) -> usize {
        self.hung.load(Ordering::SeqCst)
    }

    /// How many calls go on.
    pub fn under_way(&self) -> usize {
        self.asked() - self.ended.load(Ordering::SeqCst)
    }

    /// Counts from now on, and lets nothing fail.
    pub fn heal(&self) {
        *self.state() = State::default();
    }

    /// Whether the call that was to fail came.
    pub fn has_failed(&self) -> bool {
        self.state().has_failed
    }

    /// How many calls there were of each kind.
    pub fn counts(&self) -> BTreeMap<Call, usize> {
        self.state().counts.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How this call fails, if it does.
    fn fault(&self, call: Call) -> Option<Fault> {
        let slow: Duration = self.state().slow.iter().filter(|(slow, _)| *slow == call).map(|(_, time)| *time).sum();
        std::thread::sleep(slow);
        let hangs = || self.state().hanging.iter().any(|(hanging, until)| *hanging == call && Instant::now() < *until);
        self.hung.fetch_add(usize::from(hangs()), Ordering::SeqCst);
        // A test that fails is to end all the same.
        while hangs() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut state = self.state();
        let count = state.counts.entry(call).or_default();
        let number = *count;
        *count += 1;
        if let Some((_, fault)) = state.dead.iter().find(|(dead, _)| *dead == call) {
            return Some(*fault);
        }
        let (_, _, fault) = state.plan.filter(|(planned, at, _)| *planned == call && *at == number)?;
        state.has_failed = true;
        Some(fault)
    }

    fn ask<T>(&self, call: Call, act: impl FnOnce(&dyn Disk) -> io::Result<T>) -> io::Result<T> {
        let _under = self.begin();
        self.fault(call).map_or_else(|| act(&*self.inner), |fault| Err(fault.error()))
    }

    /// A file that can be opened may still not be readable.
    fn opened(&self, file: io::Result<File>) -> io::Result<File> {
        let file = file?;
        Ok(if self.fault(Call::Read).is_some() { file.unreadable_from(0) } else { file })
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.opened(self.ask(Call::Create, |disk| disk.create(path)))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.opened(self.ask(Call::Open, |disk| disk.open(path)))
    }

    fn open_own(&self, path: &Path) -> io::Result<Option<File>> {
        self.ask(Call::Open, |disk| disk.open_own(path))?.map(|file| self.opened(Ok(file))).transpose()
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _under = self.begin();
        match self.fault(Call::Write) {
            None => self.inner.write_at(file, bytes, offset),
            Some(fault) => {
                if fault == Fault::Short {
                    self.inner.write_at(file, &bytes[..bytes.len() / 2], offset)?;
                }
                Err(fault.error())
            }
        }
    }

    fn reserve(&self, file: &File, len: u64) -> io::Result<()> {
        self.ask(Call::Reserve, |disk| disk.reserve(file, len))
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        self.ask(Call::Truncate, |disk| disk.truncate(file, len))
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.ask(Call::Sync, |disk| disk.sync(file))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.ask(Call::SyncDirectory, |disk| disk.sync_directory(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(Call::Rename, |disk| disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.ask(Call::Remove, |disk| disk.remove(path))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.ask(Call::CreateDirectory, |disk| disk.create_directory(path))
    }

    fn restrict(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.inner.restrict(path, mode)
    }

    fn is_socket(&self, path: &Path) -> io::Result<bool> {
        self.inner.is_socket(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Found>> {
        self.ask(Call::List, |disk| disk.list(path))
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let call = if path.parent().is_some_and(|folder| folder.ends_with("blobs/sha256")) { Call::BlobNames } else { Call::Names };
        self.ask(call, |disk| disk.names(path))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.ask(Call::Space, |disk| disk.space(path))
    }
}
