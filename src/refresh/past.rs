//! The documents that were taken so far: the newest, those before it, and what upstream said of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};

use crate::cache::blocking;
use crate::http::path::StreamPath;
use crate::publish::command::Documents;
use crate::refresh::gathered::Gathered;
use crate::revalidation::census::Census;
use crate::revalidation::retirement::next_to_go;
use crate::simplestreams::snapshot::{Snapshot, Source};
use crate::store::Store;
use crate::store::snapshots::{self, Validators, ValidatorsByUrl};

/// A remote's documents, newest first, as they are on the disk.
#[derive(Debug)]
pub struct Past {
    store: Arc<Store>,
    remote: Arc<str>,
    snapshots: Vec<Arc<Snapshot>>,
    census: Option<Census>,
    validators: ValidatorsByUrl,
    is_stale: bool,
}

impl Past {
    /// Reads what is on the disk. What cannot be read is as good as absent: upstream has it.
    pub async fn load(store: Arc<Store>, remote: Arc<str>) -> Self {
        let (from, name) = (Arc::clone(&store), Arc::clone(&remote));
        let loaded = blocking(move || {
            let (disk, layout) = (&**from.disk(), from.layout());
            let snapshots = snapshots::load(disk, layout, &name)?;
            let census = snapshots.first().and_then(|newest| Census::of(newest).ok());
            Ok((snapshots, census, snapshots::load_validators(disk, layout, &name)))
        });
        let (snapshots, census, validators) = loaded.await.unwrap_or_else(|error| {
            tracing::warn!(%remote, %error, "cannot read the documents that were kept");
            Default::default()
        });
        let snapshots: Vec<_> = snapshots.into_iter().map(Arc::new).collect();
        Self { store, remote, snapshots, census, validators, is_stale: false }
    }

    /// The newest documents, if there are any.
    pub fn newest(&self) -> Option<&Snapshot> {
        self.snapshots.first().map(|snapshot| &**snapshot)
    }

    /// What the newest documents have.
    pub fn census(&self) -> Option<&Census> {
        self.census.as_ref()
    }

    /// What there is to serve.
    pub fn documents(&self) -> Documents {
        let retired = self.snapshots.iter().skip(1).cloned().collect();
        Documents { newest: self.snapshots.first().cloned(), retired, is_stale: self.is_stale }
    }

    /// Notes whether the documents may be behind upstream's; whether that is news.
    pub fn set_stale(&mut self, is_stale: bool) -> bool {
        std::mem::replace(&mut self.is_stale, is_stale) != is_stale
    }

    /// What a URL said of the document at `path`, if we still have that very document.
    pub fn validators(&self, url: &str, path: &StreamPath) -> Option<(&Validators, &Source)> {
        let validators = self.validators.get(url)?.get(path.as_str())?;
        let source = self.newest()?.document(path)?;
        (source.digest.to_string() == validators.digest).then_some((validators, source))
    }

    /// When documents are taken that come now: they keep the order of time even if the clock does not.
    pub fn next_time(&self, now: Timestamp) -> Timestamp {
        let after = self.newest().map(|newest| newest.accepted_at + 1.millisecond());
        after.map_or(now, |after| after.max(now))
    }

    /// Whether these are the documents that we have.
    pub fn has(&self, snapshot: &Snapshot) -> bool {
        let is_same = |newest: &Snapshot| newest.is_of_bundles() == snapshot.is_of_bundles() && newest.documents == snapshot.documents;
        self.newest().is_some_and(is_same)
    }

    /// Writes documents to the disk that may be taken. Until [`Self::replace`] nobody finds them there.
    pub async fn stage(&self, snapshot: Arc<Snapshot>) -> io::Result<()> {
        let (store, remote) = (Arc::clone(&self.store), Arc::clone(&self.remote));
        blocking(move || snapshots::stage(&**store.disk(), store.layout(), &remote, &snapshot)).await
    }

    /// Puts the documents that were staged in the place of the newest, on the disk first.
    pub async fn replace(&mut self, gathered: Gathered) -> io::Result<()> {
        let Gathered { snapshot, staged, census, validators } = gathered;
        staged?;
        let (store, remote, accepted_at) = (Arc::clone(&self.store), Arc::clone(&self.remote), snapshot.accepted_at);
        blocking(move || snapshots::settle(&**store.disk(), store.layout(), &remote, accepted_at)).await?;
        self.snapshots.insert(0, snapshot);
        self.census = Some(census);
        self.confirm(validators).await;
        Ok(())
    }

    /// Notes what upstream wants to see next time. If that cannot be written down, documents are asked for whole.
    pub async fn confirm(&mut self, (url, validators): (String, std::collections::BTreeMap<String, Validators>)) {
        if self.validators.get(&url) == Some(&validators) {
            return;
        }
        self.validators.insert(url, validators);
        let (store, remote, all) = (Arc::clone(&self.store), Arc::clone(&self.remote), self.validators.clone());
        if let Err(error) = blocking(move || snapshots::save_validators(&**store.disk(), store.layout(), &remote, &all)).await {
            tracing::warn!(remote = %self.remote, %error, "cannot note what upstream said of its documents");
        }
    }

    /// Lets go of documents that were replaced more than `grace` ago, and of some if there are too many; whether there were
    /// any.
    pub async fn retire(&mut self, now: Timestamp, grace: Duration) -> bool {
        let before = self.snapshots.len();
        while let Some(place) = next_to_go(&self.accepted(), now, grace) {
            let replaced_at = self.snapshots[place - 1].accepted_at;
            if replaced_at.checked_add(grace).is_ok_and(|over| over >= now) {
                tracing::warn!(remote = %self.remote, %replaced_at, "upstream publishes very often; letting go of documents before images.grace is over");
            }
            let snapshot = self.snapshots.remove(place);
            let (store, remote) = (Arc::clone(&self.store), Arc::clone(&self.remote));
            let removed = blocking(move || snapshots::remove(&**store.disk(), store.layout(), &remote, snapshot.accepted_at)).await;
            if let Err(error) = removed {
                tracing::warn!(remote = %self.remote, %error, "cannot remove old documents");
            }
        }
        self.snapshots.len() != before
    }

    fn accepted(&self) -> Vec<Timestamp> {
        self.snapshots.iter().map(|snapshot| snapshot.accepted_at).collect()
    }
}
