//! All documents that go into a generation, and what was rendered of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::catalog::document::Document;
use crate::catalog::{Catalog, Remote};
use crate::digest::Digest;
use crate::http::path::StreamPath;
use crate::metrics::Metrics;
use crate::publish::command::{Command, Documents, RemoteSettings, Settings};
use crate::render::remote::{Files, Part, Policy, Ready, Rendered, files_of, render};
use crate::render::root::{self, Source};

/// How many reasons for invisible images are logged for one set of documents.
const LOGGED_FAULTS: usize = 50;

/// What is known of each remote.
#[derive(Debug)]
pub struct Shelf {
    settings: Settings,
    documents: HashMap<Arc<str>, Documents>,
    /// The files of retired documents, which are read once.
    retired: HashMap<(Arc<str>, Timestamp), Files>,
    rendered: HashMap<Arc<str>, Bound>,
    root: HashMap<StreamPath, Arc<Document>>,
    wrong: HashSet<Digest>,
    metrics: Arc<Metrics>,
}

/// What is served of a remote, and what the root takes from it.
#[derive(Debug)]
struct Bound {
    remote: Arc<Remote>,
    parts: Vec<Part>,
}

impl Shelf {
    /// An empty shelf. `wrong` are images that turned out not to be what they say.
    pub fn new(wrong: Vec<Digest>, metrics: Arc<Metrics>) -> Self {
        let wrong = wrong.into_iter().collect();
        Self {
            settings: Settings::default(),
            documents: HashMap::new(),
            retired: HashMap::new(),
            rendered: HashMap::new(),
            root: HashMap::new(),
            wrong,
            metrics,
        }
    }

    /// Takes a change and renders what depends on it; returns whom to tell when it is served.
    pub fn apply(&mut self, command: Command) -> oneshot::Sender<()> {
        let done = match command {
            Command::Replace { remote, documents, done } => {
                self.documents.insert(Arc::clone(&remote), documents);
                self.render(&remote, true);
                done
            }
            Command::Configure { settings, done } => {
                self.settings = settings;
                self.render_all();
                done
            }
            Command::Hide { image, done } => {
                self.wrong.insert(image);
                self.render_all();
                done
            }
        };
        self.render_root();
        done
    }

    /// The next generation.
    pub fn catalog(&self, generation: u64) -> Catalog {
        let remotes = self.rendered.iter().map(|(name, bound)| (Arc::clone(name), Arc::clone(&bound.remote)));
        let names = self.settings.remotes.iter().map(|settings| Arc::clone(&settings.name));
        let awaited = names.filter(|name| !self.rendered.contains_key(name)).collect();
        Catalog { generation, root: self.root.clone(), remotes: remotes.collect(), awaited }
    }

    /// Whether every remote has documents, or was asked for them in vain. Before that the root would give aliases to
    /// whoever answers first, and hosts would keep that for an hour.
    fn was_each_asked(&self) -> bool {
        self.settings
            .remotes
            .iter()
            .all(|settings| self.documents.get(&settings.name).is_some_and(|documents| documents.newest.is_some() || documents.is_stale))
    }

    fn render_all(&mut self) {
        self.rendered.clear();
        let names: Vec<_> = self.settings.remotes.iter().map(|settings| Arc::clone(&settings.name)).collect();
        names.iter().for_each(|name| self.render(name, false));
    }

    fn render(&mut self, name: &Arc<str>, is_new: bool) {
        let Some(settings) = self.settings.remotes.iter().find(|settings| settings.name == *name) else { return };
        let Some(documents) = self.documents.get(name) else { return };
        let Some(newest) = &documents.newest else { return };
        self.retired
            .retain(|(remote, taken_at), _| remote != name || documents.retired.iter().any(|snapshot| snapshot.accepted_at == *taken_at));
        for snapshot in &documents.retired {
            self.retired.entry((Arc::clone(name), snapshot.accepted_at)).or_insert_with(|| files_of(snapshot));
        }
        let retired: Vec<_> =
            documents.retired.iter().filter_map(|snapshot| self.retired.get(&(Arc::clone(name), snapshot.accepted_at))).collect();
        let rendered = render(newest, &retired, &self.policy(settings));
        if is_new {
            log(name, &rendered);
        }
        self.metrics.images_are_listed(name, rendered.listing.images().len());
        let remote = Remote { documents: ready(rendered.documents), listing: rendered.listing, stale: documents.is_stale };
        self.rendered.insert(Arc::clone(name), Bound { remote: Arc::new(remote), parts: rendered.parts });
    }

    fn policy(&self, settings: &RemoteSettings) -> Policy {
        Policy { selection: settings.selection.clone(), twins: settings.twins, wrong: self.wrong.clone() }
    }

    fn render_root(&mut self) {
        let remotes = self.settings.remotes.iter().filter_map(|settings| {
            let bound = self.rendered.get(&settings.name)?;
            Some(Source { name: &settings.name, parts: &bound.parts })
        });
        let remotes: Vec<_> = remotes.collect();
        let merged = if remotes.is_empty() || !self.was_each_asked() { Vec::new() } else { root::merge(&remotes) };
        let (old, new): (Vec<_>, Vec<_>) =
            merged.into_iter().partition(|document| self.root.get(&document.path).is_some_and(|old| is_same(old, document)));
        let mut root = ready(new);
        root.extend(
            old.into_iter()
                .filter_map(|document| self.root.get_key_value(&document.path).map(|(path, old)| (path.clone(), Arc::clone(old)))),
        );
        self.root = root;
    }
}

fn is_same(old: &Document, new: &Ready) -> bool {
    old.plain == new.bytes && std::time::SystemTime::try_from(new.last_modified).is_ok_and(|time| time == old.last_modified)
}

fn ready(documents: Vec<Ready>) -> HashMap<StreamPath, Arc<Document>> {
    let made = documents.into_iter().map(|Ready { path, bytes, last_modified }| {
        let document = Document::new(path.basename(), bytes, last_modified);
        (path, Arc::new(document))
    });
    made.collect()
}

fn log(remote: &str, rendered: &Rendered) {
    for (path, fault) in rendered.faults.iter().take(LOGGED_FAULTS) {
        tracing::info!(remote, document = %path, "left out: {fault}");
    }
    if let Some(more) = rendered.faults.len().checked_sub(LOGGED_FAULTS).filter(|more| *more > 0) {
        tracing::info!(remote, more, "left out for like reasons");
    }
    for path in &rendered.changed_paths {
        tracing::warn!(remote, %path, "upstream changed the file under a path; the newest document wins");
    }
}
