//! Makes bundles: has everything held and signed, and hands it out file by file.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::api::Step;
use crate::bundle::error::NoBundle;
use crate::bundle::holding::{Holder, chosen};
use crate::bundle::plan::{Held, Order, Plan, seal, tree};
use crate::bundle::rendering::{listing_only, served};
use crate::bundle::stocktaking;
use crate::cache::blocking;
use crate::catalog::images::Image;
use crate::catalog::mode::Mode;
use crate::clock::Clock;
use crate::digest::Digest;
use crate::fetch::{Found, NotFound};
use crate::http::path::StreamPath;
use crate::library::Library;
use crate::library::error::LibraryError;
use crate::manifest::{BundlePath, Selection};
use crate::render::remote::Rendered;
use crate::seal::PublicKey;
use crate::simplestreams::file::ListedFile;
use crate::store::{imports, keys, snapshots};

/// So many bundles can be fetched at once; documents of earlier ones are forgotten.
const MOST_PLANS: usize = 8;
/// So often an export begins anew at most.
const MOST_TRIES: usize = 4;
/// How many steps may wait for whoever reads them.
const QUEUED_STEPS: usize = 64;

/// Makes bundles of what the library has.
#[derive(Debug)]
pub struct Exporter {
    library: Arc<Library>,
    clock: Arc<dyn Clock>,
    plans: Mutex<VecDeque<Arc<Plan>>>,
    /// Held by whoever gives a number or uses the key: there is one of each.
    desk: Arc<Mutex<()>>,
}

/// A file of a bundle.
#[derive(Debug)]
pub enum Content {
    /// In memory.
    Document(Bytes),
    /// In the store, or on its way there, and how many bytes it has.
    Blob(Found, u64),
}

impl Exporter {
    /// An exporter that has made nothing yet.
    pub fn new(library: Arc<Library>, clock: Arc<dyn Clock>) -> Self {
        Self { library, clock, plans: Mutex::default(), desk: Arc::default() }
    }

    /// Has everything held that an order names, and makes a bundle of it; its id is the last that is told.
    pub fn begin(self: &Arc<Self>, order: Order) -> mpsc::Receiver<Step> {
        let (steps, told) = mpsc::channel(QUEUED_STEPS);
        let exporter = Arc::clone(self);
        self.library.begin(async move {
            let step = match exporter.export_of_now(&order, &steps).await {
                Ok(plan) => Step::Done { text: plan.id.to_string() },
                Err(error) => Step::Failed { error: error.to_string() },
            };
            drop(steps.send(step).await);
        });
        told
    }

    /// The images that a selection means, and whether each is held. Nothing is fetched for that.
    pub async fn preview(&self, selection: Selection) -> Result<Vec<(Arc<str>, Image, bool)>, NoBundle> {
        let chosen = chosen(&self.library, selection).await?;
        let is_held = |image: &Image| self.library.cache.books().image(image.fingerprint).is_some();
        let of_remote = |(remote, images): (Arc<str>, Vec<Image>)| {
            images.into_iter().map(move |image| (Arc::clone(&remote), image)).collect::<Vec<_>>()
        };
        let images = chosen.into_iter().flat_map(of_remote);
        Ok(images
            .map(|(remote, image)| {
                let held = is_held(&image);
                (remote, image, held)
            })
            .collect())
    }

    /// How long a file can still be fetched that is not listed any more: `images.grace`.
    pub fn grace(&self) -> Duration {
        self.library.cache.rules().grace
    }

    /// The public half of the key that bundles are signed with.
    pub async fn key(&self) -> Result<PublicKey, NoBundle> {
        let (store, desk) = (Arc::clone(self.library.cache.store()), Arc::clone(&self.desk));
        let key = blocking(move || {
            let _turn = desk.lock().unwrap_or_else(PoisonError::into_inner);
            keys::own(&**store.disk(), store.layout())
        });
        Ok(key.await?.public())
    }

    /// What is held here, signed.
    pub async fn inventory(&self) -> Result<String, NoBundle> {
        let (cache, desk, now) = (Arc::clone(&self.library.cache), Arc::clone(&self.desk), self.clock.now());
        let made = blocking(move || {
            let _turn = desk.lock().unwrap_or_else(PoisonError::into_inner);
            let (disk, layout) = (&**cache.store().disk(), cache.store().layout());
            // What cannot be read is carried again.
            let (imported, _) = imports::load(disk, layout)?;
            let bundles = stocktaking::bundles(&imported, &keys::trusted(disk, layout)?);
            let inventory = stocktaking::inventory(cache.books(), &cache.current().load(), bundles, now);
            Ok(inventory.seal(&keys::own(disk, layout)?))
        });
        Ok(made.await?)
    }

    /// The bundle with this id.
    pub fn plan(&self, id: Digest) -> Result<Arc<Plan>, NoBundle> {
        let found = self.with_plans(|plans| {
            let place = plans.iter().position(|plan| plan.id == id)?;
            // What is being fetched is not the one to be forgotten.
            let plan = plans.remove(place)?;
            plans.push_front(Arc::clone(&plan));
            Some(plan)
        });
        found.ok_or(NoBundle::Forgotten)
    }

    /// A file of a bundle, from byte `from` on if it has to be fetched.
    pub async fn open(&self, plan: &Plan, path: &BundlePath, from: u64) -> Result<Content, NoBundle> {
        if let BundlePath::Blob(digest) = path {
            let wanted = plan.blob(*digest).ok_or(NoBundle::Forgotten)?;
            let found = self.library.fetcher.find(wanted, from).await;
            let unavailable = |reason: NotFound| LibraryError::Fetch { path: wanted.path.to_string(), reason: reason.to_string() };
            return Ok(Content::Blob(found.map_err(unavailable)?, wanted.expected.size.unwrap_or_default()));
        }
        plan.document(path).cloned().map(Content::Document).ok_or(NoBundle::Forgotten)
    }

    /// Begins anew if documents change meanwhile, as they do when a new version has just come.
    async fn export_of_now(&self, order: &Order, steps: &mpsc::Sender<Step>) -> Result<Arc<Plan>, NoBundle> {
        for _ in 1..MOST_TRIES {
            match self.export(order, steps).await {
                Err(NoBundle::Changed(remote)) => tracing::debug!(%remote, "documents changed during an export; it begins anew"),
                exported => return exported,
            }
        }
        self.export(order, steps).await
    }

    async fn export(&self, order: &Order, steps: &mpsc::Sender<Step>) -> Result<Arc<Plan>, NoBundle> {
        let holder = Holder { library: &self.library, steps };
        let chosen = holder.choose_newest(&order.selection).await?;
        self.tell_of_stranger(order, steps).await?;
        let there = order.have.iter().flat_map(|have| have.0.digests()).collect();
        let mut held: Vec<(Arc<str>, Held)> = holder.hold_all(&chosen, &there).await?.into_iter().collect();
        let catalog = self.library.cache.current().load();
        // Should a file go before the command has it, whoever has an image server is asked.
        held.sort_by_key(|(remote, _)| !catalog.mode(remote).is_some_and(Mode::has_upstream));
        let order_of_root = catalog.order.clone();
        let (mut documents, mut rendered) = (BTreeMap::new(), BTreeMap::new());
        for (remote, files) in &held {
            rendered.insert(Arc::clone(remote), self.add_documents(remote, files, &mut documents).await?);
        }
        let order = order.clone();
        let (store, now, desk) = (Arc::clone(self.library.cache.store()), self.clock.now(), Arc::clone(&self.desk));
        let sealed = blocking(move || {
            let _turn = desk.lock().unwrap_or_else(PoisonError::into_inner);
            let tree = tree(&order_of_root, &rendered, &held);
            Ok(seal(&store, &order, documents, tree, &held, now))
        });
        let plan = Arc::new(sealed.await??);
        self.with_plans(|plans| {
            plans.retain(|other| other.id != plan.id);
            plans.push_front(Arc::clone(&plan));
            plans.truncate(MOST_PLANS);
        });
        Ok(plan)
    }

    /// Says so if nobody here trusts whoever says what the site has. What it says wrongly is found missing there.
    async fn tell_of_stranger(&self, order: &Order, steps: &mpsc::Sender<Step>) -> Result<(), NoBundle> {
        let Some((_, signer)) = order.have.as_deref() else { return Ok(()) };
        let store = Arc::clone(self.library.cache.store());
        let trusted = blocking(move || keys::trusted(&**store.disk(), store.layout())).await?;
        if !trusted.contains(signer) {
            let text =
                format!("the inventory is signed by key {signer}, which is not trusted here ('cistern bundle trust' says whose are)");
            drop(steps.try_send(Step::Note { text }));
        }
        Ok(())
    }

    /// Adds what lists the files of a remote, and its documents as they came; what it lists.
    async fn add_documents(&self, remote: &Arc<str>, held: &Held, all: &mut BTreeMap<BundlePath, Bytes>) -> Result<Rendered, NoBundle> {
        let catalog = self.library.cache.current().load();
        let changed = || NoBundle::Changed(Arc::clone(remote));
        let listed = catalog.remotes.get(remote).cloned().ok_or_else(changed)?;
        let (store, name, files) = (Arc::clone(self.library.cache.store()), Arc::clone(remote), held.clone());
        let is_own = catalog.mode(remote) == Some(Mode::Own);
        let made = blocking(move || {
            let Some(listed) = served(&listed) else { return Ok(None) };
            let rendered = listing_only(&name, &listed, &files);
            let newest = if is_own { None } else { snapshots::load(&**store.disk(), store.layout(), &name)?.into_iter().next() };
            Ok(Some((rendered, newest)))
        });
        let (rendered, newest) = made.await?.ok_or_else(changed)?;
        let is_listed = |(file, ..): &(ListedFile, Digest, u64)| rendered.listing.has_claim(file.expected.claim);
        if !held.iter().all(is_listed) {
            return Err(changed());
        }
        let name = |kind: fn(String, StreamPath) -> BundlePath, path: StreamPath| kind(remote.to_string(), path);
        all.extend(rendered.documents.iter().map(|ready| (name(BundlePath::Rendered, ready.path.clone()), ready.bytes.clone())));
        all.extend(
            newest
                .into_iter()
                .flat_map(|snapshot| snapshot.documents)
                .map(|source| (name(BundlePath::Document, source.path), source.bytes)),
        );
        Ok(rendered)
    }

    fn with_plans<T>(&self, act: impl FnOnce(&mut VecDeque<Arc<Plan>>) -> T) -> T {
        act(&mut self.plans.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
