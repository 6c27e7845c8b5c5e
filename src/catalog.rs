//! What is served: an immutable picture of documents ready to send, and for each path its file.
//!
//! Types and look-ups; `render` fills them and `publish` puts one in the place of another, whole.

pub mod document;
pub mod files;
pub mod images;
pub mod listing;
pub mod mode;
pub mod name;
pub mod query;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::catalog::document::Document;
use crate::catalog::files::File;
use crate::catalog::images::Image;
use crate::catalog::listing::Listing;
use crate::catalog::mode::Mode;
use crate::digest::{Claim, Expected, Fingerprint};
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
    /// The files of images that are held and not listed.
    pub held: Arc<Listing>,
    /// Of a remote that is offline, what its documents name and is held, also of images that are not held whole.
    pub named: Arc<Listing>,
    /// Images that are held and not listed: their owner does not want hosts to see them.
    pub private: Vec<Image>,
    /// What is not listed yet because hosts get what is held in its place.
    pub held_back: Vec<HeldBack>,
    /// Whether the last refresh failed, so that its documents may be behind upstream's.
    pub stale: bool,
    /// Whether its documents came in bundles: then what these brought goes when they list it no more.
    pub fed: bool,
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

    /// Whether it names a file of which this is claimed, listed by now or not.
    fn names(&self, claim: Claim) -> bool {
        let mut held_back = self.held_back.iter().flat_map(|held_back| &held_back.files);
        self.listings().any(|listing| listing.has_claim(claim)) || held_back.any(|file| file.expected.claim == claim)
    }

    /// What newer documents list goes before what older ones did.
    fn listings(&self) -> impl Iterator<Item = &Arc<Listing>> {
        std::iter::once(&self.listing).chain(&self.retired).chain([&self.held, &self.named])
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
    pub fn file(&self, path: &StreamPath) -> Option<(&Arc<str>, &File)> {
        let (first, rest) = path.split_first()?;
        let (name, remote) = self.remotes.get_key_value(first)?;
        let found = remote.listings().find_map(|listing| listing.file(&rest)).map(|file| (name, file))?;
        // A name that a person gave does not keep an image; where its remote has it, it is still to be had.
        if self.mode(name) == Some(Mode::Own) { self.upstream_of(found.1.expected.claim).or(Some(found)) } else { Some(found) }
    }

    /// A file of which this is claimed, with a remote that can be asked for it.
    pub fn upstream_of(&self, claim: Claim) -> Option<(&Arc<str>, &File)> {
        let asked = self.remotes.iter().filter(|(name, _)| self.mode(name).is_some_and(Mode::has_upstream));
        asked.into_iter().find_map(|(name, remote)| remote.listing.file_with(claim).map(|file| (name, file)))
    }

    /// A file of which this is claimed, and its remote.
    pub fn file_with(&self, claim: Claim) -> Option<(&Arc<str>, &File)> {
        self.remotes.iter().find_map(|(name, remote)| {
            let found = remote.listings().find_map(|listing| listing.file_with(claim));
            found.map(|file| (name, file))
        })
    }

    /// The remotes whose documents may depend on whether a file is held of which this is claimed.
    pub fn concerned_with(&self, claim: Claim) -> impl Iterator<Item = &Arc<str>> {
        let is_concerned = move |name: &Arc<str>, remote: &Remote| remote.names(claim) || self.lists_what_is_held(name);
        self.remotes.iter().filter(move |(name, remote)| is_concerned(name, remote)).map(|(name, _)| name)
    }

    /// The remotes that list what is held, and nothing else.
    pub fn of_what_is_held(&self) -> impl Iterator<Item = &Arc<str>> {
        self.remotes.keys().filter(|name| self.lists_what_is_held(name))
    }

    fn lists_what_is_held(&self, remote: &str) -> bool {
        self.mode(remote) == Some(Mode::Offline)
    }

    /// Whether a remote is offline and lists what bundles brought.
    pub fn is_fed(&self, remote: &str) -> bool {
        self.mode(remote) == Some(Mode::Offline) && self.remotes.get(remote).is_some_and(|remote| remote.fed)
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
                Some(Mode::Offline) if is_in(&remote.named) => Standing::Protected,
                Some(Mode::Offline) if !remote.fed && is_in(&remote.held) => Standing::Protected,
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
    pub fn root_of(&self, delta: Expected) -> Option<(&Arc<str>, &File)> {
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::sync::Arc;

    use crate::catalog::files::File;
    use crate::catalog::images::Image;
    use crate::catalog::listing::Listing;
    use crate::catalog::mode::Mode;
    use crate::catalog::{Catalog, HeldBack, Remote, Standing};
    use crate::digest::{Claim, Digest, Expected, Fingerprint};
    use crate::http::path::StreamPath;
    use crate::image::architecture::Architecture;
    use crate::image::ftype::{ImageType, Root};
    use crate::image::version::{Product, Version};
    use crate::simplestreams::file::ListedFile;

    fn path(path: &str) -> StreamPath {
        StreamPath::from_document(path).unwrap()
    }

    fn expected(name: &str) -> Expected {
        Expected { claim: Claim::Sha256(Digest::of(name.as_bytes())), size: None }
    }

    fn print(name: &str) -> Fingerprint {
        Fingerprint::of_unified(Digest::of(format!("image {name}").as_bytes()))
    }

    /// An image with one file, which has its name.
    fn image(name: &str, serial: &str) -> Image {
        let product = Product {
            name: "p".to_owned(),
            architecture: Architecture::parse("amd64").unwrap(),
            aliases: Vec::new(),
            properties: BTreeMap::new(),
            title: String::new(),
            expires: None,
        };
        let version = Version { product: Arc::new(product), serial: serial.into(), date: "2026-01-01".parse().unwrap(), label: "".into() };
        Image {
            fingerprint: print(name),
            files: vec![ListedFile { path: path(name), expected: expected(name) }],
            image_type: ImageType::Container,
            root: Some(Root::Squashfs),
            version: Arc::new(version),
        }
    }

    fn listing(images: &[Image]) -> Arc<Listing> {
        let mut listing = Listing::default();
        for image in images {
            image.files.iter().for_each(|file| listing.add_file(File::new(file.clone(), None)));
            listing.add_image(image.clone());
        }
        Arc::new(listing)
    }

    fn catalog(remotes: impl IntoIterator<Item = (&'static str, Mode, Remote)>) -> Catalog {
        let mut catalog = Catalog::default();
        for (name, mode, remote) in remotes {
            let name: Arc<str> = name.into();
            catalog.order.push(Arc::clone(&name));
            catalog.modes.insert(Arc::clone(&name), mode);
            catalog.remotes.insert(name, Arc::new(remote));
        }
        catalog
    }

    #[test]
    fn a_remote_has_what_it_lists_and_what_waits_for_being_held() {
        let waits = HeldBack { image: image("b", "2"), files: Vec::new(), since: jiff::Timestamp::UNIX_EPOCH, excerpt: None };
        let remote = Remote { listing: listing(&[image("a", "1")]), held_back: vec![waits], ..Remote::default() };
        assert_eq!(["a", "b", "c"].map(|name| remote.has(print(name))), [true, true, false]);
        let catalog = catalog([("r", Mode::Proxy, remote)]);
        let with = |name| catalog.images_with(expected(name)).map(|(_, image)| image.fingerprint).collect::<Vec<_>>();
        assert_eq!([with("a"), with("b"), with("c")], [vec![print("a")], vec![print("b")], Vec::new()]);
    }

    #[test]
    fn a_file_is_found_by_its_path_and_by_what_is_claimed_of_it() {
        let old = Remote { listing: listing(&[image("a", "2")]), retired: vec![listing(&[image("b", "1")])], ..Remote::default() };
        let catalog = catalog([("r", Mode::Proxy, old)]);
        let found = |at: &str| catalog.file(&path(at)).map(|(name, file)| (name.to_string(), file.expected));
        assert_eq!(found("r/a"), Some(("r".to_owned(), expected("a"))));
        assert_eq!(found("r/b"), Some(("r".to_owned(), expected("b"))), "older documents' paths are served");
        assert_eq!([found("r/c"), found("s/a"), found("a")], [None, None, None]);
        assert_eq!(catalog.file_with(expected("b").claim).map(|(name, file)| (&**name, &file.path)), Some(("r", &path("b"))));
        assert_eq!(catalog.upstream_of(expected("a").claim).map(|(_, file)| &file.path), Some(&path("a")));
        assert!(catalog.upstream_of(expected("b").claim).is_none(), "upstream lists it no more");
    }

    #[test]
    fn a_name_of_our_own_leads_to_the_remote_that_still_has_the_file() {
        let remote = || Remote { listing: listing(&[image("a", "1")]), ..Remote::default() };
        let both = catalog([("local", Mode::Own, remote()), ("r", Mode::Proxy, remote())]);
        assert_eq!(both.file(&path("local/a")).map(|(name, _)| &**name), Some("r"));
        let offline = catalog([("local", Mode::Own, remote()), ("r", Mode::Offline, remote())]);
        assert_eq!(offline.file(&path("local/a")).map(|(name, _)| &**name), Some("local"), "nobody can be asked");
    }

    #[test]
    fn a_request_is_for_the_newest_by_the_documents_of_now_or_of_before() {
        let remote = Remote {
            listing: listing(&[image("a", "1"), image("b", "2"), image("c", "3")]),
            retired: vec![listing(&[image("a", "1"), image("b", "2")])],
            ..Remote::default()
        };
        let catalog = catalog([("r", Mode::Proxy, remote)]);
        let is_current = |name, serial| catalog.is_current("r", &image(name, serial));
        assert_eq!([is_current("a", "1"), is_current("b", "2"), is_current("c", "3")], [false, true, true]);
        assert!(!catalog.is_current("s", &image("c", "3")));
    }

    #[test]
    fn what_a_remote_without_documents_may_have_is_awaited() {
        let mut catalog = Catalog { awaited: ["r".into()].into(), ..Catalog::default() };
        let awaited = |catalog: &Catalog| ["r/a", "s/a", "streams/v1/index.json"].map(|at| catalog.is_awaited(&path(at)));
        assert_eq!(awaited(&catalog), [true, false, true]);
        let document = crate::catalog::document::Document::new("index.json", bytes::Bytes::from_static(b"{}"), jiff::Timestamp::UNIX_EPOCH);
        catalog.root.insert(path("streams/v1/index.json"), Arc::new(document));
        assert_eq!(awaited(&catalog), [true, false, false], "the root is there");
        assert_eq!(awaited(&Catalog::default()), [false, false, false], "nobody is awaited");
    }

    #[test]
    fn a_delta_makes_the_root_that_its_document_says() {
        let mut listing = Listing::default();
        for name in ["delta", "a"] {
            listing.add_file(File::new(ListedFile { path: path(name), expected: expected(name) }, None));
        }
        listing.parts().0.add_delta(&path("delta"), &path("a"));
        let catalog = catalog([("r", Mode::Proxy, Remote { listing: Arc::new(listing), ..Remote::default() })]);
        assert_eq!(catalog.root_of(expected("delta")).map(|(name, root)| (&**name, root.path.clone())), Some(("r", path("a"))));
        assert!(catalog.root_of(expected("a")).is_none());
    }

    #[test]
    fn where_a_file_is_had_binds_as_its_remote_is_held() {
        let listed = || Remote { listing: listing(&[image("a", "1")]), ..Remote::default() };
        let retired = || Remote { retired: vec![listing(&[image("a", "1")])], ..Remote::default() };
        let held = || Remote { held: listing(&[image("a", "1")]), ..Remote::default() };
        for (mode, remote, expected_standing) in [
            (Mode::Proxy, listed(), Standing::Upstream),
            (Mode::Mirror, listed(), Standing::Protected),
            (Mode::Offline, listed(), Standing::Protected),
            (Mode::Offline, held(), Standing::Protected),
            (Mode::Offline, Remote { fed: true, ..listed() }, Standing::Protected),
            (Mode::Offline, Remote { fed: true, ..held() }, Standing::Unlisted),
            (Mode::Offline, Remote { fed: true, named: listing(&[image("a", "1")]), ..Remote::default() }, Standing::Protected),
            (Mode::Proxy, held(), Standing::Unlisted),
            (Mode::Proxy, retired(), Standing::Retired),
            (Mode::Own, listed(), Standing::Unlisted),
            (Mode::Proxy, Remote::default(), Standing::Unlisted),
        ] {
            let catalog = catalog([("r", mode, remote)]);
            assert_eq!(catalog.standing(expected("a").claim), expected_standing, "{mode:?}");
        }
        let both = catalog([("r", Mode::Proxy, listed()), ("s", Mode::Mirror, listed())]);
        assert_eq!(both.standing(expected("a").claim), Standing::Protected, "the one that binds most counts");
        assert_eq!(Catalog { modes: HashMap::new(), ..Catalog::default() }.standing(expected("a").claim), Standing::Unlisted);
    }
}
