//! Why bundles are not made, and why they are refused.

use std::sync::Arc;

use crate::bundle::choosing::NotChosen;
use crate::bundle::plan::NotSealed;
use crate::library::error::LibraryError;
use crate::manifest::{BadManifest, BundlePath};
use crate::revalidation::refusal::Refusal;
use crate::store::imports::Unreadable;

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum NoBundle {
    /// Nothing is to be in it.
    #[error(transparent)]
    NotChosen(#[from] NotChosen),
    /// What is to be in it cannot be had.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// It cannot be numbered, split or signed.
    #[error(transparent)]
    NotSealed(#[from] NotSealed),
    /// The store cannot hold all of it.
    #[error("the images have {total} bytes, and the store holds {capacity} at most (storage.capacity); select fewer at a time")]
    TooLarge {
        /// How many bytes they have, as far as documents say.
        total: u64,
        /// How many may be held.
        capacity: u64,
    },
    /// Its remote has other documents by now.
    #[error("the documents of remote '{0}' changed meanwhile; run the export again")]
    Changed(Arc<str>),
    /// It was forgotten.
    #[error("the server does not know this bundle any more; run the export again")]
    Forgotten,
    /// The disk says no.
    #[error("the store cannot be used: {0}")]
    Store(#[from] std::io::Error),
}

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
    /// There is none of that name.
    #[error("no selection, or more than one, has the id '{0}'; cistern bundle list shows them")]
    NoSelection(String),
    /// It goes back.
    #[error("it is bundle {theirs}, and bundle {ours} of the same selection was imported before; --allow-rollback takes it all the same")]
    Older {
        /// Its number, and when it was made.
        theirs: String,
        /// The one that is here.
        ours: String,
    },
    /// It would not fit into memory.
    #[error("its documents have {bytes} bytes, and {most} are the most")]
    DocumentsTooLarge {
        /// How many.
        bytes: u64,
        /// How many may be.
        most: u64,
    },
    /// There is no room for it beside what has to stay.
    #[error(
        "{wanted} bytes of it are not held, and there is room for {lacking} less beside what has to stay; see storage.capacity and storage.min_free, and 'cistern bundle list' for what could be forgotten"
    )]
    NoRoom {
        /// How many bytes are not held.
        wanted: u64,
        /// How many are too much.
        lacking: u64,
    },
    /// What was imported before cannot be read.
    #[error("{path} cannot be read ({reason}); remove it, and import the bundle of that selection again")]
    Unreadable {
        /// Where it lies.
        path: String,
        /// Why.
        reason: String,
    },
    /// The program ends.
    #[error("the program is ending; run the import again when it is back")]
    Ending,
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
    #[error("what it lists of remote '{remote}' names {path} without a SHA-256; export it again with this version of cistern")]
    NoDigest {
        /// Of which remote.
        remote: String,
        /// Which file.
        path: String,
    },
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

impl From<Unreadable> for NotImported {
    fn from(other: Unreadable) -> Self {
        Self::Unreadable { path: other.path.display().to_string(), reason: other.error.to_string() }
    }
}
