//! The tables, and what is written to them.

use rusqlite::{CachedStatement, Connection, named_params, params};

use crate::digest::Claim;
use crate::image::ftype::Root;
use crate::ledger::change::Change;
use crate::ledger::record::{Piece, Record};
use crate::ledger::written::{self, Facts};

/// The tables of version 1. Times are milliseconds since 1970. Digests and fingerprints are their 32 bytes (`hex(digest)`
/// shows them), and what many images have in common is there once: a start waits until everything is read.
pub const TABLES: &str = "
    CREATE TABLE blobs (
        digest BLOB PRIMARY KEY, size INTEGER NOT NULL, last_used_at INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE products (
        id INTEGER PRIMARY KEY, facts TEXT NOT NULL UNIQUE
    );
    CREATE TABLE images (
        fingerprint BLOB PRIMARY KEY, remote TEXT NOT NULL, product INTEGER NOT NULL, version TEXT NOT NULL,
        date TEXT NOT NULL, label TEXT NOT NULL, type TEXT NOT NULL, root TEXT, owner TEXT NOT NULL, auto_update INTEGER NOT NULL,
        public INTEGER NOT NULL, cached_at INTEGER NOT NULL, last_used_at INTEGER NOT NULL, use_count INTEGER NOT NULL,
        expires_at INTEGER, leaves_at INTEGER, leaves_because TEXT
    ) WITHOUT ROWID;
    CREATE TABLE files (
        image BLOB NOT NULL, place INTEGER NOT NULL, path TEXT NOT NULL, digest BLOB NOT NULL,
        size INTEGER NOT NULL, claim TEXT, claimed_size INTEGER, PRIMARY KEY (image, place)
    ) WITHOUT ROWID;
";

/// Writes changes in one transaction.
pub fn write(connection: &mut Connection, changes: &[Change]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for change in changes {
        match change {
            Change::Blob(digest, size, at) => {
                run(&transaction, "INSERT OR REPLACE INTO blobs VALUES (?1, ?2, ?3)")?.execute(params![
                    digest.as_bytes(),
                    size,
                    at.as_millisecond()
                ])?;
            }
            Change::BlobGone(digest) => {
                run(&transaction, "DELETE FROM blobs WHERE digest = ?1")?.execute([digest.as_bytes()])?;
            }
            Change::Image(record) => put_image(&transaction, record)?,
            Change::ImageGone(fingerprint) => {
                run(&transaction, "DELETE FROM images WHERE fingerprint = ?1")?.execute([fingerprint.as_bytes()])?;
                run(&transaction, "DELETE FROM files WHERE image = ?1")?.execute([fingerprint.as_bytes()])?;
            }
        }
    }
    transaction.commit()
}

/// Removes products of which there is no image any more.
pub fn drop_products(connection: &Connection, ids: impl IntoIterator<Item = i64>) -> rusqlite::Result<()> {
    ids.into_iter().try_for_each(|id| run(connection, "DELETE FROM products WHERE id = ?1")?.execute([id]).map(drop))
}

fn put_image(connection: &Connection, record: &Record) -> rusqlite::Result<()> {
    const PUT: &str = "INSERT OR REPLACE INTO images VALUES (:fingerprint, :remote, :product, :version, :date, :label, :type, :root, \
        :owner, :auto_update, :public, :cached_at, :last_used_at, :use_count, :expires_at, :leaves_at, :leaves_because)";
    let version = &record.version;
    let (leaves_at, leaves_because) = written::of_fate(record.fate);
    run(connection, PUT)?.execute(named_params! {
        ":fingerprint": record.fingerprint.as_bytes(), ":remote": &*record.remote,
        ":product": put_product(connection, &Facts::from(&*version.product))?, ":version": version.serial,
        ":date": version.date.to_string(), ":label": version.label, ":type": record.image_type.label(),
        ":root": record.root.map(Root::ftype), ":owner": record.owner.label(), ":auto_update": record.auto_update,
        ":public": record.public, ":cached_at": record.cached_at.as_millisecond(), ":last_used_at": record.last_used_at.as_millisecond(),
        ":use_count": record.use_count, ":expires_at": record.expires_at.map(jiff::Timestamp::as_millisecond),
        ":leaves_at": leaves_at, ":leaves_because": leaves_because,
    })?;
    let image = record.fingerprint.as_bytes();
    for (place, piece) in record.pieces.iter().enumerate() {
        put_file(connection, image, place, piece)?;
    }
    let surplus = "DELETE FROM files WHERE image = ?1 AND place >= ?2";
    run(connection, surplus)?.execute(params![image, record.pieces.len()]).map(drop)
}

/// The product's number.
fn put_product(connection: &Connection, facts: &Facts) -> rusqlite::Result<i64> {
    let facts = serde_json::to_string(facts).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    run(connection, "INSERT INTO products (facts) VALUES (?1) ON CONFLICT DO NOTHING")?.execute([&facts])?;
    run(connection, "SELECT id FROM products WHERE facts = ?1")?.query_row([&facts], |row| row.get(0))
}

/// Writes a file of an image, unless it stands there: most often only the time of its image's use is new.
fn put_file(connection: &Connection, image: &[u8], place: usize, piece: &Piece) -> rusqlite::Result<()> {
    const PUT: &str = "INSERT INTO files VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET path = excluded.path, \
        digest = excluded.digest, size = excluded.size, claim = excluded.claim, claimed_size = excluded.claimed_size \
        WHERE (path, digest, size, claim, claimed_size) IS NOT (excluded.path, excluded.digest, excluded.size, excluded.claim, excluded.claimed_size)";
    let expected = piece.expected();
    let claim = (expected.claim != Claim::Sha256(piece.digest)).then(|| expected.claim.to_string());
    let (size, claimed_size) = (piece.size, expected.size);
    run(connection, PUT)?.execute(params![image, place, piece.path.as_str(), piece.digest.as_bytes(), size, claim, claimed_size]).map(drop)
}

fn run<'a>(connection: &'a Connection, sql: &str) -> rusqlite::Result<CachedStatement<'a>> {
    connection.prepare_cached(sql)
}
