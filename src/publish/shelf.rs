//! All documents that go into a generation, and what was rendered of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::catalog::document::Document;
use crate::catalog::{Catalog, Remote};
use crate::digest::Fingerprint;
use crate::http::path::StreamPath;
use crate::metrics::Metrics;
use crate::publish::command::{Command, Documents, RemoteSettings, Settings};
use crate::render::remote::{Part, Policy, Ready, Rendered, render};
use crate::render::root::{self, Source};

/// How many reasons for invisible images are logged for one set of documents.
const LOGGED_FAULTS: usize = 50;

/// What is known of each remote.
#[derive(Debug)]
pub struct Shelf {
    settings: Settings,
    documents: HashMap<Arc<str>, Documents>,
    rendered: HashMap<Arc<str>, Bound>,
    root: HashMap<StreamPath, Arc<Document>>,
    wrong: HashSet<Fingerprint>,
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
    pub fn new(wrong: Vec<Fingerprint>, metrics: Arc<Metrics>) -> Self {
        let wrong = wrong.into_iter().collect();
        Self { settings: Settings::default(), documents: HashMap::new(), rendered: HashMap::new(), root: HashMap::new(), wrong, metrics }
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
            Command::Hide { fingerprint, done } => {
                self.wrong.insert(fingerprint);
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
        Catalog { generation, root: self.root.clone(), remotes: remotes.collect() }
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
        let retired: Vec<_> = documents.retired.iter().map(|snapshot| &**snapshot).collect();
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
        let merged = if remotes.is_empty() { Vec::new() } else { root::merge(&remotes) };
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

/// Compresses documents side by side: for a large one that takes as long as all the rest.
fn ready(documents: Vec<Ready>) -> HashMap<StreamPath, Arc<Document>> {
    std::thread::scope(|scope| {
        let made = documents.into_iter().map(|Ready { path, bytes, last_modified }| {
            scope.spawn(move || {
                let document = Document::new(path.basename(), bytes, last_modified);
                (path, Arc::new(document))
            })
        });
        let made: Vec<_> = made.collect();
        made.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
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
