//! Takes bundles in: what is signed, what is missing, and what is listed then.
//!
//! Blobs come one by one and are held from then on; nothing lists them before everything is there. Then the bundle is kept in
//! the place of the one before of its key and selection, and every remote that it concerns gets the documents of all bundles,
//! joined. An import that ends anywhere in between is gone on with by the next one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::api::{ImportPlan, ImportReport, MissingVolume, RefreshReport, RefreshResult};
use crate::bundle::arrival::{Arrival, expected};
use crate::bundle::error::NotImported;
use crate::bundle::outlook::{Outlook, Prospect};
use crate::cache::blocking;
use crate::digest::Digest;
use crate::library::Library;
use crate::library::intake::{self, Sent, Supply};
use crate::manifest::Manifest;
use crate::refresh::desk::NoRefresh;
use crate::seal::PublicKey;
use crate::store::imports::Imported;
use crate::store::{imports, keys};

/// So many bundles can be on their way in at once; earlier ones are forgotten, and begun again.
const MOST_ARRIVALS: usize = 4;
/// Blobs belong to no remote before they are listed; this is whom logs name for them.
const ON_THE_WAY: &str = "bundle";

/// Remotes that a bundle brings, for whoever knows which there are.
#[derive(Debug)]
pub struct Newcomers {
    /// Their names.
    pub names: Vec<String>,
    /// Only say whether they can be had.
    pub is_trial: bool,
    /// Told when they are there, or why they cannot be.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// Takes bundles in.
#[derive(Debug)]
pub struct Importer {
    library: Arc<Library>,
    newcomers: mpsc::Sender<Newcomers>,
    arrivals: Mutex<VecDeque<Arc<Arrival>>>,
    /// Held by whoever changes what is listed.
    turn: tokio::sync::Mutex<()>,
}

impl Importer {
    /// An importer to which nothing came yet.
    pub fn new(library: Arc<Library>, newcomers: mpsc::Sender<Newcomers>) -> Self {
        Self { library, newcomers, arrivals: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Looks at a manifest, and says what is wanted of its bundle.
    pub async fn begin(&self, text: Bytes, signature: Bytes, allow_rollback: bool) -> Result<ImportPlan, NotImported> {
        let (arrival, imported) = self
            .with_store(move |disk, layout| {
                let trusted = keys::trusted(disk, layout)?;
                let arrival = Arrival::new(&trusted, text, signature, allow_rollback);
                let imported = imports::load(disk, layout)?;
                Ok((arrival, imported))
            })
            .await?;
        let mut arrival = arrival?;
        arrival.kept = check_order(&arrival, &imported)?.filter(|known| known.text == arrival.text).cloned();
        let plan = self.plan(&arrival)?;
        self.with_arrivals(|arrivals| {
            arrivals.retain(|other| other.id != arrival.id);
            arrivals.push_front(Arc::new(arrival));
            arrivals.truncate(MOST_ARRIVALS);
        });
        Ok(plan)
    }

    fn plan(&self, arrival: &Arrival) -> Result<ImportPlan, NotImported> {
        let is_known = arrival.kept.is_some();
        let documents = arrival.rendered().filter(|_| !is_known);
        let books = self.library.cache.books();
        let (bytes, capacity) = (arrival.manifest.size(), books.limits().capacity_bytes);
        if bytes > capacity {
            // One file would push the other out.
            return Err(NotImported::BlobsTooLarge { bytes, capacity });
        }
        let blobs = arrival.manifest.blobs().map(|(_, file)| file);
        let wanted = books.read(|ledger| blobs.filter(|file| !ledger.has(expected(file))).map(|file| file.path.to_string()).collect());
        let documents = documents.map(|document| document.path.to_string()).collect();
        Ok(ImportPlan { id: arrival.id.to_string(), is_known, documents, blobs: wanted })
    }

    /// The bundle with this id.
    pub fn arrival(&self, id: Digest) -> Result<Arc<Arrival>, NotImported> {
        let found = self.with_arrivals(|arrivals| arrivals.iter().find(|arrival| arrival.id == id).cloned());
        found.ok_or(NotImported::Forgotten)
    }

    fn with_arrivals<T>(&self, act: impl FnOnce(&mut VecDeque<Arc<Arrival>>) -> T) -> T {
        act(&mut self.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a blob in. What is held already is read past.
    pub async fn take(&self, arrival: &Arrival, digest: Digest, mut supply: Supply) -> Result<(), NotImported> {
        let file = arrival.blob(digest)?;
        let sent = Sent { digest, size: file.size };
        let taken = intake::take(&self.library.cache, &ON_THE_WAY.into(), sent, &mut supply).await;
        taken.map(drop).map_err(|reason| NotImported::Blob { path: file.path.clone(), reason })
    }

    /// What would become of every remote; whatever keeps the bundle from being taken is an error.
    pub async fn look(&self, arrival: &Arc<Arrival>) -> Result<ImportReport, NotImported> {
        let outlook = self.outlook(arrival).await?;
        self.house(&outlook, true).await?;
        Ok(report(arrival, &outlook, false))
    }

    /// Lists a bundle, if all that it names is held.
    pub async fn commit(&self, arrival: &Arc<Arrival>) -> Result<ImportReport, NotImported> {
        let _turn = self.turn.lock().await;
        let outlook = self.outlook(arrival).await?;
        if !outlook.missing.is_empty() {
            return Ok(report(arrival, &outlook, false));
        }
        self.house(&outlook, true).await?;
        let bundle = arrival.whole()?;
        if !outlook.is_known {
            if arrival.kept.is_some() {
                // Another one came in its place meanwhile, and its documents were not sent for that.
                return Err(NotImported::Forgotten);
            }
            self.with_store(move |disk, layout| imports::save(disk, layout, &bundle)).await?;
        }
        self.house(&outlook, false).await?;
        for Prospect { remote, documents, .. } in &outlook.remotes {
            let name = format!("{} of {}", arrival.manifest.generation, arrival.manifest.created_at);
            let fed = self.library.desk.feed(remote, name, documents.clone()).await;
            served(fed).map_err(|reason| NotImported::NotServed { remote: remote.clone(), reason })?;
        }
        self.library.written_down().await;
        self.with_arrivals(|arrivals| arrivals.retain(|other| other.id != arrival.id));
        tracing::info!(generation = arrival.manifest.generation, key = %arrival.key, "a bundle is listed");
        Ok(report(arrival, &outlook, true))
    }

    async fn outlook(&self, arrival: &Arc<Arrival>) -> Result<Outlook, NotImported> {
        let (cache, arrival) = (Arc::clone(&self.library.cache), Arc::clone(arrival));
        let outlook = blocking(move || {
            let imported = imports::load(&**cache.store().disk(), cache.store().layout())?;
            let catalog = cache.current().load();
            Ok(check_order(&arrival, &imported).map(drop).and_then(|()| Outlook::new(&arrival, imported, &catalog, cache.books())))
        });
        outlook.await?
    }

    /// Has there be all remotes that a bundle brings, or asks whether there could be.
    async fn house(&self, outlook: &Outlook, is_trial: bool) -> Result<(), NotImported> {
        let (reply, housed) = oneshot::channel();
        let names = outlook.remotes.iter().filter(|prospect| prospect.is_in_it).map(|prospect| prospect.remote.clone()).collect();
        let ending = |()| NotImported::Remote("the program is ending".to_owned());
        self.newcomers.send(Newcomers { names, is_trial, reply }).await.map_err(|_| ending(()))?;
        housed.await.map_err(|_| ending(()))?.map_err(NotImported::Remote)
    }

    /// The keys whose bundles are taken.
    pub async fn trusted(&self) -> Result<Vec<PublicKey>, NotImported> {
        Ok(self.with_store(keys::trusted).await?)
    }

    /// Takes the bundles of a key from now on.
    pub async fn trust(&self, key: PublicKey) -> Result<(), NotImported> {
        Ok(self.with_store(move |disk, layout| keys::trust(disk, layout, &key)).await?)
    }

    /// Takes the bundles of a key no more; whether it was trusted.
    pub async fn distrust(&self, name: String) -> Result<bool, NotImported> {
        Ok(self.with_store(move |disk, layout| keys::distrust(disk, layout, &name)).await?)
    }

    async fn with_store<T: Send + 'static>(
        &self,
        act: impl FnOnce(&dyn crate::disk::Disk, &crate::store::layout::Layout) -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        let store = Arc::clone(self.library.cache.store());
        blocking(move || act(&**store.disk(), store.layout())).await
    }
}

/// The bundle in whose place another one comes; an error if that would be a step back.
fn check_order<'a>(arrival: &Arrival, imported: &'a [Imported]) -> Result<Option<&'a Imported>, NotImported> {
    let known = imported.iter().find(|bundle| bundle.place == arrival.place);
    match known {
        Some(known) if known.manifest.generation > arrival.manifest.generation && !arrival.allow_rollback => {
            Err(NotImported::Older { theirs: arrival.manifest.generation, ours: known.manifest.generation })
        }
        known => Ok(known),
    }
}

/// Whether documents are served now.
fn served(fed: Result<RefreshReport, NoRefresh>) -> Result<(), String> {
    let report = fed.map_err(|reason| reason.to_string())?;
    match report.result {
        RefreshResult::Changed | RefreshResult::Unchanged => Ok(()),
        RefreshResult::Refused | RefreshResult::Failed => Err(report.reason.unwrap_or_default()),
    }
}

fn report(arrival: &Arrival, outlook: &Outlook, listed: bool) -> ImportReport {
    let Manifest { generation, created_at, .. } = &arrival.manifest;
    let missing = outlook.missing.iter().fold(BTreeMap::new(), |mut volumes: BTreeMap<usize, MissingVolume>, (volume, file)| {
        let missing = volumes.entry(*volume).or_insert_with(|| MissingVolume { volume: volume + 1, blobs: 0, size: 0 });
        missing.blobs += 1;
        missing.size += file.size;
        volumes
    });
    ImportReport {
        generation: *generation,
        created_at: created_at.clone(),
        signed_by: arrival.key.to_string(),
        listed,
        remotes: outlook.remotes.iter().map(Prospect::shown).collect(),
        missing: missing.into_values().collect(),
    }
}
