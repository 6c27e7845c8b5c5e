//! What is served: an immutable picture of documents ready to send, and for each path its file.
//!
//! Types and look-ups; `render` fills them and `publish` puts one in the place of another, whole.

pub mod document;
pub mod listing;
pub mod query;
pub mod version;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::catalog::document::Document;
use crate::catalog::listing::{File, Image, Listing};
use crate::digest::{Claim, Expected};
use crate::http::path::StreamPath;

/// One generation of everything that is served.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Counts up by one with each picture.
    pub generation: u64,
    /// The documents at the root, which hold all remotes together.
    pub root: HashMap<StreamPath, Arc<Document>>,
    /// The remotes in the order of `server.root`, those without documents too.
    pub order: Vec<Arc<str>>,
    /// What is served under each remote's own name.
    pub remotes: HashMap<Arc<str>, Arc<Remote>>,
    /// Remotes that are configured and have no documents yet: nobody knows what they have.
    pub awaited: HashSet<Arc<str>>,
}

/// What is served of one remote.
#[derive(Debug, Default)]
pub struct Remote {
    /// Its documents, by their path below its name.
    pub documents: HashMap<StreamPath, Arc<Document>>,
    /// Its files and images.
    pub listing: Arc<Listing>,
    /// What older documents listed, the newest of them first. It is served, and not listed any more.
    pub retired: Vec<Arc<Listing>>,
    /// Whether the last refresh failed, so that its documents may be behind upstream's.
    pub stale: bool,
}

impl Remote {
    /// What newer documents list goes before what older ones did.
    fn listings(&self) -> impl Iterator<Item = &Arc<Listing>> {
        std::iter::once(&self.listing).chain(&self.retired)
    }
}

impl Catalog {
    /// The document at a path below the root, and the remote that it belongs to if there is just one.
    pub fn document(&self, path: &StreamPath) -> Option<(Option<&Arc<str>>, &Arc<Document>)> {
        if let Some(document) = self.root.get(path) {
            return Some((None, document));
        }
        let (first, rest) = path.split_first()?;
        let (name, remote) = self.remotes.get_key_value(first)?;
        remote.documents.get(&rest).map(|document| (Some(name), document))
    }

    /// The file at a path below the root.
    pub fn file(&self, path: &StreamPath) -> Option<(&Arc<str>, File)> {
        let (first, rest) = path.split_first()?;
        let (name, remote) = self.remotes.get_key_value(first)?;
        remote.listings().find_map(|listing| listing.file(&rest)).map(|file| (name, file))
    }

    /// A file of which this is claimed, and its remote.
    pub fn file_with(&self, claim: Claim) -> Option<(&Arc<str>, File)> {
        let find = |remote: &Remote| remote.listings().find_map(|listing| listing.file_with(claim));
        self.remotes.iter().find_map(|(name, remote)| find(remote).map(|file| (name, file)))
    }

    /// Whether nobody knows yet what is at a path: it belongs to a remote without documents, or to the root while a
    /// remote that may own what is there was not asked yet.
    pub fn is_awaited(&self, path: &StreamPath) -> bool {
        let first = path.as_str().split('/').next().unwrap_or_default();
        self.awaited.contains(first) || (first == "streams" && self.root.is_empty() && !self.awaited.is_empty())
    }

    /// All images that need this file.
    pub fn images_with(&self, file: Expected) -> impl Iterator<Item = &Image> {
        self.remotes.values().flat_map(move |remote| remote.listing.images_with(file))
    }
}
