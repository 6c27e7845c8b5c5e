//! The ledger's database: what it keeps, and what becomes of one that cannot be used.

use std::path::Path;

use jiff::Timestamp;

use cistern::database::{Database, DatabaseError, Found};
use cistern::digest::Digest;
use cistern::disk::OsDisk;
use cistern::ledger::change::Change;

fn blobs(found: &Found) -> Option<Vec<(Digest, u64, Timestamp)>> {
    if let Found::Rows(rows) = found { Some(rows.blobs.clone()) } else { None }
}

async fn opened(path: &Path) -> Found {
    let (database, found) = Database::open(&OsDisk, path).unwrap();
    database.close().await;
    found
}

#[tokio::test]
async fn what_was_written_is_there_again_and_what_was_dropped_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let (database, found) = Database::open(&OsDisk, &path).unwrap();
    assert!(matches!(found, Found::Nothing));
    let (one, two, now) = (Digest::of(b"one"), Digest::of(b"two"), Timestamp::from_millisecond(1_234_567).unwrap());
    database.write(vec![Change::Blob(one, 5, now), Change::Blob(two, 6, now)]).await.unwrap();
    database.write(vec![Change::BlobGone(two), Change::Blob(one, 7, now)]).await.unwrap();
    database.close().await;
    assert_eq!(blobs(&opened(&path).await), Some(vec![(one, 7, now)]));
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_a_newer_one_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    std::fs::write(&path, b"this is no database, and never was one, whatever its name says".repeat(100)).unwrap();
    assert!(matches!(opened(&path).await, Found::Damaged(_)));
    assert!(folder.path().join("ledger.sqlite.damaged").exists());
    assert_eq!(blobs(&opened(&path).await), Some(Vec::new()));

    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 2).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = Database::open(&OsDisk, &path).unwrap_err();
    assert!(matches!(error, DatabaseError::Newer { version: 2, .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
