//! A record as it is written down in a file of its own, from which the database can be made anew, and the parts of it that
//! the database has too.

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
    fingerprint: String,
    /// The remote that it came from.
    remote: String,
    product: Facts,
    version: String,
    date: String,
    label: String,
    #[serde(rename = "type")]
    image_type: String,
    root: Option<String>,
    files: Vec<File>,
    /// Who wants it held.
    owner: String,
    auto_update: bool,
    public: bool,
    cached_at: i64,
    last_used_at: i64,
    use_count: u64,
    expires_at: Option<i64>,
    leaves_at: Option<i64>,
    leaves_because: Option<String>,
}

/// What is known of a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    name: String,
    architecture: String,
    title: String,
    support_eol: Option<String>,
    aliases: Vec<String>,
    properties: BTreeMap<String, String>,
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
        let version = &record.version;
        let (leaves_at, leaves_because) = of_fate(record.fate);
        Self {
            fingerprint: record.fingerprint.to_string(),
            remote: record.remote.to_string(),
            product: Facts::from(&*version.product),
            version: version.serial.to_string(),
            date: version.date.to_string(),
            label: version.label.to_string(),
            image_type: record.image_type.label().to_owned(),
            root: record.root.map(|root| root.ftype().to_owned()),
            files: record.pieces.iter().map(File::from).collect(),
            owner: record.owner.label().to_owned(),
            auto_update: record.auto_update,
            public: record.public,
            cached_at: record.cached_at.as_millisecond(),
            last_used_at: record.last_used_at.as_millisecond(),
            use_count: record.use_count,
            expires_at: record.expires_at.map(Timestamp::as_millisecond),
            leaves_at,
            leaves_because: leaves_because.map(str::to_owned),
        }
    }
}

impl Written {
    /// The record, if it can be read; `None` if it was written by something else.
    pub fn read(self) -> Option<Record> {
        let date = self.date.parse::<Date>().ok()?;
        Some(Record {
            fingerprint: Fingerprint::from_hex(&self.fingerprint)?,
            remote: self.remote.into(),
            image_type: ImageType::of_label(&self.image_type)?,
            root: self.root.map(|root| Root::of_ftype(&root).ok_or(())).transpose().ok()?,
            version: Arc::new(Version {
                product: Arc::new(self.product.read()?),
                serial: self.version.into(),
                date,
                label: self.label.into(),
            }),
            pieces: self.files.iter().map(File::read).collect::<Option<_>>()?,
            owner: Owner::of_label(&self.owner)?,
            auto_update: self.auto_update,
            public: self.public,
            cached_at: time(self.cached_at)?,
            last_used_at: time(self.last_used_at)?,
            use_count: self.use_count,
            expires_at: self.expires_at.and_then(time),
            fate: fate(self.leaves_at, self.leaves_because.as_deref())?,
        })
    }
}

/// A time that was written down.
pub fn time(at: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(at).ok()
}

/// How a fate is written: since when an image leaves, and why.
pub fn of_fate(fate: Fate) -> (Option<i64>, Option<&'static str>) {
    match fate {
        Fate::Stays => (None, None),
        Fate::Leaves(at, reason) => (Some(at.as_millisecond()), Some(reason.label())),
    }
}

/// A fate that was written so.
pub fn fate(leaves_at: Option<i64>, leaves_because: Option<&str>) -> Option<Fate> {
    match (leaves_at, leaves_because) {
        (Some(at), Some(reason)) => Some(Fate::Leaves(time(at)?, Reason::of_label(reason)?)),
        _ => Some(Fate::Stays),
    }
}

impl From<&Product> for Facts {
    fn from(product: &Product) -> Self {
        Self {
            name: product.name.clone(),
            architecture: product.architecture.to_string(),
            title: product.title.clone(),
            support_eol: product.expires.map(|date| date.to_string()),
            aliases: product.aliases.clone(),
            properties: product.properties.clone(),
        }
    }
}

impl Facts {
    /// The product, if it can be read.
    pub fn read(self) -> Option<Product> {
        Some(Product {
            name: self.name,
            architecture: Architecture::parse(&self.architecture)?,
            aliases: self.aliases,
            properties: self.properties,
            title: self.title,
            expires: self.support_eol.and_then(|date| date.parse().ok()),
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
