//! The tables, and what is read from them and written to them.

use jiff::Timestamp;
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
use rusqlite::{Connection, Row, ToSql, named_params, params};

use crate::digest::Digest;
use crate::ledger::change::Change;
use crate::ledger::record::Record;
use crate::ledger::shared::Shared;
use crate::ledger::written::{Details, Written};

/// The tables of version 1. Times are milliseconds since 1970, digests are hexadecimal so that people can read them.
pub const TABLES: &str = "
    CREATE TABLE blobs (
        digest TEXT PRIMARY KEY, size INTEGER NOT NULL, last_used_at INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE images (
        fingerprint TEXT PRIMARY KEY, remote TEXT NOT NULL, product TEXT NOT NULL, version TEXT NOT NULL, type TEXT NOT NULL,
        architecture TEXT NOT NULL, size INTEGER NOT NULL, owner TEXT NOT NULL, auto_update INTEGER NOT NULL, public INTEGER NOT NULL,
        created_at INTEGER NOT NULL, cached_at INTEGER NOT NULL, last_used_at INTEGER NOT NULL, use_count INTEGER NOT NULL,
        expires_at INTEGER, leaves_at INTEGER, leaves_because TEXT, details TEXT NOT NULL
    ) WITHOUT ROWID;
";

/// All images, their columns in this order.
const IMAGES: &str = "SELECT fingerprint, remote, product, version, type, architecture, size, owner, auto_update, public, \
    created_at, cached_at, last_used_at, use_count, expires_at, leaves_at, leaves_because, details FROM images";
/// So many rows are read before they are looked at.
const BATCH: usize = 2048;

/// Everything that is in the tables.
#[derive(Debug, Default)]
pub struct Rows {
    /// Digest, size, and when it was last asked for.
    pub blobs: Vec<(Digest, u64, Timestamp)>,
    /// All images. One whose row makes no sense is not among them.
    pub images: Vec<Record>,
}

/// Reads everything.
pub fn load(connection: &mut Connection) -> rusqlite::Result<Rows> {
    let mut rows = Rows::default();
    let count: i64 = connection.query_row("SELECT count(*) FROM blobs", [], |row| row.get(0))?;
    rows.blobs.reserve_exact(usize::try_from(count).unwrap_or_default());
    let mut blobs = connection.prepare("SELECT digest, size, last_used_at FROM blobs")?;
    let mut found = blobs.query([])?;
    while let Some(row) = found.next()? {
        rows.blobs.extend(blob(row)?);
    }
    let mut images = connection.prepare(IMAGES)?;
    let mut found = images.query([])?;
    let (mut batch, mut shared) = (Vec::with_capacity(BATCH), Shared::default());
    while let Some(row) = found.next()? {
        batch.push(written(row)?);
        if batch.len() == BATCH {
            rows.images.extend(read(std::mem::take(&mut batch)).into_iter().map(|record| shared.share(record)));
        }
    }
    rows.images.extend(read(batch).into_iter().map(|record| shared.share(record)));
    Ok(rows)
}

/// Makes records of rows, side by side: there may be very many, and a start waits for them.
fn read(batch: Vec<(Written, String)>) -> Vec<Record> {
    let record =
        |(written, details): (Written, String)| Written { details: serde_json::from_str::<Details>(&details).ok()?, ..written }.read();
    batch.into_par_iter().filter_map(record).collect()
}

fn blob(row: &Row<'_>) -> rusqlite::Result<Option<(Digest, u64, Timestamp)>> {
    let digest = Digest::from_hex(row.get_ref(0)?.as_str()?);
    let (size, last_used_at) = (unsigned(row.get(1)?), Timestamp::from_millisecond(row.get(2)?).ok());
    Ok(digest.zip(last_used_at).map(|(digest, at)| (digest, size, at)))
}

/// A row of [`IMAGES`], and its details as they are written.
fn written(row: &Row<'_>) -> rusqlite::Result<(Written, String)> {
    let written = Written {
        fingerprint: row.get(0)?,
        remote: row.get(1)?,
        product: row.get(2)?,
        version: row.get(3)?,
        image_type: row.get(4)?,
        architecture: row.get(5)?,
        size: unsigned(row.get(6)?),
        owner: row.get(7)?,
        auto_update: row.get(8)?,
        public: row.get(9)?,
        created_at: row.get(10)?,
        cached_at: row.get(11)?,
        last_used_at: row.get(12)?,
        use_count: unsigned(row.get(13)?),
        expires_at: row.get(14)?,
        leaves_at: row.get(15)?,
        leaves_because: row.get(16)?,
        details: Details::default(),
    };
    Ok((written, row.get(17)?))
}

/// Writes changes in one transaction.
pub fn write(connection: &mut Connection, changes: &[Change]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for change in changes {
        match change {
            Change::Blob(digest, size, at) => {
                let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO blobs VALUES (?1, ?2, ?3)")?;
                put.execute(params![digest.to_string(), signed(*size), at.as_millisecond()])?;
            }
            Change::BlobGone(digest) => drop_row(&transaction, "DELETE FROM blobs WHERE digest = ?1", &digest.to_string())?,
            Change::Image(record) => put_image(&transaction, &Written::from(&**record))?,
            Change::ImageGone(fingerprint) => {
                drop_row(&transaction, "DELETE FROM images WHERE fingerprint = ?1", &fingerprint.to_string())?;
            }
        }
    }
    transaction.commit()
}

fn drop_row(connection: &Connection, sql: &str, key: &dyn ToSql) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([key]).map(drop)
}

fn put_image(connection: &Connection, image: &Written) -> rusqlite::Result<()> {
    const PUT: &str = "INSERT OR REPLACE INTO images VALUES (:fingerprint, :remote, :product, :version, :type, :architecture, :size, :owner, \
        :auto_update, :public, :created_at, :cached_at, :last_used_at, :use_count, :expires_at, :leaves_at, :leaves_because, :details)";
    let details = serde_json::to_string(&image.details).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let mut put = connection.prepare_cached(PUT)?;
    put.execute(named_params! {
        ":fingerprint": image.fingerprint, ":remote": image.remote, ":product": image.product, ":version": image.version,
        ":type": image.image_type, ":architecture": image.architecture, ":size": signed(image.size), ":owner": image.owner,
        ":auto_update": image.auto_update, ":public": image.public, ":created_at": image.created_at, ":cached_at": image.cached_at,
        ":last_used_at": image.last_used_at, ":use_count": signed(image.use_count), ":expires_at": image.expires_at,
        ":leaves_at": image.leaves_at, ":leaves_because": image.leaves_because, ":details": details,
    })
    .map(drop)
}

/// `SQLite` has no unsigned numbers. Nothing here is as large as that makes a difference.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
