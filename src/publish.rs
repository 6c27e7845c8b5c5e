//! Makes the next generation of what is served. Nobody else does.
//!
//! One task takes what changed (a remote's documents, the configuration, an image that turned out wrong), renders what
//! depends on it, and puts the new picture in the place of the old one, whole.

pub mod admission;
pub mod command;
pub mod recorder;
pub mod shelf;
pub mod stock;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::cache::Cache;
use crate::cache::current::Current;
use crate::digest::Digest;
use crate::metrics::Metrics;
use crate::publish::command::{Command, Documents, Settings};
use crate::publish::shelf::Shelf;
use crate::render::policy::Slot;

/// How many changes may wait for the publisher.
const QUEUED_COMMANDS: usize = 64;

/// Tells the publisher what changed.
#[derive(Clone, Debug)]
pub struct Publisher {
    commands: mpsc::Sender<Command>,
    current: Current,
    generations: watch::Receiver<u64>,
}

/// The publisher is gone: the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the publisher is gone; the program is ending")]
pub struct Gone;

impl Publisher {
    /// A publisher, and the task that it is, to be run by whoever owns it.
    pub fn new(cache: Arc<Cache>, metrics: Arc<Metrics>, wrong: Vec<Digest>) -> (Self, impl Future<Output = ()> + Send) {
        let (commands, queue) = mpsc::channel(QUEUED_COMMANDS);
        let current = cache.current().clone();
        let (generation, generations) = watch::channel(0);
        let publisher = Self { commands, current: current.clone(), generations };
        let shelf = Shelf::new(wrong, Arc::clone(&cache), metrics);
        (publisher, run(shelf, queue, current, generation, cache))
    }

    /// What is served now.
    pub fn current(&self) -> &Current {
        &self.current
    }

    /// Tells of every generation that is served.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.generations.clone()
    }

    /// Serves these documents of a remote; returns when they are.
    pub async fn replace(&self, remote: Arc<str>, documents: Documents) -> Result<(), Gone> {
        self.send(|done| Command::Replace { remote, documents, done }).await
    }

    /// Takes a new configuration; remotes that are not in it are not served any more.
    pub async fn configure(&self, settings: Settings) -> Result<(), Gone> {
        self.send(|done| Command::Configure { settings, done }).await
    }

    /// Lists the image with this key no more: its bytes have another fingerprint.
    pub async fn hide(&self, image: Digest) -> Result<(), Gone> {
        self.send(|done| Command::Hide { image, done }).await
    }

    /// Looks at what is held of a remote, and renders it anew if that makes a difference.
    pub async fn review(&self, remote: Arc<str>) -> Result<(), Gone> {
        self.send(|done| Command::Review { remote, done }).await
    }

    /// Lists versions of a remote that waited long enough for being held.
    pub async fn release(&self, remote: Arc<str>, slots: Vec<Slot>) -> Result<(), Gone> {
        self.send(|done| Command::Release { remote, slots, done }).await
    }

    async fn send(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) -> Result<(), Gone> {
        let (done, published) = oneshot::channel();
        self.commands.send(command(done)).await.map_err(|_| Gone)?;
        published.await.map_err(|_| Gone)
    }
}

async fn run(mut shelf: Shelf, mut queue: mpsc::Receiver<Command>, current: Current, generations: watch::Sender<u64>, cache: Arc<Cache>) {
    while let Some(command) = queue.recv().await {
        let generation = current.load().generation + 1;
        let has_other_documents = !matches!(command, Command::Review { .. });
        let change = move || {
            let done = shelf.apply(command);
            let catalog = shelf.catalog(generation);
            (shelf, catalog, done)
        };
        let Ok((kept, catalog, done)) = tokio::task::spawn_blocking(change).await else {
            tracing::error!("rendering failed; what was served goes on being served");
            return;
        };
        shelf = kept;
        current.store(catalog);
        if has_other_documents {
            cache.refusals().forget_gone();
        }
        generations.send_replace(generation);
        if done.send(()).is_err() {
            tracing::debug!(generation, "whoever changed this has left");
        }
    }
}
