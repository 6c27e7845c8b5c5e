//! Where refreshes are asked for, and where documents are given that came in bundles.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use crate::api::RefreshReport;
use crate::simplestreams::snapshot::Source;

/// A wish for a refresh now.
#[derive(Debug)]
pub enum Demand {
    /// A person waits for the outcome.
    Person {
        /// Take what comes.
        accept: bool,
        /// Who waits.
        reply: oneshot::Sender<RefreshReport>,
    },
    /// Upstream answered 404 for a file that it lists.
    Gone,
}

/// Documents that came in bundles, for a remote that is offline.
#[derive(Debug)]
pub struct Fed {
    /// The bundle that they came in last.
    pub bundle: String,
    /// The documents.
    pub documents: Vec<Source>,
    /// Why they are given now.
    pub occasion: Occasion,
    /// Who waits.
    pub reply: oneshot::Sender<RefreshReport>,
}

/// Why documents of bundles are given to a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A bundle was imported.
    Import,
    /// The program starts. What upstream sent in between stays.
    Start,
    /// The program starts, and no bundle lists anything for it. It may never have: an import ended before its bundle was listed.
    StartWithNothing,
}

/// Who keeps the documents of a remote.
#[derive(Clone, Debug)]
pub enum Keeper {
    /// Asks upstream for them.
    Asking(mpsc::Sender<Demand>),
    /// Takes what bundles bring.
    Fed(mpsc::Sender<Fed>),
}

/// Why a refresh cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRefresh {
    /// There is no such remote.
    #[error("there is no remote of that name")]
    NoRemote,
    /// Nobody is asked for it, unless bundles bring it.
    #[error("it is offline; set remotes.NAME.mode to have an image server asked")]
    Offline,
    /// Its documents are upstream's.
    #[error("it is not offline; set remotes.NAME.mode to \"offline\" for it to be fed by bundles")]
    NotOffline,
    /// Its task is gone: it was reconfigured, or the program ends.
    #[error("the remote is being reconfigured; try again")]
    Stopped,
}

/// The keepers of all remotes, by name.
#[derive(Debug, Default)]
pub struct Desk(ArcSwap<HashMap<Arc<str>, Keeper>>);

impl Desk {
    /// Takes these keepers in the place of the ones before.
    pub fn staff(&self, keepers: HashMap<Arc<str>, Keeper>) {
        self.0.store(Arc::new(keepers));
    }

    /// Gives a remote documents that came in bundles, and waits until they are served.
    pub async fn feed(&self, remote: &str, bundle: String, documents: Vec<Source>, occasion: Occasion) -> Result<RefreshReport, NoRefresh> {
        let Keeper::Fed(keeper) = self.keeper(remote)? else { return Err(NoRefresh::NotOffline) };
        let (reply, report) = oneshot::channel();
        keeper.send(Fed { bundle, documents, occasion, reply }).await.map_err(|_| NoRefresh::Stopped)?;
        report.await.map_err(|_| NoRefresh::Stopped)
    }

    /// Refreshes a remote and waits for the outcome. It goes on if the one who waits leaves.
    pub async fn refresh(&self, remote: &str, accept: bool) -> Result<RefreshReport, NoRefresh> {
        let Keeper::Asking(refresher) = self.keeper(remote)? else { return Err(NoRefresh::Offline) };
        let (reply, report) = oneshot::channel();
        refresher.send(Demand::Person { accept, reply }).await.map_err(|_| NoRefresh::Stopped)?;
        report.await.map_err(|_| NoRefresh::Stopped)
    }

    /// Passes on that a listed file of a remote is gone. If its refresher is busy, it sees that by itself.
    pub fn gone(&self, remote: &str) {
        if let Ok(Keeper::Asking(refresher)) = self.keeper(remote) {
            drop(refresher.try_send(Demand::Gone));
        }
    }

    fn keeper(&self, remote: &str) -> Result<Keeper, NoRefresh> {
        self.0.load().get(remote).cloned().ok_or(NoRefresh::NoRemote)
    }
}
