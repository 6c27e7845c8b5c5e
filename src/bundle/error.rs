//! Why bundles are refused.

use crate::library::error::LibraryError;
use crate::manifest::{BadManifest, BundlePath};
use crate::revalidation::refusal::Refusal;

/// Why a bundle is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotImported {
    /// Nobody knows who made it.
    #[error(
        "no key that this site trusts has signed it: somebody else made it, or it was changed; 'cistern bundle trust PUB' takes the bundles of a key, which 'cistern bundle key' prints where they are made"
    )]
    NotTrusted,
    /// It says nothing that makes sense.
    #[error("its manifest cannot be taken: {0}")]
    Manifest(#[from] BadManifest),
    /// It goes back.
    #[error("it is bundle {theirs} of its selection, and bundle {ours} was imported before; --allow-rollback takes it all the same")]
    Older {
        /// Its number.
        theirs: u64,
        /// The one that is here.
        ours: u64,
    },
    /// It would not fit into memory.
    #[error("its documents have {bytes} bytes, and {most} are the most")]
    DocumentsTooLarge {
        /// How many.
        bytes: u64,
        /// How many may be.
        most: u64,
    },
    /// The store would never hold it.
    #[error("its files have {bytes} bytes, and the store holds {capacity} at most (storage.capacity)")]
    BlobsTooLarge {
        /// How many.
        bytes: u64,
        /// How many may be held.
        capacity: u64,
    },
    /// A file is not what the manifest says.
    #[error("{0} is not what the manifest says; it was changed or damaged")]
    Broken(BundlePath),
    /// Somebody sends what does not belong there.
    #[error("{0} is not in the manifest")]
    NotInIt(BundlePath),
    /// Something was not sent.
    #[error("{0} did not come; run the import again")]
    NotSent(BundlePath),
    /// A remote cannot be fed.
    #[error("{0}")]
    Remote(String),
    /// A document makes no sense.
    #[error("what it lists of remote '{remote}' cannot be taken: {reason}")]
    Documents {
        /// Of which remote.
        remote: String,
        /// Why.
        reason: Refusal,
    },
    /// A document names a file by something else than its SHA-256.
    #[error("what it lists of remote '{remote}' names {path} without a SHA-256")]
    NoDigest {
        /// Of which remote.
        remote: String,
        /// Which file.
        path: String,
    },
    /// It needs what is neither here nor in it.
    #[error("{0}")]
    Lacking(String),
    /// Nobody knows what is held.
    #[error("the store is still being looked through, and until then nobody knows what is held; try again later")]
    Uncounted,
    /// It was forgotten.
    #[error("the server does not know this bundle any more; run the import again")]
    Forgotten,
    /// A blob cannot be taken in.
    #[error("{path}: {reason}")]
    Blob {
        /// Which.
        path: BundlePath,
        /// Why.
        reason: LibraryError,
    },
    /// Its documents cannot be served.
    #[error("what it lists of remote '{remote}' could not be served: {reason}; run the import again")]
    NotServed {
        /// Of which remote.
        remote: String,
        /// Why.
        reason: String,
    },
    /// The disk says no.
    #[error("the store cannot be used: {0}")]
    Store(#[from] std::io::Error),
}
