//! Where refreshes are asked for.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use crate::api::RefreshReport;

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

/// Why a refresh cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRefresh {
    /// There is no such remote.
    #[error("there is no remote of that name")]
    NoRemote,
    /// Nobody is asked for it.
    #[error("it is offline; set remotes.NAME.mode to have an image server asked")]
    Offline,
    /// Its task is gone: it was reconfigured, or the program ends.
    #[error("the remote is being reconfigured; try again")]
    Stopped,
}

/// The refreshers of all remotes, by name.
#[derive(Debug, Default)]
pub struct Desk(ArcSwap<HashMap<Arc<str>, Option<mpsc::Sender<Demand>>>>);

impl Desk {
    /// Takes these refreshers in the place of the ones before; a remote that is offline has none.
    pub fn staff(&self, refreshers: HashMap<Arc<str>, Option<mpsc::Sender<Demand>>>) {
        self.0.store(Arc::new(refreshers));
    }

    /// Refreshes a remote and waits for the outcome. It goes on if the one who waits leaves.
    pub async fn refresh(&self, remote: &str, accept: bool) -> Result<RefreshReport, NoRefresh> {
        let refresher = self.0.load().get(remote).cloned().ok_or(NoRefresh::NoRemote)?.ok_or(NoRefresh::Offline)?;
        let (reply, report) = oneshot::channel();
        refresher.send(Demand::Person { accept, reply }).await.map_err(|_| NoRefresh::Stopped)?;
        report.await.map_err(|_| NoRefresh::Stopped)
    }

    /// Passes on that a listed file of a remote is gone. If its refresher is busy, it sees that by itself.
    pub fn gone(&self, remote: &str) {
        if let Some(Some(refresher)) = self.0.load().get(remote) {
            drop(refresher.try_send(Demand::Gone));
        }
    }
}
