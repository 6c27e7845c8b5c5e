//! Why something that a person wants with images cannot be done.

use std::io;

use crate::catalog::query::NoImage;
use crate::digest::Fingerprint;
use crate::fetch::allowance::Denied;
use crate::library::inspect::NoImageFile;
use crate::publish::Gone;
use crate::refresh::desk::NoRefresh;
use crate::simplestreams::file::ListedFile;

/// Why it cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// There is no such image.
    #[error(transparent)]
    NoImage(#[from] NoImage),
    /// It is listed, and not held.
    #[error("'{0}' is not held; cistern image copy brings it in")]
    NotHeld(String),
    /// Somebody reads it.
    #[error("{0} is being downloaded by a host; try again when that is done")]
    InUse(Fingerprint),
    /// Its remote would fetch it again.
    #[error("remote '{0}' is mirrored, and holds all that its selection names; change remotes.{0}.select or versions")]
    Mirrored(String),
    /// It is not ours to change.
    #[error(
        "{key} cannot be changed: it comes from the documents of remote '{remote}'; only images of 'local' have properties of their own"
    )]
    NotEditable {
        /// What.
        key: String,
        /// Whose it is.
        remote: String,
    },
    /// Images of our own have no newer versions.
    #[error("an image of 'local' is not kept up to date: nobody has newer versions of it")]
    NoUpdates,
    /// A command broke off, or sent something else than it said.
    #[error("the file did not come whole: {0}")]
    NotSent(String),
    /// Another command that sent the same broke off.
    #[error("another command that sent the same file broke off ({0}); run this again")]
    SentByAnother(String),
    /// The file was good, and what was here of it was not.
    #[error("what was here of the file from an earlier attempt was damaged, and is gone now; run this again")]
    Leftover,
    /// The files are no image.
    #[error(transparent)]
    NoImageFile(#[from] NoImageFile),
    /// There is no room.
    #[error("there is no room for it; see storage.capacity and storage.min_free")]
    NoRoom,
    /// Nobody knows whether there is room.
    #[error("the store is still being looked through, and until then nobody knows how much room there is; try again later")]
    Uncounted,
    /// Clients could not show it.
    #[error(
        "'{0}' is no property: names have no spaces and do not end with a dot, values no control characters, and both together 4096 bytes at most"
    )]
    BadProperty(String),
    /// Clients could not ask for it.
    #[error(
        "'{0}' is no name for an image: it must have no spaces, commas or colons, be no fingerprint, begin with no slash, dot or hyphen, and have 80 bytes at most"
    )]
    BadAlias(String),
    /// It means another image.
    #[error("the alias '{0}' means {1}; cistern image alias delete {0} takes it away")]
    AliasTaken(String, String),
    /// Nobody gave it.
    #[error("there is no alias '{0}' of yours; cistern image alias list shows them")]
    NoAlias(String),
    /// A time that is none.
    #[error("'{0}' is no time; write 2027-01-31, 2027-01-31T12:00:00Z, or never")]
    Time(String),
    /// An architecture that is none.
    #[error("'{0}' is no architecture that LXD or Incus knows")]
    Architecture(String),
    /// Upstream cannot be asked.
    #[error("it cannot be refreshed: {0}")]
    Refresh(#[from] NoRefresh),
    /// A file cannot be had.
    #[error("{path}: {reason}")]
    Fetch {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// Its bytes are not what its document says.
    #[error("its files do not have its fingerprint; it is listed no more")]
    Wrong,
    /// The disk refused what is to be known of it.
    #[error("it is here and could not be recorded; the log says why")]
    NotRecorded,
    /// The store cannot be used.
    #[error("the store cannot be used: {0}")]
    Store(#[from] io::Error),
    /// The program ends.
    #[error(transparent)]
    Ending(#[from] Gone),
}

impl From<Denied> for LibraryError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NoRoom(_) => Self::NoRoom,
            Denied::Uncounted => Self::Uncounted,
            Denied::Disk(error) => Self::Store(error),
        }
    }
}

impl LibraryError {
    /// A file of an image cannot be had.
    pub fn not_had(file: &ListedFile, reason: &impl std::fmt::Display) -> Self {
        Self::Fetch { path: file.path.to_string(), reason: reason.to_string() }
    }
}
