//! Brings all files of an image in, and says how far it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::api::Step;
use crate::cache::Cache;
use crate::fetch::Fetcher;
use crate::fetch::download::Wanted;
use crate::fetch::holding::hold;
use crate::ledger::decision::Decision;
use crate::ledger::record::Record;
use crate::library::deciding::Decisions;
use crate::library::error::LibraryError;
use crate::library::names::Named;
use crate::publish::Publisher;

/// How often it is looked whether an image is recorded, if nobody says so.
const PAUSE: Duration = Duration::from_millis(200);
/// How long it may take to compute an image's fingerprint and to record it.
const RECORDING: Duration = Duration::from_mins(30);

/// A copy that is to be made.
#[derive(Debug)]
pub struct Copy {
    /// What is held.
    pub cache: Arc<Cache>,
    /// Who brings files in.
    pub fetcher: Arc<Fetcher>,
    /// Who serves what changed.
    pub publisher: Publisher,
    /// Where it is written down that the image is to stay.
    pub decisions: Arc<Decisions>,
    /// Whether it is to stay until a person says otherwise, and then whether it is kept up to date.
    pub kept: Option<bool>,
}

impl Copy {
    /// Makes it. Whoever listens may leave.
    pub async fn run(self, named: Named, steps: mpsc::Sender<Step>) {
        let fingerprint = named.image.fingerprint;
        let total = named.image.size();
        let tell = |done| drop(steps.try_send(Step::Progress { done, total }));
        let step = match self.bring(&named, tell).await {
            Ok(()) => Step::Done { text: fingerprint.to_string() },
            Err(error) => {
                tracing::warn!(%fingerprint, %error, "an image could not be copied");
                Step::Failed { error: error.to_string() }
            }
        };
        drop(steps.send(step).await);
    }

    /// Brings it in, and tells how many bytes of it are here.
    pub async fn bring(&self, named: &Named, tell: impl Fn(u64)) -> Result<(), LibraryError> {
        let mut before = 0;
        self.cache.forget_unrecorded(named.image.fingerprint);
        for file in &named.image.files {
            let wanted = Wanted::of(&named.remote, file);
            let held = hold(&self.fetcher, &wanted, |received| tell(before + received)).await;
            before += held.map_err(|reason| LibraryError::not_had(file, &reason))?;
        }
        let record = self.recorded(named).await?;
        if let Some(auto_update) = self.kept {
            let keep =
                move |decision: &mut Decision| *decision = Decision { kept: true, auto_update: Some(auto_update), ..decision.clone() };
            self.decisions.change(&record, keep).await?;
        }
        Ok(())
    }

    /// Waits until it is known whether the files together are the image.
    async fn recorded(&self, named: &Named) -> Result<Record, LibraryError> {
        let (started, fingerprint) = (Instant::now(), named.image.fingerprint);
        let mut generations = self.publisher.generations();
        // What was held already is looked at with the next generation.
        self.publisher.review(Arc::clone(&named.remote)).await?;
        loop {
            if let Some(record) = self.cache.books().image(fingerprint) {
                return Ok(record);
            }
            // One that is wrong is listed no more.
            let is_listed = self.cache.current().load().remotes.get(&named.remote).is_some_and(|remote| remote.has(fingerprint));
            if !is_listed {
                return Err(LibraryError::Wrong);
            }
            if started.elapsed() > RECORDING || self.cache.is_unrecorded(fingerprint) {
                return Err(LibraryError::NotRecorded);
            }
            // A generation comes with every image; one that came already is seen on the next look.
            drop(tokio::time::timeout(PAUSE, generations.changed()).await);
        }
    }
}
