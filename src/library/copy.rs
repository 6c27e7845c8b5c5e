//! Brings all files of an image in, and says how far it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cache::reader::Reader;
use crate::cache::{Cache, blocking};
use crate::digest::Fingerprint;
use crate::fetch::download::Wanted;
use crate::fetch::{Fetcher, Found};
use crate::ledger::decision::Decision;
use crate::library::error::LibraryError;
use crate::library::names::Named;
use crate::publish::Publisher;
use crate::simplestreams::file::ListedFile;
use crate::store::decisions;

/// How long an image server may take to accept to send a file.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is said how far a download is.
const PAUSE: Duration = Duration::from_millis(200);
/// How long it may take to compute an image's fingerprint and to record it.
const RECORDING: Duration = Duration::from_mins(30);

/// How far it is, and how it ended.
#[derive(Debug)]
pub enum Step {
    /// So many bytes are here, of so many.
    Progress(u64, u64),
    /// It is held.
    Done(Fingerprint),
    /// It is not.
    Failed(LibraryError),
}

/// A copy that is to be made.
#[derive(Debug)]
pub struct Copy {
    /// What is held.
    pub cache: Arc<Cache>,
    /// Who brings files in.
    pub fetcher: Arc<Fetcher>,
    /// Who serves what changed.
    pub publisher: Publisher,
    /// What the person decided about it.
    pub decision: Option<Decision>,
}

impl Copy {
    /// Makes it. Whoever listens may leave.
    pub async fn run(self, named: Named, steps: mpsc::Sender<Step>) {
        let fingerprint = named.image.fingerprint;
        let step = match self.bring(&named, &steps).await {
            Ok(()) => Step::Done(fingerprint),
            Err(error) => {
                tracing::warn!(%fingerprint, %error, "an image could not be copied");
                Step::Failed(error)
            }
        };
        drop(steps.send(step).await);
    }

    async fn bring(&self, named: &Named, steps: &mpsc::Sender<Step>) -> Result<(), LibraryError> {
        let total = named.image.size();
        let mut before = 0;
        for file in &named.image.files {
            before += self.bring_file(named, file, |received| drop(steps.try_send(Step::Progress(before + received, total)))).await?;
        }
        self.recorded(named).await?;
        if let Some(decision) = &self.decision {
            self.decide(named, decision.clone()).await?;
        }
        Ok(())
    }

    /// Waits until a file is held; its size.
    async fn bring_file(&self, named: &Named, file: &ListedFile, tell: impl Fn(u64)) -> Result<u64, LibraryError> {
        let failed = |reason: &dyn std::fmt::Display| LibraryError::Fetch { path: file.path.to_string(), reason: reason.to_string() };
        let wanted = Wanted { remote: Arc::clone(&named.remote), path: file.path.clone(), expected: file.expected };
        match self.fetcher.find(&wanted, 0).await.map_err(|error| failed(&error))? {
            Found::Held(blob) => Ok(blob.size),
            Found::Fetched(reader) | Found::Collapsed(reader) => landed(reader, tell).await.map_err(|reason| failed(&reason)),
        }
    }

    /// Waits until it is known whether the files together are the image.
    async fn recorded(&self, named: &Named) -> Result<(), LibraryError> {
        let (started, fingerprint) = (Instant::now(), named.image.fingerprint);
        let mut generations = self.publisher.generations();
        // What was held already is looked at with the next generation.
        self.publisher.review(Arc::clone(&named.remote)).await?;
        while self.cache.books().image(fingerprint).is_none() {
            // One that is wrong is listed no more.
            let is_listed = self.cache.current().load().remotes.get(&named.remote).is_some_and(|remote| remote.has(fingerprint));
            if !is_listed {
                return Err(LibraryError::Wrong);
            }
            if started.elapsed() > RECORDING {
                return Err(LibraryError::NotRecorded);
            }
            // A generation comes with every image; one that came already is seen on the next look.
            drop(tokio::time::timeout(PAUSE, generations.changed()).await);
        }
        Ok(())
    }

    async fn decide(&self, named: &Named, decision: Decision) -> Result<(), LibraryError> {
        let (cache, fingerprint) = (Arc::clone(&self.cache), named.image.fingerprint);
        blocking(move || {
            let (disk, layout) = (&**cache.store().disk(), cache.store().layout());
            let before = decisions::load(disk, layout, fingerprint)?;
            let decision = Decision { expires_at: before.expires_at, ..decision };
            decisions::save(disk, layout, fingerprint, &decision)?;
            cache.books().change(|ledger| ledger.amend(fingerprint, |record| decision.apply(record)));
            Ok(())
        })
        .await?;
        self.publisher.review(Arc::clone(&named.remote)).await?;
        Ok(())
    }
}

/// Waits until a download has landed, and tells how far it is.
async fn landed(mut reader: Reader, tell: impl Fn(u64)) -> Result<u64, String> {
    reader.answered(PATIENCE).await.map_err(|error| error.to_string())?;
    loop {
        match tokio::time::timeout(PAUSE, reader.landed()).await {
            Err(_) => tell(reader.received()),
            Ok(Ok(true)) => return Ok(reader.received()),
            Ok(Ok(false)) => return Err("there is no room for it; see storage.capacity and storage.min_free".to_owned()),
            Ok(Err(error)) => return Err(error.to_string()),
        }
    }
}
