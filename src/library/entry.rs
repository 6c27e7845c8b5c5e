//! Enters images of our own into the ledger.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cache::Cache;
use crate::digest::{Claim, Digest, Expected, Fingerprint};
use crate::http::path::StreamPath;
use crate::image::architecture::Architecture;
use crate::image::ftype::{ImageType, Root};
use crate::image::version::{Product, Version};
use crate::ledger::publication::{Publication, PublishedFile};
use crate::ledger::record::{Fate, Owner, Piece, Record};
use crate::library::error::LibraryError;
use crate::store::records;

/// A property is no longer than this, with its name.
const MAX_PROPERTY_BYTES: usize = 4096;
/// The remote under which our own images are listed.
pub const LOCAL: &str = "local";

/// Enters an image of our own into the ledger, or what became of it. When it was used is not changed by that.
pub fn enter(cache: &Cache, publication: &Publication) -> Result<(), LibraryError> {
    let record = record(publication, cache.now()).ok_or(LibraryError::NotRecorded)?;
    let before = cache.books().image(record.fingerprint);
    // What a remote has too stays the remote's, and stays.
    let record = match before {
        Some(before) if *before.remote != *LOCAL => {
            Record { owner: Owner::Operator, fate: Fate::Stays, expires_at: record.expires_at, ..before }
        }
        Some(before) => Record { last_used_at: before.last_used_at, use_count: before.use_count, cached_at: before.cached_at, ..record },
        None => record,
    };
    if !cache.books().read(|ledger| record.pieces.iter().all(|piece| ledger.blob(piece.digest).is_some())) {
        return Err(LibraryError::NotRecorded);
    }
    let (disk, layout) = (&**cache.store().disk(), cache.store().layout());
    let excerpt = records::excerpt(disk, layout, record.fingerprint)?;
    records::save(disk, layout, &record, excerpt)?;
    if cache.books().change(|ledger| ledger.record(record)) { Ok(()) } else { Err(LibraryError::NotRecorded) }
}

/// Whether the ledger has an image of our own as it is written, or has it as another remote's.
pub fn is_entered(cache: &Cache, publication: &Publication) -> bool {
    let record = Fingerprint::from_hex(&publication.fingerprint).and_then(|fingerprint| cache.books().image(fingerprint));
    record.is_some_and(|record| *record.remote != *LOCAL || record.public == publication.public || !record.stays())
}

/// Whether a file of an image of our own is not there any more. An error means that nobody knows.
pub fn is_lost(cache: &Cache, publication: &Publication) -> std::io::Result<bool> {
    for digest in publication.files.iter().filter_map(|file| Digest::from_hex(&file.sha256)) {
        if cache.store().blob(digest)?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A property that clients can show.
pub fn check_property(name: &str, value: &str) -> Result<(), LibraryError> {
    let is_name = !name.is_empty() && !name.ends_with('.') && !name.contains(|c: char| c.is_control() || c.is_whitespace() || c == '=');
    if is_name && !value.contains(char::is_control) && name.len() + value.len() <= MAX_PROPERTY_BYTES {
        return Ok(());
    }
    Err(LibraryError::BadProperty(name.chars().take(64).collect()))
}

/// The record of an image of our own; `None` if what is written of it makes no sense.
fn record(publication: &Publication, now: Timestamp) -> Option<Record> {
    let created = publication.made_at();
    let piece = |file: &PublishedFile| {
        let digest = Digest::from_hex(&file.sha256)?;
        let expected = Expected { claim: Claim::Sha256(digest), size: Some(file.size) };
        let path = StreamPath::from_document(&format!("images/{}/{}", publication.fingerprint, file.name)).ok()?;
        Some(Piece::new(path, expected, digest, file.size))
    };
    let product = Product {
        name: publication.product(),
        architecture: Architecture::parse(&publication.architecture)?,
        aliases: Vec::new(),
        properties: publication.properties.clone(),
        title: publication.properties.get("release_title").or_else(|| publication.properties.get("release")).cloned().unwrap_or_default(),
        expires: None,
    };
    let version = Version {
        product: Arc::new(product),
        serial: publication.serial().into(),
        date: TimeZone::UTC.to_datetime(created).date(),
        label: "".into(),
    };
    Some(Record {
        fingerprint: Fingerprint::from_hex(&publication.fingerprint)?,
        remote: LOCAL.into(),
        image_type: ImageType::of_label(&publication.image_type)?,
        root: publication.files.get(1).and_then(|file| Root::of_ftype(&file.ftype)),
        version: Arc::new(version),
        pieces: publication.files.iter().map(piece).collect::<Option<_>>()?,
        owner: Owner::Operator,
        auto_update: false,
        public: publication.public,
        cached_at: now,
        last_used_at: now,
        use_count: 0,
        expires_at: publication.ends_at(),
        fate: Fate::Stays,
    })
}
