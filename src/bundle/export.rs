//! Makes bundles: has everything held, and signs what it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use foldhash::HashSet;
use tokio::sync::mpsc;

use crate::api::Step;
use crate::bundle::choosing::{Chosen, NotChosen, choose};
use crate::bundle::rendering::{listing_only, served};
use crate::bundle::split::{TooSmall, split};
use crate::cache::blocking;
use crate::catalog::listing::Image;
use crate::catalog::mode::Mode;
use crate::clock::Clock;
use crate::digest::{Claim, Digest, Expected};
use crate::fetch::download::Wanted;
use crate::fetch::holding::hold;
use crate::fetch::{Found, NotFound};
use crate::http::path::StreamPath;
use crate::ledger::holdings::Holdings;
use crate::library::Library;
use crate::library::error::LibraryError;
use crate::manifest::{BundlePath, FORMAT, File, Manifest, Selection};
use crate::seal::{PublicKey, SigningKey};
use crate::simplestreams::file::ListedFile;
use crate::store::{exports, keys, snapshots};

/// So many bundles can be fetched at once; documents of earlier ones are forgotten.
const MOST_PLANS: usize = 4;
/// How many steps may wait for whoever reads them.
const QUEUED_STEPS: usize = 64;

/// Makes bundles of what the library has.
#[derive(Debug)]
pub struct Exporter {
    library: Arc<Library>,
    clock: Arc<dyn Clock>,
    plans: Mutex<VecDeque<Arc<Plan>>>,
}

/// A bundle that is ready to be fetched.
#[derive(Debug)]
pub struct Plan {
    /// What tells it from every other: the digest of its manifest.
    pub id: Digest,
    /// Its manifest.
    pub manifest: Bytes,
    /// The manifest's signature.
    pub signature: Bytes,
    documents: BTreeMap<BundlePath, Bytes>,
    blobs: BTreeMap<Digest, Wanted>,
}

/// A file of a bundle.
#[derive(Debug)]
pub enum Content {
    /// In memory.
    Document(Bytes),
    /// In the store, or on its way there, and how many bytes it has.
    Blob(Found, u64),
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum NoBundle {
    /// Nothing is to be in it.
    #[error(transparent)]
    NotChosen(#[from] NotChosen),
    /// What is to be in it cannot be had.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// It fits nowhere.
    #[error(transparent)]
    TooSmall(#[from] TooSmall),
    /// Its remote has other documents by now.
    #[error("the documents of remote '{0}' changed meanwhile; run the export again")]
    Changed(Arc<str>),
    /// It was forgotten.
    #[error("the server does not know this bundle any more; run the export again")]
    Forgotten,
    /// The disk says no.
    #[error("the store cannot be used: {0}")]
    Store(#[from] std::io::Error),
}

/// What a bundle is to have.
#[derive(Clone, Debug)]
pub struct Order {
    /// Which images.
    pub selection: Selection,
    /// How large a volume may be.
    pub volume_size: Option<u64>,
    /// The key to sign with, from now on.
    pub key: Option<Arc<SigningKey>>,
}

/// The files of one remote: what is claimed of each, and what it is.
type Held = Vec<(ListedFile, Digest, u64)>;

impl Exporter {
    /// An exporter that has made nothing yet.
    pub fn new(library: Arc<Library>, clock: Arc<dyn Clock>) -> Self {
        Self { library, clock, plans: Mutex::default() }
    }

    /// Has everything held that an order names, and makes a bundle of it; its id is the last that is told.
    pub fn begin(self: &Arc<Self>, order: Order) -> mpsc::Receiver<Step> {
        let (steps, told) = mpsc::channel(QUEUED_STEPS);
        let exporter = Arc::clone(self);
        self.library.begin(async move {
            let step = match exporter.export(&order, &steps).await {
                Ok(plan) => Step::Done { text: plan.id.to_string() },
                Err(error) => Step::Failed { error: error.to_string() },
            };
            drop(steps.send(step).await);
        });
        told
    }

    /// The images that a selection means, and whether each is held. Nothing is fetched for that.
    pub async fn preview(&self, selection: Selection) -> Result<Vec<(Arc<str>, Image, bool)>, NoBundle> {
        let chosen = self.choose(selection).await?;
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

    /// The public half of the key that bundles are signed with.
    pub async fn key(&self) -> Result<PublicKey, NoBundle> {
        let store = Arc::clone(self.library.cache.store());
        Ok(blocking(move || keys::own(&**store.disk(), store.layout())).await?.public())
    }

    /// The bundle with this id.
    pub fn plan(&self, id: Digest) -> Result<Arc<Plan>, NoBundle> {
        self.with_plans(|plans| plans.iter().find(|plan| plan.id == id).cloned()).ok_or(NoBundle::Forgotten)
    }

    /// A file of a bundle, from byte `from` on if it has to be fetched.
    pub async fn open(&self, plan: &Plan, path: &BundlePath, from: u64) -> Result<Content, NoBundle> {
        if let BundlePath::Blob(digest) = path {
            let wanted = plan.blobs.get(digest).ok_or(NoBundle::Forgotten)?;
            let found = self.library.fetcher.find(wanted, from).await;
            let unavailable = |reason: NotFound| LibraryError::Fetch { path: wanted.path.to_string(), reason: reason.to_string() };
            return Ok(Content::Blob(found.map_err(unavailable)?, wanted.expected.size.unwrap_or_default()));
        }
        plan.documents.get(path).cloned().map(Content::Document).ok_or(NoBundle::Forgotten)
    }

    async fn export(&self, order: &Order, steps: &mpsc::Sender<Step>) -> Result<Arc<Plan>, NoBundle> {
        let chosen = self.choose(order.selection.clone()).await?;
        let held = self.hold_all(&chosen, steps).await?;
        let mut documents = BTreeMap::new();
        for (remote, files) in &held {
            self.add_documents(remote, files, &mut documents).await?;
        }
        let order = order.clone();
        let (store, now) = (Arc::clone(self.library.cache.store()), self.clock.now());
        let plan = blocking(move || Ok(seal(&store, &order, documents, &held, now))).await?;
        let plan = Arc::new(plan?);
        self.with_plans(|plans| {
            plans.retain(|other| other.id != plan.id);
            plans.push_front(Arc::clone(&plan));
            plans.truncate(MOST_PLANS);
        });
        Ok(plan)
    }

    async fn choose(&self, selection: Selection) -> Result<Chosen, NoBundle> {
        let (cache, own) = (Arc::clone(&self.library.cache), self.library.shelf.aliases());
        let chosen = blocking(move || {
            let is_held = |fingerprint| cache.books().image(fingerprint).is_some();
            Ok(choose(&cache.current().load(), &own, &selection, &is_held))
        });
        Ok(chosen.await??)
    }

    /// Has every file of every image held; what each is.
    async fn hold_all(&self, chosen: &Chosen, steps: &mpsc::Sender<Step>) -> Result<BTreeMap<Arc<str>, Held>, NoBundle> {
        let total = chosen.values().flatten().map(Image::size).sum();
        let (mut done, mut held) = (0, BTreeMap::new());
        for (remote, images) in chosen {
            let of_remote: &mut Held = held.entry(Arc::clone(remote)).or_default();
            let mut seen = HashSet::default();
            // Several images may share their metadata.
            for file in images.iter().flat_map(|image| &image.files).filter(|file| seen.insert(file.expected)) {
                let wanted = Wanted::of(remote, file);
                let tell = |received| drop(steps.try_send(Step::Progress { done: done + received, total }));
                done += hold(&self.library.fetcher, &wanted, tell).await.map_err(|reason| LibraryError::not_had(file, &reason))?;
                let blob = self.library.cache.find(file.expected).await?;
                let blob = blob.ok_or_else(|| LibraryError::not_had(file, &"it went again; is there room for all of them?"))?;
                of_remote.push((file.clone(), blob.digest, blob.size));
            }
        }
        Ok(held)
    }

    /// Adds what lists the files of a remote, and its documents as they came.
    async fn add_documents(&self, remote: &Arc<str>, held: &Held, all: &mut BTreeMap<BundlePath, Bytes>) -> Result<(), NoBundle> {
        let catalog = self.library.cache.current().load();
        let listed = catalog.remotes.get(remote).and_then(|remote| served(remote)).ok_or_else(|| NoBundle::Changed(Arc::clone(remote)))?;
        let learnt = held.iter().map(|(file, digest, _)| (file.expected.claim, *digest));
        let holdings = Holdings::new(held.iter().map(|(_, digest, size)| (*digest, *size)), learnt);
        let (store, name) = (Arc::clone(self.library.cache.store()), Arc::clone(remote));
        let is_own = catalog.mode(remote) == Some(Mode::Own);
        let made = blocking(move || {
            let rendered = listing_only(&name, &listed, holdings);
            let newest = if is_own { None } else { snapshots::load(&**store.disk(), store.layout(), &name)?.into_iter().next() };
            Ok((rendered, newest))
        });
        let (rendered, newest) = made.await?;
        let is_listed = |(file, ..): &(ListedFile, Digest, u64)| rendered.listing.has_claim(file.expected.claim);
        if !held.iter().all(is_listed) {
            return Err(NoBundle::Changed(Arc::clone(remote)));
        }
        let name = |kind: fn(String, StreamPath) -> BundlePath, path: StreamPath| kind(remote.to_string(), path);
        all.extend(rendered.documents.into_iter().map(|ready| (name(BundlePath::Rendered, ready.path), ready.bytes)));
        all.extend(
            newest
                .into_iter()
                .flat_map(|snapshot| snapshot.documents)
                .map(|source| (name(BundlePath::Document, source.path), source.bytes)),
        );
        Ok(())
    }

    fn with_plans<T>(&self, act: impl FnOnce(&mut VecDeque<Arc<Plan>>) -> T) -> T {
        act(&mut self.plans.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Names everything, and signs that.
fn seal(
    store: &crate::store::Store,
    order: &Order,
    documents: BTreeMap<BundlePath, Bytes>,
    held: &BTreeMap<Arc<str>, Held>,
    now: jiff::Timestamp,
) -> Result<Plan, NoBundle> {
    let (disk, layout) = (&**store.disk(), store.layout());
    let document = |(path, bytes): (&BundlePath, &Bytes)| File { path: path.clone(), size: bytes.len() as u64, sha256: Digest::of(bytes) };
    let files: Vec<File> = documents.iter().map(document).collect();
    let all = held.iter().flat_map(|(remote, files)| files.iter().map(move |file| (remote, file)));
    let (mut blobs, mut sizes) = (BTreeMap::new(), BTreeMap::new());
    for (remote, (file, digest, size)) in all {
        // Under its digest, whatever its document claims: that is what the bundle says that it is.
        let expected = Expected { claim: Claim::Sha256(*digest), size: Some(*size) };
        let wanted = Wanted::of(remote, &ListedFile { path: file.path.clone(), expected });
        blobs.entry(*digest).or_insert(wanted);
        sizes.insert(*digest, *size);
    }
    let blob = |(sha256, size): (Digest, u64)| File { path: BundlePath::Blob(sha256), size, sha256 };
    let volumes = split(sizes.into_iter().map(blob).collect(), &files, order.volume_size)?;
    let mut manifest = Manifest {
        format: FORMAT.to_owned(),
        generation: 0,
        parent: None,
        created_at: String::new(),
        selection: order.selection.clone(),
        documents: files,
        volumes,
    };
    let export = exports::enter(disk, layout, Digest::of(&manifest.to_json()), now)?;
    (manifest.generation, manifest.created_at) = (export.generation, export.created_at);
    let text = manifest.to_json();
    if let Some(key) = &order.key {
        keys::keep(disk, layout, key)?;
    }
    let signature = keys::own(disk, layout)?.sign(&text);
    Ok(Plan { id: Digest::of(&text), manifest: text.into(), signature: signature.into(), documents, blobs })
}
