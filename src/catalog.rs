//! What is served: an immutable picture of documents ready to send, and for each path its file.
//!
//! Types and look-ups; `render` fills them and `publish` puts one in the place of another, whole.

pub mod document;
pub mod listing;
pub mod mode;
pub mod query;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::catalog::document::Document;
use crate::catalog::listing::{File, Image, Listing};
use crate::catalog::mode::Mode;
use crate::digest::{Claim, Expected, Fingerprint};
use crate::http::path::StreamPath;
use crate::simplestreams::file::ListedFile;

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
    /// How each of them is held.
    pub modes: HashMap<Arc<str>, Mode>,
    /// Remotes that are configured and have no documents yet: nobody knows what they have.
    pub awaited: HashSet<Arc<str>>,
    /// Images that are held of remotes that the configuration does not have any more. No host sees them; people do.
    pub former: BTreeMap<Arc<str>, Vec<Image>>,
}

/// What is served of one remote.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    /// Its documents, by their path below its name.
    pub documents: HashMap<StreamPath, Arc<Document>>,
    /// Its files and images.
    pub listing: Arc<Listing>,
    /// What older documents listed, the newest of them first. It is served, and not listed any more.
    pub retired: Vec<Arc<Listing>>,
    /// The files of images that are held, whoever listed them; of a remote that is offline, all that is held.
    pub held: Arc<Listing>,
    /// Images that are held and not listed: their owner does not want hosts to see them.
    pub private: Vec<Image>,
    /// What is not listed yet because hosts get what is held in its place.
    pub held_back: Vec<HeldBack>,
    /// Whether the last refresh failed, so that its documents may be behind upstream's.
    pub stale: bool,
}

/// An image that is listed when it is held, and until then an older one in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// The image.
    pub image: Image,
    /// Its files, with their paths.
    pub files: Vec<File>,
    /// Since when it could have been listed.
    pub since: Timestamp,
    /// What lists it of its document: the document, and the product with this one version, as JSON.
    pub excerpt: Option<(StreamPath, String)>,
}

/// Where else a file is to be had, the one that binds most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// A remote that is offline or mirrored lists it: it is to be held.
    Protected,
    /// Upstream lists it: its path pulls through again.
    Upstream,
    /// Only documents of before list it, and its path is served until their grace is over.
    Retired,
    /// Nothing lists it.
    Unlisted,
}

impl Remote {
    /// Whether an image is listed, or waits for being held.
    pub fn has(&self, fingerprint: Fingerprint) -> bool {
        let held_back = self.held_back.iter().map(|held_back| &held_back.image);
        self.listing.images().iter().chain(held_back).any(|image| image.fingerprint == fingerprint)
    }

    /// What newer documents list goes before what older ones did.
    fn listings(&self) -> impl Iterator<Item = &Arc<Listing>> {
        std::iter::once(&self.listing).chain(&self.retired).chain([&self.held])
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
        let found = remote.listings().find_map(|listing| listing.file(&rest)).map(|file| (name, file))?;
        // A name that a person gave does not keep an image; where its remote has it, it is still to be had.
        if self.mode(name) == Some(Mode::Own) { self.upstream_of(found.1.expected.claim).or(Some(found)) } else { Some(found) }
    }

    /// A file of which this is claimed, with a remote that can be asked for it.
    pub fn upstream_of(&self, claim: Claim) -> Option<(&Arc<str>, File)> {
        let asked = self.remotes.iter().filter(|(name, _)| self.mode(name).is_some_and(Mode::has_upstream));
        asked.into_iter().find_map(|(name, remote)| remote.listing.file_with(claim).map(|file| (name, file)))
    }

    /// A file of which this is claimed, and its remote.
    pub fn file_with(&self, claim: Claim) -> Option<(&Arc<str>, File)> {
        let find = |remote: &Remote| remote.listings().find_map(|listing| listing.file_with(claim));
        self.remotes.iter().find_map(|(name, remote)| find(remote).map(|file| (name, file)))
    }

    /// How a remote is held; `None` if there is no such remote.
    pub fn mode(&self, remote: &str) -> Option<Mode> {
        self.modes.get(remote).copied()
    }

    /// Where else a file is to be had of which this is claimed.
    pub fn standing(&self, claim: Claim) -> Standing {
        let of_remote = |(name, remote): (&Arc<str>, &Arc<Remote>)| {
            let is_in = |listing: &Arc<Listing>| listing.has_claim(claim);
            match self.mode(name) {
                Some(Mode::Proxy) if is_in(&remote.listing) => Standing::Upstream,
                Some(Mode::Mirror | Mode::Offline) if is_in(&remote.listing) => Standing::Protected,
                Some(Mode::Offline) if is_in(&remote.held) => Standing::Protected,
                _ if remote.retired.iter().any(is_in) => Standing::Retired,
                _ => Standing::Unlisted,
            }
        };
        self.remotes.iter().map(of_remote).min().unwrap_or(Standing::Unlisted)
    }

    /// Whether a request for an image counts as one by alias: hosts may see it as the newest of its product, by the
    /// documents of now or by those that they may still have.
    pub fn is_current(&self, remote: &str, image: &Image) -> bool {
        self.remotes.get(remote).is_some_and(|remote| {
            let listings = std::iter::once(&remote.listing).chain(&remote.retired);
            listings.into_iter().any(|listing| listing.is_newest(image))
        })
    }

    /// Whether nobody knows yet what is at a path: it belongs to a remote without documents, or to the root while a
    /// remote that may own what is there was not asked yet.
    pub fn is_awaited(&self, path: &StreamPath) -> bool {
        let first = path.as_str().split('/').next().unwrap_or_default();
        self.awaited.contains(first) || (first == "streams" && self.root.is_empty() && !self.awaited.is_empty())
    }

    /// The root that a delta makes, and its remote.
    pub fn root_of(&self, delta: Expected) -> Option<(&Arc<str>, &ListedFile)> {
        self.remotes.iter().find_map(|(name, remote)| remote.listing.root_of(delta).map(|root| (name, root)))
    }

    /// All images that need this file, each with its remote.
    pub fn images_with(&self, file: Expected) -> impl Iterator<Item = (&Arc<str>, &Image)> {
        self.remotes.iter().flat_map(move |(name, remote)| {
            let listed = std::iter::once(&remote.listing).chain(&remote.retired).flat_map(move |listing| listing.images_with(file));
            let held_back =
                remote.held_back.iter().map(|held_back| &held_back.image).filter(move |image| image.expected().any(|other| other == file));
            listed.chain(held_back).map(move |image| (name, image))
        })
    }
}
