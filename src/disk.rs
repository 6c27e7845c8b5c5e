//! The file system: the only place that uses `std::fs`.
//!
//! Every change to the disk is one call here, so that a test can let the n-th of them fail and see what is left. All of
//! it blocks; callers on async threads go through the blocking pool.

use std::fmt;
use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{FallocateFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

/// The mode of every file that we make. Keys are among them, and nothing of ours is for other users.
const OWNER_ONLY: u32 = 0o600;

/// How far apart the bytes are that are looked at to see what is in memory. Every look is a system call, and with four times as
/// many they were a sixth of what it costs to send a file; a gap between two of them costs one short wait for the disk.
const LOOK_STEP: usize = 512 * 1024;

/// What can be done to a file system.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens a file for reading and writing, and makes it if it is not there. What is in it stays.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Opens a file for reading, wherever its name leads, be it `/dev/null`. A pipe or a folder is an error: it would be waited for.
    fn open(&self, path: &Path) -> io::Result<File>;
    /// Opens a file that we made for reading; `None` if there is none, or something else in its place: a link, a pipe, a
    /// folder. Nothing of ours leads elsewhere.
    fn open_own(&self, path: &Path) -> io::Result<Option<File>>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Sets room aside for a file of `len` bytes without making it longer.
    fn reserve(&self, file: &File, len: u64) -> io::Result<()>;
    /// Cuts a file to `len` bytes.
    fn truncate(&self, file: &File, len: u64) -> io::Result<()>;
    /// Waits until a file's bytes will survive a loss of power.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Waits until the names in a folder will.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Gives a file or folder another name, in the place of whatever has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file, or a folder with all that is in it. One that is not there is no error.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder and those above it.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// Sets who may use a file or socket.
    fn restrict(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Whether there is a socket at a path, and not something that somebody may miss.
    fn is_socket(&self, path: &Path) -> io::Result<bool>;
    /// What is in a folder, in the order of names; nothing if it is not there.
    fn list(&self, path: &Path) -> io::Result<Vec<Found>>;
    /// The names of what is in a folder, in no order; nothing if it is not there. Unlike [`Disk::list`] it looks at no file,
    /// which is a hundred times quicker where there are very many.
    fn names(&self, path: &Path) -> io::Result<Vec<String>>;
    /// How large the file system is, and how much of that is free to us.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// An open file. It can be read by many at once; only a [`Disk`] writes it.
#[derive(Clone, Debug)]
pub struct File {
    file: Arc<fs::File>,
    /// From here on the medium cannot be read.
    unreadable_from: u64,
}

/// What a folder has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Its name in the folder; names that are not UTF-8 are none of ours and are not listed.
    pub name: String,
    /// Whether it is a folder.
    pub is_directory: bool,
    /// How long it is.
    pub len: u64,
    /// When it was last written.
    pub modified: SystemTime,
}

/// The size of a file system in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What we may still use.
    pub free: u64,
}

/// What came of a read that must not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Immediate {
    /// So many bytes were in memory.
    Read(usize),
    /// None were, or the file system cannot tell; read again where waiting is allowed.
    WouldWait,
}

impl File {
    fn new(file: fs::File) -> Self {
        Self { file: Arc::new(file), unreadable_from: u64::MAX }
    }

    /// A file that was opened elsewhere. What is not read at a place, as a pipe, would be waited for and is an error.
    pub fn handed(file: OwnedFd) -> io::Result<Self> {
        match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(Self::new(file.into())),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file")),
        }
    }

    /// Shows everybody who has the same open file how far somebody is with it. Nothing is read from there.
    pub fn mark(&self, offset: u64) -> io::Result<()> {
        Ok(rustix::fs::seek(&*self.file, SeekFrom::Start(offset)).map(drop)?)
    }

    /// How far somebody is with it who has the same open file.
    pub fn marked(&self) -> io::Result<u64> {
        Ok(rustix::fs::tell(&*self.file)?)
    }

    /// The same file on a medium that cannot be read from this byte on. No file system can be asked for one, and what comes
    /// of it has to be tried.
    #[must_use]
    pub fn unreadable_from(self, offset: u64) -> Self {
        Self { unreadable_from: offset, ..self }
    }

    /// Whether the medium lets bytes up to `end` be read.
    fn readable(&self, end: u64) -> io::Result<()> {
        if end > self.unreadable_from { Err(Errno::IO.into()) } else { Ok(()) }
    }

    /// How much room it takes, also beyond its end.
    pub fn allocated(&self) -> io::Result<u64> {
        const BLOCK: u64 = 512;
        self.file.metadata().map(|metadata| metadata.blocks().saturating_mul(BLOCK))
    }

    /// Reads at `offset` as much as there is, up to the length of `buffer`. May wait for the disk.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.readable(offset + buffer.len() as u64)?;
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    /// Reads at `offset` as much as there is, up to `most`, into memory of its own: none that is emptied first, which costs half of
    /// what reading does.
    pub fn read(&self, most: usize, offset: u64) -> io::Result<Vec<u8>> {
        self.readable(offset + most as u64)?;
        let mut bytes = Vec::with_capacity(most);
        while bytes.len() < most {
            let at = offset + bytes.len() as u64;
            match rustix::io::pread(&*self.file, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // There may be more memory than was asked for.
        bytes.truncate(most);
        Ok(bytes)
    }

    /// Reads what is in memory at `offset`, without waiting for the disk (`RWF_NOWAIT`).
    pub fn read_resident(&self, buffer: &mut [u8], offset: u64) -> io::Result<Immediate> {
        self.readable(offset + buffer.len() as u64)?;
        match rustix::io::preadv2(&*self.file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            Ok(0) if !buffer.is_empty() => Ok(Immediate::WouldWait),
            Ok(count) => Ok(Immediate::Read(count)),
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR | Errno::NOSYS) => Ok(Immediate::WouldWait),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether `len` bytes at `offset` are in memory, as far as a look at some of them tells: what leaves it does so in long runs.
    pub fn is_resident(&self, offset: u64, len: u64) -> io::Result<bool> {
        let last = offset + len.saturating_sub(1);
        let looks = (offset..last).step_by(LOOK_STEP).chain([last]);
        for at in looks {
            if self.read_resident(&mut [0], at)? == Immediate::WouldWait {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Has the kernel send up to `len` bytes at `offset` to a socket; how many it took.
    pub fn send_to(&self, socket: impl AsFd, mut offset: u64, len: u64) -> io::Result<usize> {
        self.readable(offset + len)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        Ok(rustix::fs::sendfile(socket, &*self.file, Some(&mut offset), len)?)
    }

    /// What tells it from every other file of the machine.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        self.file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
    }

    /// How long it is.
    pub fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// All that is in it; an error if that is more than `limit` bytes.
    pub fn read_all(&self, limit: u64) -> io::Result<Vec<u8>> {
        let len = self.len()?;
        if len > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {len} bytes, more than {limit}")));
        }
        self.read(usize::try_from(len).map_err(io::Error::other)?, 0)
    }

    /// Takes the file for this process alone, until it is closed; `false` if another process has it.
    pub fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// What the operating system knows of it.
impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The machine's own file systems.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl OsDisk {
    /// Lets an empty file share the bytes of another one until either is changed, where the file system can; whether it can.
    pub fn share(&self, from: &File, to: &File) -> bool {
        rustix::fs::ioctl_ficlone(&*to.file, &*from.file).is_ok()
    }
}

impl Disk for OsDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(OWNER_ONLY).open(path)?;
        Ok(File::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        match open_at_once(path, OFlags::empty())? {
            (file, FileType::RegularFile | FileType::CharacterDevice) => Ok(file),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file")),
        }
    }

    fn open_own(&self, path: &Path) -> io::Result<Option<File>> {
        match open_at_once(path, OFlags::NOFOLLOW) {
            Ok((file, kind)) => Ok((kind == FileType::RegularFile).then_some(file)),
            // A link; nobody answers at a socket; what should be a folder is a file.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.file.write_all_at(bytes, offset)
    }

    fn reserve(&self, file: &File, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&*file.file, FallocateFlags::KEEP_SIZE, 0, len) {
            // Not every file system can; then the ledger's promise is all there is.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.file.set_len(len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.file.sync_data()
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn restrict(&self, path: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    fn is_socket(&self, path: &Path) -> io::Result<bool> {
        fs::symlink_metadata(path).map(|metadata| metadata.file_type().is_socket())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in entries(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = entry.metadata()?;
            let modified = metadata.modified()?;
            found.push(Found { path: entry.path(), name, is_directory: metadata.is_dir(), len: metadata.len(), modified });
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        entries(path)?.filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose()).collect()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space { total: stat.f_blocks.saturating_mul(stat.f_frsize), free: stat.f_bavail.saturating_mul(stat.f_frsize) })
    }
}

/// Opens a file for reading without waiting for whoever might write to it, and says what it is.
fn open_at_once(path: &Path, flags: OFlags) -> rustix::io::Result<(File, FileType)> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | flags, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    Ok((File::new(file.into()), kind))
}

/// Whether there is a link of that name, wherever it leads.
pub fn is_link(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.file_type().is_symlink()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a folder of somebody else's has under names that are not UTF-8, which no [`Disk`] lists.
pub fn strange(path: &Path) -> io::Result<Vec<PathBuf>> {
    let strange = |entry: io::Result<fs::DirEntry>| match entry {
        Ok(entry) => entry.file_name().to_str().is_none().then(|| Ok(entry.path())),
        Err(error) => Some(Err(error)),
    };
    entries(path)?.filter_map(strange).collect()
}

fn entries(path: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        Err(error) => Err(error),
    }
}

/// Writes a small file so that a reader finds the old one or the new one, whole: write, sync, rename, sync the folder.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = folder.join(name);
    let file = disk.create(&fresh)?;
    disk.truncate(&file, 0)?;
    disk.write_at(&file, bytes, 0)?;
    disk.sync(&file)?;
    disk.rename(&fresh, path)?;
    disk.sync_directory(folder)
}
