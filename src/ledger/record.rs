//! One image that is held: what is known of it, and by which rules it stays.

use std::sync::Arc;

use jiff::Timestamp;

use crate::digest::{Claim, Digest, Expected, Fingerprint};
use crate::http::path::StreamPath;
use crate::image::ftype::{ImageType, Root};
use crate::image::version::Version;

/// An image that is held whole and has the fingerprint that its document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What LXD calls it.
    pub fingerprint: Fingerprint,
    /// The remote that it came from.
    pub remote: Arc<str>,
    /// What it runs as.
    pub image_type: ImageType,
    /// What its root is, if it is split.
    pub root: Option<Root>,
    /// What it is a build of.
    pub version: Arc<Version>,
    /// Its one file, or metadata and then root.
    pub pieces: Vec<Piece>,
    /// Who wants it held.
    pub owner: Owner,
    /// Whether a newer version takes its place when there is one.
    pub auto_update: bool,
    /// Whether hosts see it.
    pub public: bool,
    /// When its last file arrived.
    pub cached_at: Timestamp,
    /// When a host last asked for its root.
    pub last_used_at: Timestamp,
    /// How often hosts did.
    pub use_count: u64,
    /// When it ends, by its operator's word or its document's.
    pub expires_at: Option<Timestamp>,
    /// Whether it is on its way out.
    pub fate: Fate,
}

/// One file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where hosts ask for it, below its remote's name.
    pub path: StreamPath,
    /// What it is.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// What its document claims of it, if that is something else; there are very many pieces of which it is not.
    claimed: Option<Box<Expected>>,
}

impl Piece {
    /// A file of which this is claimed.
    pub fn new(path: StreamPath, expected: Expected, digest: Digest, size: u64) -> Self {
        let is_plain = expected == Expected { claim: Claim::Sha256(digest), size: Some(size) };
        Self { path, digest, size, claimed: (!is_plain).then(|| Box::new(expected)) }
    }

    /// What its document claims of it.
    pub fn expected(&self) -> Expected {
        self.claimed.as_deref().copied().unwrap_or(Expected { claim: Claim::Sha256(self.digest), size: Some(self.size) })
    }
}

/// Who wants an image held, and so who may let it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A host's request brought it in: LXD's `cached`. It goes by idle time and size.
    Hosts,
    /// A remote in mirror mode lists it, or a bundle that was imported. It goes when it is listed no more.
    Selection,
    /// A person brought it in. It goes when a person says so.
    Operator,
}

/// Whether an image is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Stays,
    /// Since then it is not listed on our account, and when grace is over it goes.
    Leaves(Timestamp, Reason),
}

/// Why an image or a blob goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Nobody used it for `images.remote_cache_expiry`.
    Idle,
    /// Its time was over, and nobody used it for `images.grace`.
    Expired,
    /// A newer version took its place.
    Superseded,
    /// Upstream lists it no more, or its selection does not.
    Withdrawn,
    /// There had to be room for something else.
    Size,
    /// A person said so.
    Deleted,
}

impl Owner {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hosts, Self::Selection, Self::Operator];

    /// The one that is called so where it is written down.
    pub fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.label() == label)
    }

    /// What it is called where it is written down.
    pub fn label(self) -> &'static str {
        match self {
            Self::Hosts => "hosts",
            Self::Selection => "selection",
            Self::Operator => "operator",
        }
    }
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Idle, Self::Expired, Self::Superseded, Self::Withdrawn, Self::Size, Self::Deleted];

    /// The one that logs and metrics call so.
    pub fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.label() == label)
    }

    /// What logs and metrics call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::Withdrawn => "withdrawn",
            Self::Size => "size",
            Self::Deleted => "deleted",
        }
    }
}

impl Record {
    /// The file whose GET is a use of it: the root, or the only one. Metadata may belong to several images.
    pub fn root(&self) -> Option<&Piece> {
        self.pieces.last()
    }

    /// Whether it is there to stay.
    pub fn stays(&self) -> bool {
        self.fate == Fate::Stays
    }

    /// Whether a newer version is to take its place.
    pub fn is_tracked(&self) -> bool {
        self.auto_update && self.stays()
    }

    /// Whether an image is another version of the same: of the same remote, product and type.
    pub fn is_sibling_of(&self, other: &Self) -> bool {
        let is_same = |one: &Version, other: &Version| one.product.name == other.product.name;
        self.remote == other.remote && self.image_type == other.image_type && is_same(&self.version, &other.version)
    }

    /// Takes over from an image that this one takes the place of. What `owner` wanted, it goes on wanting.
    pub fn inherit(&mut self, older: &Self) {
        self.owner = older.owner;
        self.auto_update = older.auto_update;
        self.public = older.public;
        self.last_used_at = older.last_used_at;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use jiff::Timestamp;

    use crate::digest::{Digest, Fingerprint};
    use crate::image::architecture::Architecture;
    use crate::image::ftype::ImageType;
    use crate::image::version::{Product, Version};
    use crate::ledger::record::{Fate, Owner, Reason, Record};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn record(remote: &str, product: &str, image_type: ImageType) -> Record {
        let product = Product {
            name: product.to_owned(),
            architecture: Architecture::parse("amd64").unwrap(),
            aliases: Vec::new(),
            properties: BTreeMap::new(),
            title: String::new(),
            expires: None,
        };
        Record {
            fingerprint: Fingerprint::of_unified(Digest::of(b"image")),
            remote: remote.into(),
            image_type,
            root: None,
            version: Arc::new(Version {
                product: Arc::new(product),
                serial: "20260101".into(),
                date: "2026-01-01".parse().unwrap(),
                label: "".into(),
            }),
            pieces: Vec::new(),
            owner: Owner::Hosts,
            auto_update: true,
            public: true,
            cached_at: at(1),
            last_used_at: at(1),
            use_count: 1,
            expires_at: None,
            fate: Fate::Stays,
        }
    }

    #[test]
    fn only_what_stays_and_is_to_be_kept_up_to_date_is() {
        let leaves = Fate::Leaves(at(0), Reason::Superseded);
        for (auto_update, fate, expected) in
            [(true, Fate::Stays, true), (false, Fate::Stays, false), (true, leaves, false), (false, leaves, false)]
        {
            let record = Record { auto_update, fate, ..record("r", "p", ImageType::Container) };
            assert_eq!((record.is_tracked(), record.stays()), (expected, fate == Fate::Stays));
        }
    }

    #[test]
    fn versions_of_one_product_and_type_of_one_remote_are_siblings() {
        let one = record("r", "p", ImageType::Container);
        for (remote, product, image_type, expected) in [
            ("r", "p", ImageType::Container, true),
            ("other", "p", ImageType::Container, false),
            ("r", "other", ImageType::Container, false),
            ("r", "p", ImageType::VirtualMachine, false),
        ] {
            assert_eq!(one.is_sibling_of(&record(remote, product, image_type)), expected, "{remote} {product} {image_type}");
        }
    }

    /// design.md §3: "The successor inherits `cached`, `auto_update`, `last_used_at`, aliases of operators."
    #[test]
    fn what_takes_the_place_of_another_inherits_how_that_was_held() {
        let older = Record {
            owner: Owner::Operator,
            auto_update: false,
            public: false,
            last_used_at: at(9),
            use_count: 7,
            ..record("r", "p", ImageType::Container)
        };
        let mut newer = record("r", "p", ImageType::Container);
        newer.inherit(&older);
        assert_eq!((newer.owner, newer.auto_update, newer.public, newer.last_used_at), (Owner::Operator, false, false, at(9)));
        assert_eq!((newer.use_count, newer.cached_at), (1, at(1)), "these are its own");
    }
}
