//! Reading the tables: everything, once, at the start.

use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use jiff::Timestamp;
use rusqlite::types::FromSqlError;
use rusqlite::{Connection, Row, Rows};

use crate::database::tables;
use crate::digest::{Claim, Digest, Expected, Fingerprint};
use crate::http::path::StreamPath;
use crate::image::ftype::{ImageType, Root};
use crate::image::version::{Product, Version};
use crate::ledger::Ledger;
use crate::ledger::loading::Loading;
use crate::ledger::record::{Owner, Piece, Record};
use crate::ledger::written::{self, Facts};

/// All images, their columns in this order, and in the order of their files.
const IMAGES: &str = "SELECT fingerprint, remote, product, version, date, label, type, root, owner, auto_update, public, cached_at, \
    last_used_at, use_count, expires_at, leaves_at, leaves_because FROM images ORDER BY fingerprint";
const FILES: &str = "SELECT image, path, digest, size, claim, claimed_size FROM files ORDER BY image, place";

/// Reads everything. A row that makes no sense is passed over: what it was about is found in the store.
pub fn load(connection: &Connection) -> rusqlite::Result<Ledger> {
    let mut loading = Loading::with_room(count(connection, "blobs")?, count(connection, "images")?);
    let mut blobs = connection.prepare("SELECT digest, size, last_used_at FROM blobs")?;
    let mut rows = blobs.query([])?;
    while let Some(row) = rows.next()? {
        if let Ok((digest, size, last_used_at)) = blob(row) {
            loading.blob(digest, size, last_used_at);
        }
    }
    let mut shared = Shared::load(connection)?;
    let (mut images, mut files) = (connection.prepare(IMAGES)?, connection.prepare(FILES)?);
    let (mut images, mut files) = (images.query([])?, Files { rows: files.query([])?, next: None });
    while let Some(row) = images.next()? {
        let Ok(fingerprint) = bytes(row, 0, Fingerprint::from_bytes) else { continue };
        let Some(pieces) = files.of(fingerprint)? else { continue };
        if let Ok(record) = record(row, fingerprint, pieces, &mut shared) {
            loading.image(record);
        }
    }
    if let Err(error) = tables::drop_products(connection, shared.unused) {
        tracing::warn!(%error, "the database could not be tidied up");
    }
    Ok(loading.finish())
}

fn count(connection: &Connection, table: &str) -> rusqlite::Result<usize> {
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
}

fn blob(row: &Row<'_>) -> rusqlite::Result<(Digest, u64, Timestamp)> {
    Ok((bytes(row, 0, Digest::from_bytes)?, row.get(1)?, time(row, 2)?))
}

/// A row of [`IMAGES`].
fn record(row: &Row<'_>, fingerprint: Fingerprint, pieces: Vec<Piece>, shared: &mut Shared) -> rusqlite::Result<Record> {
    let version = Version {
        product: shared.product(row.get(2)?).ok_or(FromSqlError::InvalidType)?,
        serial: text(row, 3, |serial| Some(shared.text(serial)))?,
        date: text(row, 4, |date| date.parse().ok())?,
        label: text(row, 5, |label| Some(shared.text(label)))?,
    };
    let leaves_because: Option<String> = row.get(16)?;
    Ok(Record {
        fingerprint,
        remote: text(row, 1, |name| Some(shared.text(name)))?,
        image_type: text(row, 6, ImageType::of_label)?,
        root: optional(row, 7, Root::of_ftype)?,
        version: Arc::new(version),
        pieces,
        owner: text(row, 8, Owner::of_label)?,
        auto_update: row.get(9)?,
        public: row.get(10)?,
        cached_at: time(row, 11)?,
        last_used_at: time(row, 12)?,
        use_count: row.get(13)?,
        expires_at: row.get::<_, Option<i64>>(14)?.and_then(written::time),
        fate: written::fate(row.get(15)?, leaves_because.as_deref()).ok_or(FromSqlError::InvalidType)?,
    })
}

/// A row of [`FILES`].
fn piece(row: &Row<'_>) -> rusqlite::Result<Piece> {
    let digest = bytes(row, 2, Digest::from_bytes)?;
    let claim = optional(row, 4, Claim::parse)?.unwrap_or(Claim::Sha256(digest));
    let path = text(row, 1, |path| StreamPath::from_document(path).ok())?;
    Ok(Piece::new(path, Expected { claim, size: row.get(5)? }, digest, row.get(3)?))
}

fn text<T>(row: &Row<'_>, column: usize, read: impl FnOnce(&str) -> Option<T>) -> rusqlite::Result<T> {
    Ok(read(row.get_ref(column)?.as_str()?).ok_or(FromSqlError::InvalidType)?)
}

fn optional<T>(row: &Row<'_>, column: usize, read: impl FnOnce(&str) -> Option<T>) -> rusqlite::Result<Option<T>> {
    row.get_ref(column)?.as_str_or_null()?.map(|text| Ok(read(text).ok_or(FromSqlError::InvalidType)?)).transpose()
}

fn bytes<T>(row: &Row<'_>, column: usize, read: impl FnOnce(&[u8]) -> Option<T>) -> rusqlite::Result<T> {
    Ok(read(row.get_ref(column)?.as_blob()?).ok_or(FromSqlError::InvalidType)?)
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(written::time(row.get(column)?).ok_or(FromSqlError::InvalidType)?)
}

/// What many images have in common: a fleet's mirror holds a hundred versions of one product, and none needs a copy of its
/// properties.
struct Shared {
    /// Names of remotes and versions, and labels.
    texts: HashSet<Arc<str>>,
    products: HashMap<i64, Arc<Product>>,
    /// Products of which there was no image so far.
    unused: HashSet<i64>,
}

impl Shared {
    fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare("SELECT id, facts FROM products")?;
        let mut rows = statement.query([])?;
        let (mut products, mut unused) = (HashMap::default(), HashSet::default());
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            unused.insert(id);
            let product = text(row, 1, |facts| serde_json::from_str::<Facts>(facts).ok()?.read());
            products.extend(product.ok().map(|product| (id, Arc::new(product))));
        }
        Ok(Self { texts: HashSet::default(), products, unused })
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }

    fn product(&mut self, id: i64) -> Option<Arc<Product>> {
        self.unused.remove(&id);
        self.products.get(&id).cloned()
    }
}

/// The files of images, which are asked for in the order of fingerprints.
struct Files<'a> {
    rows: Rows<'a>,
    /// The next one, `None` if it makes no sense.
    next: Option<(Fingerprint, Option<Piece>)>,
}

impl Files<'_> {
    /// The files of an image, if there are any and all of them make sense.
    fn of(&mut self, image: Fingerprint) -> rusqlite::Result<Option<Vec<Piece>>> {
        // Most images have two, and what is not used of a vector is held for as long as the image.
        let mut pieces = Vec::with_capacity(2);
        while self.peek()?.is_some_and(|of| of <= image) {
            pieces.extend(self.next.take().filter(|(of, _)| *of == image).map(|(_, piece)| piece));
        }
        Ok(pieces.into_iter().collect::<Option<Vec<_>>>().filter(|pieces| !pieces.is_empty()))
    }

    fn peek(&mut self) -> rusqlite::Result<Option<Fingerprint>> {
        while self.next.is_none() {
            let Some(row) = self.rows.next()? else { return Ok(None) };
            self.next = bytes(row, 0, Fingerprint::from_bytes).ok().map(|image| (image, piece(row).ok()));
        }
        Ok(self.next.as_ref().map(|(image, _)| *image))
    }
}
