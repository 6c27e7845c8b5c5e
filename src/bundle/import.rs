//! Takes bundles in: what is signed, what is missing, and what is listed then.
//!
//! Blobs come one by one and are held from then on; nothing lists them before everything is there. Then the bundle is kept in
//! the place of the one before of its selection, and every remote that it concerns gets the documents of all bundles,
//! joined. An import that ends anywhere in between is gone on with by the next one.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::api::{ImportPlan, ImportReport, ImportedBundle};
use crate::bundle::arrival::Arrival;
use crate::bundle::belonging::claim;
use crate::bundle::error::NotImported;
use crate::bundle::joining::{listed, remotes};
use crate::bundle::offer::{before, called, consider, plan};
use crate::bundle::outcome::{NotServed, report, served};
use crate::bundle::outlook::{Outlook, Prospect, relied_on};
use crate::bundle::selections::{self, Forgotten};
use crate::cache::{Cache, blocking};
use crate::digest::Digest;
use crate::library::Library;
use crate::library::intake::{self, Sent};
use crate::library::supply::{Supply, Turns};
use crate::manifest::{BundlePath, Manifest};
use crate::refresh::desk::{NoRefresh, Occasion};
use crate::seal::PublicKey;
use crate::simplestreams::snapshot::Source;
use crate::store::{begun, imports, keys};

/// So many bundles can be on their way in at once; the one that nothing came of for the longest is forgotten.
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
    /// Told which of them were not offline before, or why they cannot be had.
    pub reply: oneshot::Sender<Result<Vec<String>, String>>,
}

/// Takes bundles in.
#[derive(Debug)]
pub struct Importer {
    library: Arc<Library>,
    newcomers: mpsc::Sender<Newcomers>,
    arrivals: Mutex<VecDeque<Arc<Arrival>>>,
    /// Who may read what commands handed over.
    pub turns: Turns,
    /// Held by whoever notes that something came.
    noting: tokio::sync::Mutex<()>,
    /// Held by whoever changes what is listed.
    turn: tokio::sync::Mutex<()>,
}

impl Importer {
    /// An importer to which nothing came yet.
    pub fn new(library: Arc<Library>, newcomers: mpsc::Sender<Newcomers>) -> Self {
        Self {
            library,
            newcomers,
            arrivals: Mutex::default(),
            turns: Turns::default(),
            noting: tokio::sync::Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Looks at a manifest, and says what is wanted of its bundle.
    pub async fn begin(&self, text: Bytes, signature: Bytes, allow_rollback: bool) -> Result<ImportPlan, NotImported> {
        let considered = self.with_cache(move |cache| {
            let arrival = consider(cache, text, signature, allow_rollback)?;
            let plan = plan(cache, &arrival)?;
            Ok((arrival, plan))
        });
        let (mut arrival, plan) = considered.await?;
        self.with_arrivals(|arrivals| {
            if let Some(before) = arrivals.iter().position(|other| other.id == arrival.id).and_then(|place| arrivals.remove(place)) {
                arrival.go_on_with(&before);
            }
            arrivals.push_front(Arc::new(arrival));
            arrivals.truncate(MOST_ARRIVALS);
        });
        Ok(plan)
    }

    /// The bundle with this id.
    pub fn arrival(&self, id: Digest) -> Result<Arc<Arrival>, NotImported> {
        let found = self.with_arrivals(|arrivals| {
            let place = arrivals.iter().position(|arrival| arrival.id == id)?;
            // What is on its way is not the one to be forgotten.
            let arrival = arrivals.remove(place)?;
            arrivals.push_front(Arc::clone(&arrival));
            Some(arrival)
        });
        found.ok_or(NotImported::Forgotten)
    }

    /// Takes a document in.
    pub async fn add(&self, arrival: Arc<Arrival>, path: BundlePath, bytes: Bytes) -> Result<(), NotImported> {
        blocking(move || Ok(arrival.add(&path, bytes))).await?
    }

    /// Takes a blob in. What is held already is read past. What was begun is ended in order also if whoever sends it leaves.
    pub async fn take(&self, arrival: &Arrival, digest: Digest, mut supply: Supply) -> Result<(), NotImported> {
        let sent = Sent { digest, size: arrival.size(digest)? };
        self.note(arrival).await?;
        let cache = Arc::clone(&self.library.cache);
        let taking = async move { intake::take(&cache, &ON_THE_WAY.into(), sent, &mut supply).await.map(drop) };
        let taken = self.library.until_the_end(taking).await;
        taken.map_err(|reason| NotImported::Blob { path: BundlePath::Blob(digest), reason })
    }

    /// Notes that something of a bundle is here: it stays until the rest is, or somebody forgets it. What is listed stays for that.
    async fn note(&self, arrival: &Arrival) -> Result<(), NotImported> {
        if arrival.kept.is_some() {
            return Ok(());
        }
        let (id, place, text, blobs) = (arrival.id, arrival.place, arrival.text.clone(), arrival.blobs().collect());
        let _noting = self.noting.lock().await;
        if self.library.cache.begun().keeps(place, id) {
            return Ok(());
        }
        self.with_cache(move |cache| {
            begun::note(&**cache.store().disk(), cache.store().layout(), place, &text)?;
            cache.begun().keep(place, id, blobs);
            Ok(())
        })
        .await
    }

    /// What would become of every remote; whatever keeps the bundle from being taken is an error.
    pub async fn look(&self, arrival: &Arc<Arrival>) -> Result<ImportReport, NotImported> {
        let outlook = self.outlook(arrival).await?;
        let newcomers = self.house(&outlook, true).await?;
        Ok(report(arrival, &outlook, &newcomers, false))
    }

    /// Lists a bundle, if all that it names is held.
    pub async fn commit(&self, arrival: &Arc<Arrival>) -> Result<ImportReport, NotImported> {
        let _turn = self.turn.lock().await;
        let _kept = self.keep_all(arrival).await?;
        let mut outlook = self.outlook(arrival).await?;
        if !outlook.strange.is_empty() {
            self.adopt(outlook.strange).await?;
            outlook = self.outlook(arrival).await?;
        }
        self.house(&outlook, true).await?;
        if !outlook.missing.is_empty() || !outlook.lacking.is_empty() {
            if outlook.missing.len() < arrival.manifest.blobs().count() {
                // It may have been here before, for somebody else.
                self.note(arrival).await?;
            }
            return Ok(report(arrival, &outlook, &[], false));
        }
        // A start that does not know yet what is held would list less than that.
        self.library.written_down().await;
        // Should the program end after this, there is a remote without documents; after the next, the next start goes on.
        let newcomers = self.house(&outlook, false).await?;
        self.keep(arrival, &outlook).await?;
        for prospect in &outlook.remotes {
            self.feed(arrival, prospect).await?;
        }
        self.library.written_down().await;
        let (place, text) = (arrival.place, arrival.text.clone());
        if let Err(error) = self.with_cache(move |cache| Ok(end(cache, place, &text)?)).await {
            // It is listed all the same, and the next start sees to it.
            tracing::warn!(%place, %error, "that a bundle is complete could not be noted");
        }
        tracing::info!(generation = arrival.manifest.generation, key = %arrival.key, "a bundle is listed");
        Ok(report(arrival, &outlook, &newcomers, true))
    }

    /// Has everything stay that a bundle brings or lists, until it is listed: it may be on its way out.
    async fn keep_all(&self, arrival: &Arc<Arrival>) -> Result<Kept, NotImported> {
        let (id, bundle) = (arrival.id, Arc::clone(arrival));
        let blobs = self.with_cache(move |_| relied_on(&bundle)).await?;
        let cache = Arc::clone(&self.library.cache);
        cache.begun().keep(id, id, blobs);
        Ok(Kept(cache, id))
    }

    /// Reads what was found in the store after a crash: the next start is to know of it, and nothing else is to be listed.
    async fn adopt(&self, strange: Vec<Digest>) -> Result<(), NotImported> {
        self.with_cache(move |cache| Ok(strange.into_iter().try_for_each(|digest| cache.adopt(digest))?)).await
    }

    /// Writes a bundle down in the place of the one before.
    async fn keep(&self, arrival: &Arc<Arrival>, outlook: &Outlook) -> Result<(), NotImported> {
        if outlook.is_known {
            return Ok(());
        }
        if arrival.kept.is_some() {
            // Another one came in its place meanwhile, and its documents were not sent for that.
            return Err(NotImported::Forgotten);
        }
        let bundle = arrival.whole()?;
        self.with_cache(move |cache| Ok(imports::save(&**cache.store().disk(), cache.store().layout(), &bundle)?)).await
    }

    /// Has a remote list what there is now.
    async fn feed(&self, arrival: &Arrival, prospect: &Prospect) -> Result<(), NotImported> {
        let Prospect { remote, is_in_it, documents, own, .. } = prospect;
        let (name, own) = (remote.clone(), own.clone());
        self.with_cache(move |cache| Ok(claim(cache, &name, &own)?)).await?;
        let fed = self.library.desk.feed(remote, called(&arrival.manifest), documents.clone(), Occasion::Import).await;
        // Documents may be the same, and what is held be listed anew.
        self.library.publisher.review(remote.as_str().into()).await.map_err(|_| NotImported::Ending)?;
        match served(fed) {
            // One that the bundle has no more may be asked by now, or be gone.
            Err(NotServed::NotFed(NoRefresh::NotOffline | NoRefresh::NoRemote)) if !is_in_it => Ok(()),
            served => served.map_err(|reason| NotImported::NotServed { remote: remote.clone(), reason: reason.to_string() }),
        }
    }

    /// Keeps what came in part before the program ended.
    pub fn resume(&self) -> io::Result<()> {
        let cache = &self.library.cache;
        for (place, manifest) in begun::load(&**cache.store().disk(), cache.store().layout())? {
            let blobs = manifest.iter().flat_map(Manifest::blobs).map(|(_, file)| file.sha256).collect();
            cache.begun().keep(place, manifest.map_or(place, |manifest| Digest::of(&manifest.to_json())), blobs);
        }
        Ok(())
    }

    /// Which bundles there are.
    pub async fn selections(&self) -> Result<Vec<ImportedBundle>, NotImported> {
        self.with_cache(selections::all).await
    }

    /// Lets go of what came of a bundle, or of a selection and what only that lists: after grace. What people are told.
    pub async fn forget(&self, id: String) -> Result<String, NotImported> {
        let _turn = self.turn.lock().await;
        let Forgotten { remotes, said } = self.with_cache(move |cache| selections::forget(cache, &id)).await?;
        self.feed_all(&remotes).await?;
        self.library.written_down().await;
        Ok(said)
    }

    /// Has every remote list what its bundles say, should the last import have ended in between or its documents be damaged.
    pub async fn settle(&self) -> Result<(), NotImported> {
        let _turn = self.turn.lock().await;
        self.with_cache(|cache| {
            let (disk, layout) = (&**cache.store().disk(), cache.store().layout());
            let listed = imports::load(disk, layout)?.0;
            Ok(listed.iter().try_for_each(|bundle| end(cache, bundle.place, &bundle.text))?)
        })
        .await?;
        self.feed_all(&BTreeSet::new()).await
    }

    /// Has all remotes that bundles ever brought list what bundles say now; `emptied` are those that list less by somebody's wish.
    /// The first that does not is told when all others do.
    async fn feed_all(&self, emptied: &BTreeSet<String>) -> Result<(), NotImported> {
        let emptied = emptied.clone();
        let joined = self.with_cache(move |cache| {
            let (disk, layout) = (&**cache.store().disk(), cache.store().layout());
            let (imported, unreadable) = imports::load(disk, layout)?;
            if let Some(other) = unreadable.into_iter().next() {
                return Err(other.into());
            }
            let listing: BTreeSet<String> = imported.iter().flat_map(|bundle| remotes(&bundle.manifest)).collect();
            let occasion = |name: &String| match emptied.contains(name) {
                true => Occasion::Import,
                false if listing.contains(name) => Occasion::Start,
                false => Occasion::StartWithNothing,
            };
            let names = &imports::remotes(disk, layout)? | &listing;
            let fed = names.into_iter().map(|name| (listed(&imported, &name), occasion(&name), name));
            Ok(fed.collect::<Vec<(Vec<Source>, Occasion, String)>>())
        });
        let mut first = Ok(());
        for (documents, occasion, remote) in joined.await? {
            let fed = self.library.desk.feed(&remote, "as imported".to_owned(), documents, occasion).await;
            self.library.publisher.review(remote.as_str().into()).await.map_err(|_| NotImported::Ending)?;
            match served(fed) {
                // It may be asked by now, or be gone.
                Ok(()) | Err(NotServed::NotFed(NoRefresh::NotOffline | NoRefresh::NoRemote)) => {}
                Err(reason) => first = first.and(Err(NotImported::NotServed { remote, reason: reason.to_string() })),
            }
        }
        first
    }

    async fn outlook(&self, arrival: &Arc<Arrival>) -> Result<Outlook, NotImported> {
        let arrival = Arc::clone(arrival);
        let look = move |cache: &Cache| Outlook::new(&arrival, before(cache, &arrival)?, &cache.current().load(), cache.books());
        self.with_cache(look).await
    }

    /// Has there be all remotes that a bundle brings, or asks whether there could be; those that were not offline before.
    async fn house(&self, outlook: &Outlook, is_trial: bool) -> Result<Vec<String>, NotImported> {
        let (reply, housed) = oneshot::channel();
        let names = outlook.remotes.iter().filter(|prospect| prospect.is_in_it).map(|prospect| prospect.remote.clone()).collect();
        self.newcomers.send(Newcomers { names, is_trial, reply }).await.map_err(|_| NotImported::Ending)?;
        housed.await.map_err(|_| NotImported::Ending)?.map_err(NotImported::Remote)
    }

    /// The keys whose bundles are taken.
    pub async fn trusted(&self) -> Result<Vec<PublicKey>, NotImported> {
        self.with_cache(|cache| Ok(keys::trusted(&**cache.store().disk(), cache.store().layout())?)).await
    }

    /// Takes the bundles of a key from now on.
    pub async fn trust(&self, key: PublicKey) -> Result<(), NotImported> {
        self.with_cache(move |cache| Ok(keys::trust(&**cache.store().disk(), cache.store().layout(), &key)?)).await
    }

    /// Takes the bundles of a key no more; whether it was trusted.
    pub async fn distrust(&self, name: String) -> Result<bool, NotImported> {
        self.with_cache(move |cache| Ok(keys::distrust(&**cache.store().disk(), cache.store().layout(), &name)?)).await
    }

    fn with_arrivals<T>(&self, act: impl FnOnce(&mut VecDeque<Arc<Arrival>>) -> T) -> T {
        act(&mut self.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does what may wait for the disk, or takes long, where that delays nobody.
    async fn with_cache<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Cache) -> Result<T, NotImported> + Send + 'static,
    ) -> Result<T, NotImported> {
        let cache = Arc::clone(&self.library.cache);
        blocking(move || io::Result::Ok(act(&cache))).await?
    }
}

/// What stays for as long as somebody has this.
struct Kept(Arc<Cache>, Digest);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.begun().end(self.1);
    }
}

/// Notes that nothing more of this very bundle is to come.
fn end(cache: &Cache, place: Digest, text: &[u8]) -> io::Result<()> {
    let (disk, layout) = (&**cache.store().disk(), cache.store().layout());
    if begun::is(disk, layout, place, text)? {
        begun::forget(disk, layout, place)?;
        cache.begun().end(place);
    }
    Ok(())
}
