//! What the publisher can be told.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::catalog::mode::Mode;
use crate::digest::Digest;
use crate::render::policy::Slot;
use crate::selection::Selection;
use crate::simplestreams::snapshot::Snapshot;

/// A change to what is served.
#[derive(Debug)]
pub enum Command {
    /// A remote has other documents.
    Replace {
        /// Which.
        remote: Arc<str>,
        /// Its documents.
        documents: Documents,
        /// Told when it is served.
        done: oneshot::Sender<()>,
    },
    /// The configuration is another.
    Configure {
        /// What it says.
        settings: Settings,
        /// Told when it is served.
        done: oneshot::Sender<()>,
    },
    /// Other images of a remote are held than before.
    Review {
        /// Which.
        remote: Arc<str>,
        /// Told when it is served.
        done: oneshot::Sender<()>,
    },
    /// Versions of a remote wait for being held no longer.
    Release {
        /// Which.
        remote: Arc<str>,
        /// The versions.
        slots: Vec<Slot>,
        /// Told when they are served.
        done: oneshot::Sender<()>,
    },
    /// An image's bytes have another fingerprint than its document says.
    Hide {
        /// The key of fingerprint and files.
        image: Digest,
        /// Told when it is not listed any more.
        done: oneshot::Sender<()>,
    },
}

/// A remote's documents.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// The newest; `None` if there never were any.
    pub newest: Option<Arc<Snapshot>>,
    /// Those before, newest first, whose files are served until their grace is over.
    pub retired: Vec<Arc<Snapshot>>,
    /// Whether upstream could not be asked lately.
    pub is_stale: bool,
}

/// What the publisher needs of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Each remote, in the order of `server.root`.
    pub remotes: Vec<RemoteSettings>,
}

/// What it needs to know of a remote.
#[derive(Clone, Debug)]
pub struct RemoteSettings {
    /// Its name.
    pub name: Arc<str>,
    /// What of it is listed.
    pub selection: Selection,
    /// Whether its images are listed for LXD and Incus alike.
    pub twins: bool,
    /// How it is held. Of one that is offline only what is held can be listed.
    pub mode: Mode,
}
