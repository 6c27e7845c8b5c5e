//! A record as it is written down: in the database, and in a file of its own from which the database can be made anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::digest::{Claim, Digest, Expected, Fingerprint};
use crate::http::path::StreamPath;
use crate::image::architecture::Architecture;
use crate::image::ftype::{ImageType, Root};
use crate::image::version::{Product, Version};
use crate::ledger::record::{Fate, Owner, Piece, Reason, Record};

/// A record. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// In hexadecimal.
    pub fingerprint: String,
    /// The remote that it came from.
    pub remote: String,
    /// The product's name.
    pub product: String,
    /// The version's serial.
    pub version: String,
    /// `container` or `virtual-machine`.
    #[serde(rename = "type")]
    pub image_type: String,
    /// By LXD's name.
    pub architecture: String,
    /// In bytes.
    pub size: u64,
    /// Who wants it held.
    pub owner: String,
    /// LXD's flag.
    pub auto_update: bool,
    /// LXD's flag.
    pub public: bool,
    /// The day of its serial.
    pub created_at: i64,
    /// When its last file arrived.
    pub cached_at: i64,
    /// When a host last used it.
    pub last_used_at: i64,
    /// How often hosts did.
    pub use_count: u64,
    /// When it ends.
    pub expires_at: Option<i64>,
    /// Since when it is on its way out.
    pub leaves_at: Option<i64>,
    /// And why.
    pub leaves_because: Option<String>,
    /// The rest.
    pub details: Details,
}

/// What nobody would look for by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    root: Option<String>,
    label: String,
    date: String,
    title: String,
    support_eol: Option<String>,
    aliases: Vec<String>,
    properties: BTreeMap<String, String>,
    files: Vec<File>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    path: String,
    claim: String,
    claimed_size: Option<u64>,
    digest: String,
    size: u64,
}

impl From<&Record> for Written {
    fn from(record: &Record) -> Self {
        let (version, product) = (&record.version, &record.version.product);
        let (leaves_at, leaves_because) = match record.fate {
            Fate::Stays => (None, None),
            Fate::Leaves(at, reason) => (Some(at.as_millisecond()), Some(reason.label().to_owned())),
        };
        Self {
            fingerprint: record.fingerprint.to_string(),
            remote: record.remote.to_string(),
            product: product.name.clone(),
            version: version.serial.clone(),
            image_type: record.image_type.to_string(),
            architecture: product.architecture.to_string(),
            size: record.size(),
            owner: record.owner.label().to_owned(),
            auto_update: record.auto_update,
            public: record.public,
            created_at: version.created_at().as_millisecond(),
            cached_at: record.cached_at.as_millisecond(),
            last_used_at: record.last_used_at.as_millisecond(),
            use_count: record.use_count,
            expires_at: record.expires_at.map(Timestamp::as_millisecond),
            leaves_at,
            leaves_because,
            details: Details {
                root: record.root.map(|root| root.ftype().to_owned()),
                label: version.label.clone(),
                date: version.date.to_string(),
                title: product.title.clone(),
                support_eol: product.expires.map(|date| date.to_string()),
                aliases: product.aliases.clone(),
                properties: product.properties.clone(),
                files: record.pieces.iter().map(File::from).collect(),
            },
        }
    }
}

impl Written {
    /// The record, if it can be read; `None` if it was written by something else.
    pub fn read(self) -> Option<Record> {
        let time = |at: i64| Timestamp::from_millisecond(at).ok();
        let fate = match (self.leaves_at, self.leaves_because) {
            (Some(at), Some(reason)) => Fate::Leaves(time(at)?, Reason::ALL.into_iter().find(|known| known.label() == reason)?),
            _ => Fate::Stays,
        };
        let Details { root, label, date, title, support_eol, aliases, properties, files } = self.details;
        let product = Product {
            name: self.product,
            architecture: Architecture::parse(&self.architecture)?,
            aliases,
            properties,
            title,
            expires: support_eol.and_then(|date| date.parse().ok()),
        };
        Some(Record {
            fingerprint: Fingerprint::from_hex(&self.fingerprint)?,
            remote: self.remote.into(),
            image_type: ImageType::ALL.into_iter().find(|known| known.to_string() == self.image_type)?,
            root: root.map(|root| Root::ALL.into_iter().find(|known| known.ftype() == root).ok_or(())).transpose().ok()?,
            version: Arc::new(Version { product: Arc::new(product), serial: self.version, date: date.parse::<Date>().ok()?, label }),
            pieces: files.iter().map(File::read).collect::<Option<_>>()?,
            owner: Owner::ALL.into_iter().find(|known| known.label() == self.owner)?,
            auto_update: self.auto_update,
            public: self.public,
            cached_at: time(self.cached_at)?,
            last_used_at: time(self.last_used_at)?,
            use_count: self.use_count,
            expires_at: self.expires_at.and_then(time),
            fate,
        })
    }
}

impl From<&Piece> for File {
    fn from(piece: &Piece) -> Self {
        let (Piece { path, digest, size, .. }, expected) = (piece, piece.expected());
        Self {
            path: path.to_string(),
            claim: expected.claim.to_string(),
            claimed_size: expected.size,
            digest: digest.to_string(),
            size: *size,
        }
    }
}

impl File {
    fn read(&self) -> Option<Piece> {
        let expected = Expected { claim: Claim::parse(&self.claim)?, size: self.claimed_size };
        let path = StreamPath::from_document(&self.path).ok()?;
        Some(Piece::new(path, expected, Digest::from_hex(&self.digest)?, self.size))
    }
}
