//! The ledger on the disk, so that a start need not look at every file: `SQLite`, with one thread that owns the only
//! connection.
//!
//! It indexes what lies in the store and can be made anew from it; only times of use would be lost. One that is damaged is
//! set aside. One that a newer program wrote is left alone, and so is the start.

mod load;
mod tables;

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::disk::Disk;
use crate::ledger::Ledger;
use crate::ledger::change::Change;

/// How many batches may wait to be written.
const QUEUED_BATCHES: usize = 4;
/// The version of the tables below.
const VERSION: i64 = 1;
/// How much `SQLite` reads at a time. A start reads everything, and with the 4 KiB that are usual most of its time goes
/// into asking for them.
const PAGE_BYTES: u32 = 16 << 10;
/// What `SQLite` leaves beside its file.
const SIDES: [&str; 3] = ["", "-wal", "-shm"];

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Its rows may mean what we do not know.
    #[error(
        "{path} was written by a newer cistern (its version is {version}, this one knows {VERSION}); run that one, or move the file away to have it made anew"
    )]
    Newer {
        /// Where it is.
        path: PathBuf,
        /// Its version.
        version: i64,
    },
    /// It cannot be used, and not be set aside either.
    #[error("cannot use {path}: {source}; it must be a file that this user may write to, with room left")]
    Unusable {
        /// Where it is.
        path: PathBuf,
        /// What was said.
        source: io::Error,
    },
}

/// A database that is open.
#[derive(Debug)]
pub struct Database {
    batches: mpsc::Sender<Batch>,
    thread: JoinHandle<()>,
}

/// What is written at once, and who waits for it.
struct Batch {
    changes: Vec<Change>,
    written: oneshot::Sender<Result<(), (rusqlite::Error, Vec<Change>)>>,
}

/// What a database had.
#[derive(Debug)]
pub enum Found {
    /// A ledger.
    Ledger(Box<Ledger>),
    /// Nothing: it was not there.
    Nothing,
    /// Nothing that could be read; it was set aside.
    Damaged(String),
}

impl Database {
    /// Opens the database at `path`, or makes one. Waits for the disk; its thread is one of the current runtime.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<(Self, Found), DatabaseError> {
        let is_there = disk.open(path).is_ok();
        let (connection, found) = match open(disk, path) {
            Ok((connection, ledger)) => (connection, if is_there { Found::Ledger(Box::new(ledger)) } else { Found::Nothing }),
            Err(NotRead::Newer(version)) => return Err(DatabaseError::Newer { path: path.to_owned(), version }),
            Err(NotRead::Broken(reason)) => {
                let unusable = |source| DatabaseError::Unusable { path: path.to_owned(), source };
                if is_trouble(&reason) {
                    return Err(unusable(io::Error::other(reason)));
                }
                set_aside(disk, path).map_err(unusable)?;
                let (connection, _) = open(disk, path).map_err(|error| unusable(io::Error::other(error.to_string())))?;
                (connection, Found::Damaged(reason.to_string()))
            }
        };
        let (batches, queue) = mpsc::channel(QUEUED_BATCHES);
        let thread = tokio::task::spawn_blocking(move || write_all(connection, queue));
        Ok((Self { batches, thread }, found))
    }

    /// Writes changes down in one transaction; those that could not be written come back, with the reason.
    pub async fn write(&self, changes: Vec<Change>) -> Result<(), (String, Vec<Change>)> {
        let (written, outcome) = oneshot::channel();
        let gone = |changes| ("its thread is gone".to_owned(), changes);
        self.batches.send(Batch { changes, written }).await.map_err(|refused| gone(refused.0.changes))?;
        let outcome = outcome.await.map_err(|_| gone(Vec::new()))?;
        outcome.map_err(|(error, changes)| (error.to_string(), changes))
    }

    /// Ends it, when everything is written.
    pub async fn close(self) {
        drop(self.batches);
        if let Err(error) = self.thread.await {
            tracing::error!(%error, "the database did not end well");
        }
    }
}

/// Why a database is not read.
#[derive(Debug, thiserror::Error)]
enum NotRead {
    #[error("it is of version {0}")]
    Newer(i64),
    #[error(transparent)]
    Broken(#[from] rusqlite::Error),
}

/// Like every file of ours it is for nobody else: it is made before `SQLite` would make it for everybody.
fn open(disk: &dyn Disk, path: &Path) -> Result<(Connection, Ledger), NotRead> {
    // If something here cannot be done, `SQLite` says better why.
    if disk.open(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        // A link that leads nowhere would have the database made there.
        if let Err(error) = set_aside(disk, path) {
            tracing::warn!(path = %path.display(), %error, "what is in the database's place could not be set aside");
        }
    }
    drop(disk.create(path));
    read(path)
}

fn read(path: &Path) -> Result<(Connection, Ledger), NotRead> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > VERSION {
        return Err(NotRead::Newer(version));
    }
    if version < VERSION {
        // The size of pages counts only before there is one.
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    }
    // Times of use may be lost with the power; the order of writes may not, or the file would be damaged.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    if version < VERSION {
        connection.execute_batch(tables::TABLES)?;
        connection.pragma_update(None, "user_version", VERSION)?;
    }
    let ledger = load::load(&connection)?;
    Ok((connection, ledger))
}

/// Whether it is the disk that is in trouble, and not what is written there: then nobody knows whether that is good.
fn is_trouble(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    let troubles = [CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure];
    error.sqlite_error_code().is_some_and(|code| troubles.contains(&code))
}

/// Keeps what is damaged for whoever wants to look into it; only the last one of them.
fn set_aside(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    for side in SIDES {
        let from = with(path, side);
        match disk.rename(&from, &with(path, &format!("{side}.damaged"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn with(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

fn write_all(mut connection: Connection, mut queue: mpsc::Receiver<Batch>) {
    while let Some(Batch { changes, written }) = queue.blocking_recv() {
        let outcome = tables::write(&mut connection, &changes).map_err(|error| (error, changes));
        // Whoever waited may have left.
        drop(written.send(outcome));
    }
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "the database could not be closed");
    }
}
