//! What lies on the disk: blobs, partial files, upstream's documents, facts that we learnt.
//!
//! ```text
//! storage.path/
//!   lock                              one process at a time
//!   blobs/sha256/ab/<hex>             whole and verified, nothing else
//!   partials/<hash>-<size>            fetches under way, and those to be resumed
//!   documents/<remote>/<time>/        one snapshot of upstream's documents each
//!   documents/<remote>/validators     what upstream wants to see in conditional requests
//!   learnt/<hash>                     the digest of a file whose document gives another hash
//!   records/<fingerprint>             what is known of each held image
//!   ledger.sqlite                     the same, and when blobs were last used, in one place
//!   state/images/<fingerprint>        what people decided about an image
//!   state/published/<fingerprint>     images of our own
//!   state/aliases/<name>              names that people gave
//!   state/bundles/                    the key that bundles are signed with, and which were made
//!   state/bundles/trusted/<key>       keys whose bundles are taken
//!   state/bundles/imported/<bundle>/  the newest bundle of each selection, without its blobs
//!   state/bundles/begun/<bundle>      bundles of which not everything came yet
//!   state/bundles/remotes/<remote>    remotes that came in bundles
//!   wrong/<hex>                       an image whose files are not what it was listed as
//!   scrub.json                        how far everything was read again
//!   trash/                            on its way out
//!   tls/                              the CA and the certificate that we made
//! ```
//!
//! Everything here blocks and decides nothing.

pub mod begun;
pub mod blob;
pub mod decisions;
pub mod exports;
pub mod facts;
pub mod imports;
pub mod keys;
pub mod layout;
pub mod partial;
pub mod publications;
pub mod records;
pub mod scrubbed;
pub mod snapshots;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::{Digest, Expected};
use crate::disk::{Disk, File, Found, Space};
use crate::store::blob::Blob;
use crate::store::layout::Layout;
use crate::store::partial::Partial;

/// An open store. While it lives, no other process can open it.
#[derive(Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    layout: Layout,
    /// How many files were taken out of the way so far.
    discarded: AtomicU64,
    _lock: File,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Two processes would each count the other's bytes wrong.
    #[error("another cistern uses {0}; stop it, or give this one a storage.path of its own")]
    InUse(PathBuf),
    /// The disk said no.
    #[error("cannot use {path}: {source}; storage.path must be a folder that this user may write to, with room left")]
    Unusable {
        /// What was touched.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

/// File systems give room in blocks, which are no larger than this.
const ROUGHLY: u64 = 256 << 10;

impl Store {
    /// Opens the store at `path`, makes it if there is none, and clears away what a killed process left half done.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, StoreError> {
        let unusable = |source| StoreError::Unusable { path: path.to_owned(), source };
        let layout = Layout::new(path);
        disk.create_directory(path).map_err(unusable)?;
        let lock = disk.create(&layout.lock()).map_err(unusable)?;
        if !lock.try_lock().map_err(unusable)? {
            return Err(StoreError::InUse(path.to_owned()));
        }
        layout.create(&*disk).map_err(|(path, source)| StoreError::Unusable { path, source })?;
        disk.remove(&layout.trash()).and_then(|()| disk.create_directory(&layout.trash())).map_err(unusable)?;
        let store = Self { disk, layout, discarded: AtomicU64::new(0), _lock: lock };
        store.trim_partials();
        Ok(store)
    }

    /// Gives back the room that was set aside for the rest of downloads: whoever was killed could not.
    fn trim_partials(&self) {
        for partial in self.partials().unwrap_or_default() {
            if let Err(error) = self.trim(&partial.path) {
                tracing::warn!(path = %partial.path.display(), %error, "what was set aside for a download could not be given back");
            }
        }
    }

    /// The others keep the time of their last change, by which they are swept away.
    fn trim(&self, partial: &Path) -> io::Result<()> {
        let Some(file) = self.disk.open_own(partial)? else { return Ok(()) };
        let len = file.len()?;
        if file.allocated()? < len + ROUGHLY { Ok(()) } else { self.disk.create(partial).and_then(|file| self.disk.truncate(&file, len)) }
    }

    /// The disk that it is on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Where things are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How much room its file system has.
    pub fn space(&self) -> io::Result<Space> {
        self.disk.space(self.layout.root())
    }

    /// Opens a blob; `None` if it is not held.
    pub fn blob(&self, digest: Digest) -> io::Result<Option<Blob>> {
        Blob::open(&*self.disk, &self.layout, digest)
    }

    /// The digests of the blobs that begin with this byte.
    pub fn digests(&self, first: u8) -> io::Result<Vec<Digest>> {
        blob::digests(&*self.disk, &self.layout, first)
    }

    /// Calls for the digest of every blob.
    pub fn each_digest(&self, mut each: impl FnMut(Digest)) -> io::Result<()> {
        (0..=u8::MAX).try_for_each(|first| self.digests(first).map(|digests| digests.into_iter().for_each(&mut each)))
    }

    /// Takes a blob out of the way; one that is not there is out of the way. Its bytes are in the trash then.
    pub fn discard_blob(&self, digest: Digest) -> io::Result<()> {
        self.discard(&self.layout.blob(digest), &digest.to_string())
    }

    /// Each has a name of its own in the trash: the one before may still be there.
    fn discard(&self, path: &Path, name: &str) -> io::Result<()> {
        let number = self.discarded.fetch_add(1, Ordering::Relaxed);
        let discarded = self.disk.rename(path, &self.layout.trash().join(format!("{name}.{number}")));
        let is_absent = |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        discarded.or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })
    }

    /// Begins to write a blob, or goes on with what an earlier fetch left.
    pub fn partial(&self, expected: Expected) -> io::Result<Partial> {
        Partial::open(Arc::clone(&self.disk), &self.layout, expected)
    }

    /// All partial files.
    pub fn partials(&self) -> io::Result<Vec<Found>> {
        self.disk.list(&self.layout.partials())
    }

    /// Takes a partial file out of the way; nobody can go on with it.
    pub fn discard_partial(&self, partial: &Found) -> io::Result<()> {
        self.discard(&partial.path, &partial.name)
    }

    /// What was taken out of the way, and is to be removed.
    pub fn trash(&self) -> io::Result<Vec<Found>> {
        self.disk.list(&self.layout.trash())
    }
}
