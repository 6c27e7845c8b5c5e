//! All documents that go into a generation, and what was rendered of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::cache::Cache;
use crate::catalog::document::Document;
use crate::catalog::files::File;
use crate::catalog::images::Image;
use crate::catalog::listing::Listing;
use crate::catalog::mode::Mode;
use crate::catalog::{Catalog, HeldBack, Remote};
use crate::digest::Digest;
use crate::http::path::StreamPath;
use crate::ledger::Ledger;
use crate::ledger::record::{Owner, Record};
use crate::metrics::Metrics;
use crate::publish::command::{Command, Documents, RemoteSettings, Settings};
use crate::publish::stock::{self, Relevant};
use crate::render::part::{Part, Ready};
use crate::render::policy::{Policy, Slot, Stock};
use crate::render::product::Awaited;
use crate::render::remote::{Rendered, listing_of, render};
use crate::render::root::{self, Source};
use crate::simplestreams::file::ListedFile;
use crate::simplestreams::snapshot::Snapshot;

/// How many reasons for invisible images are logged for one set of documents.
const LOGGED_FAULTS: usize = 50;

/// What is known of each remote.
#[derive(Debug)]
pub struct Shelf {
    settings: Settings,
    documents: HashMap<Arc<str>, Documents>,
    /// What is served of each remote.
    remotes: HashMap<Arc<str>, Arc<Remote>>,
    /// What the root takes from each.
    parts: HashMap<Arc<str>, Vec<Part>>,
    /// What retired documents listed, which is found out once.
    retired: HashMap<(Arc<str>, Timestamp), Arc<Listing>>,
    root: HashMap<StreamPath, Arc<Document>>,
    /// What of each remote was held when it was rendered, as far as that matters.
    relevant: HashMap<Arc<str>, Relevant>,
    /// Since when images are held back.
    since: HashMap<(Arc<str>, Slot), Timestamp>,
    /// Versions that waited long enough.
    released: HashMap<Arc<str>, foldhash::HashSet<Slot>>,
    wrong: HashSet<Digest>,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
}

/// A remote that was rendered and whose documents are not compressed yet.
struct Fresh {
    name: Arc<str>,
    documents: Vec<Ready>,
    remote: Remote,
}

/// What the ledger has of a remote.
struct InBooks {
    /// What its documents depend on.
    relevant: Relevant,
    /// The files of its images that are not listed.
    held: Arc<Listing>,
    /// What its documents name and is held, if it is offline.
    named: Arc<Listing>,
    /// The images that hosts are not to see.
    private: Vec<Image>,
}

impl Shelf {
    /// An empty shelf. `wrong` are images that turned out not to be what they say.
    pub fn new(wrong: Vec<Digest>, cache: Arc<Cache>, metrics: Arc<Metrics>) -> Self {
        Self {
            settings: Settings::default(),
            documents: HashMap::new(),
            remotes: HashMap::new(),
            parts: HashMap::new(),
            retired: HashMap::new(),
            root: HashMap::new(),
            relevant: HashMap::new(),
            since: HashMap::new(),
            released: HashMap::new(),
            wrong: wrong.into_iter().collect(),
            cache,
            metrics,
        }
    }

    /// Takes a change and renders what depends on it; returns whom to tell when it is served.
    pub fn apply(&mut self, command: Command) -> oneshot::Sender<()> {
        let (fresh, done) = match command {
            Command::Replace { remote, documents, done } => (self.replace(&remote, documents).into_iter().collect(), done),
            Command::Configure { settings, done } => {
                self.settings = settings;
                (self.render_all(), done)
            }
            Command::Review { remote, done } => match self.review(&remote) {
                Some(fresh) => (vec![fresh], done),
                None => return done,
            },
            Command::Release { remote, slots, done } => {
                self.released.entry(Arc::clone(&remote)).or_default().extend(slots);
                (self.render(&remote).map(|(fresh, _)| fresh).into_iter().collect(), done)
            }
            Command::Hide { image, done } => {
                self.wrong.insert(image);
                (self.render_all(), done)
            }
        };
        self.bind(fresh);
        done
    }

    /// The next generation.
    pub fn catalog(&self, generation: u64) -> Catalog {
        let order: Vec<_> = self.settings.remotes.iter().map(|settings| Arc::clone(&settings.name)).collect();
        // One that is offline and was never fed has nothing, and that is known.
        let is_known = |name: &Arc<str>| self.remotes.contains_key(name) || self.is_unfed(name);
        let awaited = order.iter().filter(|name| !is_known(name)).cloned().collect();
        let modes = self.settings.remotes.iter().map(|settings| (Arc::clone(&settings.name), settings.mode)).collect();
        let former = self.cache.books().read(|ledger| stock::former(ledger, &order));
        Catalog { generation, root: self.root.clone(), order, modes, remotes: self.remotes.clone(), awaited, former }
    }

    fn replace(&mut self, name: &Arc<str>, documents: Documents) -> Option<Fresh> {
        let old = self.documents.insert(Arc::clone(name), documents);
        // What was listed until now is what is retired now.
        if let Some((newest, remote)) = old.and_then(|old| old.newest).zip(self.remotes.get(name)) {
            self.retired.insert((Arc::clone(name), newest.accepted_at), Arc::clone(&remote.listing));
        }
        let (fresh, rendered) = self.render(name)?;
        log(name, &rendered, &fresh.remote, &self.metrics);
        Some(fresh)
    }

    fn render_all(&mut self) -> Vec<Fresh> {
        self.remotes.clear();
        self.parts.clear();
        self.retired.clear();
        let names: Vec<_> = self.settings.remotes.iter().map(|settings| Arc::clone(&settings.name)).collect();
        names.iter().filter_map(|name| self.render(name)).map(|(fresh, _)| fresh).collect()
    }

    /// Renders a remote if that makes a difference to what is held of it; its files are served as they are now in any case.
    fn review(&mut self, name: &Arc<str>) -> Option<Fresh> {
        let settings = self.settings(name)?;
        let remote = self.remotes.get(name)?;
        let InBooks { relevant, held, named, private } = self.in_books(&settings, &remote.listing, &remote.held_back);
        if self.relevant.get(name) != Some(&relevant) {
            return self.render(name).map(|(fresh, _)| fresh);
        }
        let remote = Remote { held, named, private, ..Remote::clone(remote) };
        self.remotes.insert(Arc::clone(name), Arc::new(remote));
        None
    }

    fn settings(&self, name: &str) -> Option<RemoteSettings> {
        self.settings.remotes.iter().find(|settings| *settings.name == *name).cloned()
    }

    fn render(&mut self, name: &Arc<str>) -> Option<(Fresh, Rendered)> {
        let settings = self.settings(name)?;
        let Some(newest) = self.documents.get(name)?.newest.clone() else {
            self.render_nothing(&settings);
            return None;
        };
        let seen = self.seen(&settings);
        let mut policy = self.policy(&settings);
        let mut rendered = render(name, &newest, &policy);
        let is_known = self.retain(name, &newest, &mut policy, &mut rendered);
        self.metrics.images_are_listed(name, rendered.listing.images().len());
        self.parts.insert(Arc::clone(name), std::mem::take(&mut rendered.parts));
        let listing = Arc::new(std::mem::take(&mut rendered.listing));
        let retired = self.retired(name, &policy);
        let held_back = self.held_back(name, std::mem::take(&mut rendered.awaited), &listing, &retired);
        if is_known {
            self.cache.settle_withdrawn(name, &listing);
        }
        let InBooks { relevant, held, named, private } = self.in_books(&settings, &listing, &held_back);
        // What came or went while this was rendered is not in it, and the review that it asks for is to see that.
        if self.seen(&settings) == seen {
            self.relevant.insert(Arc::clone(name), relevant);
        } else {
            self.relevant.remove(name);
        }
        let stale = self.documents.get(name).is_some_and(|documents| documents.is_stale);
        let fed = newest.is_of_bundles();
        let remote = Remote { documents: HashMap::new(), listing, retired, held, named, private, held_back, stale, fed };
        let fresh = Fresh { name: Arc::clone(name), documents: std::mem::take(&mut rendered.documents), remote };
        Some((fresh, rendered))
    }

    /// What is there of a remote without documents: of our own images those that hosts do not see.
    fn render_nothing(&mut self, settings: &RemoteSettings) {
        self.parts.remove(&settings.name);
        self.remotes.remove(&settings.name);
        if settings.mode == Mode::Own {
            let InBooks { held, private, .. } = self.in_books(settings, &Listing::default(), &[]);
            self.remotes.insert(Arc::clone(&settings.name), Arc::new(Remote { held, private, ..Remote::default() }));
        }
    }

    /// Renders again if something is held that upstream does not list and that has to stay listed; whether all that may have
    /// to is known.
    fn retain(&self, name: &Arc<str>, newest: &Snapshot, policy: &mut Policy, rendered: &mut Rendered) -> bool {
        // What a bundle brought and none lists any more goes.
        let may_stay = |record: &&Record| !newest.is_of_bundles() || record.owner != Owner::Selection;
        let unlisted = |ledger: &Ledger| stock::unlisted(ledger, name, &rendered.listing).filter(may_stay).cloned().collect::<Vec<_>>();
        let unlisted = self.cache.books().read(unlisted);
        if unlisted.is_empty() {
            return true;
        }
        match stock::retained(&self.cache, unlisted) {
            Ok(retained) => {
                policy.stock.retained = retained;
                *rendered = render(name, newest, policy);
                true
            }
            Err(error) => {
                tracing::error!(remote = %name, %error, "what upstream lists no more cannot be looked at; it is listed again when it can");
                false
            }
        }
    }

    /// What a remote is rendered of, as far as it comes and goes.
    fn seen(&self, settings: &RemoteSettings) -> (Stock, Option<(usize, u64)>) {
        let is_offline = !settings.mode.has_upstream();
        self.cache.books().read(|ledger| (stock::stock(ledger, &settings.name), is_offline.then(|| stock::sum(ledger))))
    }

    /// What the ledger has of a remote that lists this and holds that back.
    fn in_books(&self, settings: &RemoteSettings, listing: &Listing, held_back: &[HeldBack]) -> InBooks {
        let awaited: Vec<Image> = held_back.iter().map(|held_back| held_back.image.clone()).collect();
        let (name, is_offline) = (&settings.name, !settings.mode.has_upstream());
        let named = self.named(settings);
        self.cache.books().read(|ledger| {
            let held = stock::files(ledger, name, listing);
            let mut there = Listing::default();
            let files = named.files().iter().filter(|file| ledger.has(file.expected) && listing.file(&file.path).is_none());
            files.for_each(|file| there.add_file(File::clone(file)));
            let relevant = stock::relevant(ledger, name, listing, &awaited, is_offline);
            InBooks { relevant, held: Arc::new(held), named: Arc::new(there), private: stock::private(ledger, name) }
        })
    }

    /// Everything that the documents of an offline remote name, listed or not: it loses nothing, not even half an image.
    fn named(&self, settings: &RemoteSettings) -> Listing {
        let documents = self.documents.get(&settings.name).filter(|_| settings.mode == Mode::Offline);
        let newest = documents.and_then(|documents| documents.newest.as_ref());
        newest.map_or_else(Listing::default, |newest| {
            listing_of(newest, &Policy { selection: settings.selection.clone(), ..Policy::default() })
        })
    }

    /// The images that hosts do not see yet, and since when.
    fn held_back(&mut self, name: &Arc<str>, awaited: Vec<Awaited>, listing: &Listing, retired: &[Arc<Listing>]) -> Vec<HeldBack> {
        let Some(documents) = self.documents.get(name) else { return Vec::new() };
        let times = documents.newest.iter().chain(&documents.retired).map(|snapshot| snapshot.accepted_at);
        let mut held_back = Vec::new();
        let mut since = HashMap::new();
        for Awaited { image, deltas, excerpt } in awaited {
            let key = (Arc::clone(name), Slot::of(&image.version, image.image_type));
            let has = |other: &Listing| {
                image.files.iter().all(|file| other.file(&file.path).is_some_and(|there| there.expected == file.expected))
            };
            let listings = std::iter::once(listing).chain(retired.iter().map(|listing| &**listing));
            let first = listings.zip(times.clone()).take_while(|(listing, _)| has(listing)).last().map(|(_, time)| time);
            let known = self.since.get(&key).copied();
            let at = known.into_iter().chain(first).min().unwrap_or_else(|| self.cache.now());
            since.insert(key, at);
            let modified = image.version.created_at().try_into().ok();
            let file = |file: &ListedFile| File::new(file.clone(), modified);
            let files = image.files.iter().chain(&deltas).map(file).collect();
            held_back.push(HeldBack { image, files, since: at, excerpt });
        }
        self.since.retain(|(remote, _), _| remote != name);
        self.since.extend(since);
        held_back
    }

    /// What the retired documents of a remote listed, newest first.
    fn retired(&mut self, name: &Arc<str>, policy: &Policy) -> Vec<Arc<Listing>> {
        let Some(documents) = self.documents.get(name) else { return Vec::new() };
        let is_kept =
            |taken_at: &Timestamp| documents.retired.iter().chain(&documents.newest).any(|snapshot| snapshot.accepted_at == *taken_at);
        self.retired.retain(|(remote, taken_at), _| remote != name || is_kept(taken_at));
        let policy = Policy { stock: Stock::default(), ..policy.clone() };
        let mut listings = Vec::new();
        for snapshot in &documents.retired {
            let known = self.retired.entry((Arc::clone(name), snapshot.accepted_at));
            listings.push(Arc::clone(known.or_insert_with(|| Arc::new(listing_of(snapshot, &policy)))));
        }
        listings
    }

    /// Compresses what is fresh, and beside that merges the root: for large documents each takes as long as the other.
    fn bind(&mut self, fresh: Vec<Fresh>) {
        let bind = |fresh: Fresh| (fresh.name, Arc::new(Remote { documents: ready(fresh.documents), ..fresh.remote }));
        let (bound, root) = rayon::join(|| fresh.into_iter().map(bind).collect::<Vec<_>>(), || self.merge_root());
        self.remotes.extend(bound);
        self.root = root;
    }

    /// How a remote is rendered.
    fn policy(&self, settings: &RemoteSettings) -> Policy {
        let released = self.released.get(&settings.name).cloned().unwrap_or_default();
        let (stock, held) = self.cache.books().read(|ledger| {
            let held = (!settings.mode.has_upstream()).then(|| Arc::new(stock::holdings(ledger, &settings.name)));
            (stock::stock(ledger, &settings.name), held)
        });
        // What is not kept up to date waits for nothing.
        let tracked = if self.cache.rules().auto_update { stock.tracked } else { foldhash::HashMap::default() };
        let stock = Stock { tracked, released, ..stock };
        Policy { selection: settings.selection.clone(), twins: settings.twins, wrong: self.wrong.clone(), held, stock }
    }

    /// Whether a remote is offline and has no documents.
    fn is_unfed(&self, name: &Arc<str>) -> bool {
        let Some(settings) = self.settings.remotes.iter().find(|settings| settings.name == *name) else { return false };
        match self.documents.get(name) {
            Some(documents) => documents.newest.is_none() && !settings.mode.has_upstream(),
            None => settings.mode == Mode::Own,
        }
    }

    /// Whether every remote has documents, or was asked for them in vain. Before that the root would give aliases to
    /// whoever answers first, and hosts would keep that for an hour.
    fn was_each_asked(&self) -> bool {
        let was_asked = |name| {
            self.documents.get(name).is_some_and(|documents| documents.newest.is_some() || documents.is_stale) || self.is_unfed(name)
        };
        self.settings.remotes.iter().all(|settings| was_asked(&settings.name))
    }

    fn merge_root(&self) -> HashMap<StreamPath, Arc<Document>> {
        let sources = self
            .settings
            .remotes
            .iter()
            .filter_map(|settings| Some(Source { name: &settings.name, parts: self.parts.get(&settings.name)? }));
        let sources: Vec<_> = sources.collect();
        if sources.is_empty() || !self.was_each_asked() {
            return HashMap::new();
        }
        let (old, new): (Vec<_>, Vec<_>) = root::merge(&sources).into_iter().partition(|document| self.unchanged(document).is_some());
        let mut root = ready(new);
        root.extend(old.iter().filter_map(|document| Some((document.path.clone(), self.unchanged(document)?))));
        root
    }

    /// The document of the generation before, if it is the same.
    fn unchanged(&self, new: &Ready) -> Option<Arc<Document>> {
        let old = self.root.get(&new.path)?;
        let is_same =
            old.plain == new.bytes && std::time::SystemTime::try_from(new.last_modified).is_ok_and(|time| time == old.last_modified);
        is_same.then(|| Arc::clone(old))
    }
}

fn ready(documents: Vec<Ready>) -> HashMap<StreamPath, Arc<Document>> {
    let made = documents.into_iter().map(|Ready { path, bytes, last_modified }| {
        let document = Document::new(path.basename(), bytes, last_modified);
        (path, Arc::new(document))
    });
    made.collect()
}

fn log(name: &str, rendered: &Rendered, remote: &Remote, metrics: &Metrics) {
    for (path, fault) in rendered.faults.iter().take(LOGGED_FAULTS) {
        tracing::info!(remote = name, document = %path, "left out: {fault}");
    }
    if let Some(more) = rendered.faults.len().checked_sub(LOGGED_FAULTS).filter(|more| *more > 0) {
        tracing::info!(remote = name, more, "left out for like reasons");
    }
    for path in remote.retired.first().into_iter().flat_map(|older| remote.listing.changed_since(older)) {
        metrics.digest_mismatched("document");
        tracing::warn!(remote = name, %path, "upstream changed the file under a path; the newest document wins");
    }
}
