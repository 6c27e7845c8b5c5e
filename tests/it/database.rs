//! The ledger's database: what it keeps, and what becomes of one that cannot be used.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use cistern::database::{Database, DatabaseError, Found};
use cistern::digest::{Claim, Digest, Expected, Fingerprint};
use cistern::disk::OsDisk;
use cistern::http::path::StreamPath;
use cistern::image::architecture::Architecture;
use cistern::image::ftype::{ImageType, Root};
use cistern::image::version::{Product, Version};
use cistern::ledger::change::Change;
use cistern::ledger::record::{Fate, Owner, Piece, Reason, Record};

fn blobs(found: &Found) -> Option<Vec<(Digest, u64, Timestamp)>> {
    let Found::Ledger(ledger) = found else { return None };
    Some(ledger.blobs().map(|(digest, held)| (digest, held.size, held.last_used_at)).collect())
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

/// An image of which every field says something, with its blobs.
fn image(name: &str) -> (Record, Vec<Change>) {
    let product = Product {
        name: "p".to_owned(),
        architecture: Architecture::parse("arm64").unwrap(),
        aliases: vec!["a".to_owned(), "b".to_owned()],
        properties: BTreeMap::from([("os".to_owned(), "Ubuntu".to_owned())]),
        title: "title".to_owned(),
        expires: Some("2030-04-01".parse().unwrap()),
    };
    let version =
        Version { product: Arc::new(product), serial: "20260101".into(), date: "2026-01-01".parse().unwrap(), label: "release".into() };
    let (metadata, root, at) = (Digest::of(b"metadata"), Digest::of(name.as_bytes()), |at| Timestamp::from_millisecond(at).unwrap());
    let piece = |path: &str, claim, size, digest| Piece::new(StreamPath::from_document(path).unwrap(), Expected { claim, size }, digest, 7);
    let record = Record {
        fingerprint: Fingerprint::of_unified(Digest::of(&[name.as_bytes(), b"fingerprint"].concat())),
        remote: "ubuntu".into(),
        image_type: ImageType::VirtualMachine,
        root: Some(Root::DiskKvm),
        version: Arc::new(version),
        pieces: vec![
            piece("m/lxd.tar.xz", Claim::Md5([5; 16]), None, metadata),
            piece(&format!("{name}/disk"), Claim::Sha256(root), Some(7), root),
        ],
        owner: Owner::Operator,
        auto_update: true,
        public: false,
        cached_at: at(1),
        last_used_at: at(2),
        use_count: 3,
        expires_at: Some(at(4)),
        fate: Fate::Leaves(at(5), Reason::Withdrawn),
    };
    let changes = vec![Change::Blob(metadata, 7, at(0)), Change::Blob(root, 7, at(0)), Change::Image(Box::new(record.clone()))];
    (record, changes)
}

fn images(found: &Found) -> Vec<Record> {
    let Found::Ledger(ledger) = found else { return Vec::new() };
    let mut images: Vec<_> = ledger.images().cloned().collect();
    images.sort_by_key(|record| record.fingerprint);
    images
}

#[tokio::test]
async fn every_field_of_an_image_is_kept_and_a_row_that_makes_no_sense_is_no_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let ((one, of_one), (two, of_two), (_, of_three)) = (image("one"), image("two"), image("three"));
    let (database, _) = Database::open(&OsDisk, &path).unwrap();
    database.write([of_one, of_two, of_three.clone()].concat()).await.unwrap();
    let used = Record { use_count: 4, expires_at: None, fate: Fate::Stays, root: None, ..two };
    database.write(vec![Change::Image(Box::new(used.clone()))]).await.unwrap();
    let Change::Image(three) = &of_three[2] else { unreachable!() };
    database.write(vec![Change::ImageGone(three.fingerprint)]).await.unwrap();
    database.close().await;
    let mut kept = vec![one.clone(), used.clone()];
    kept.sort_by_key(|record| record.fingerprint);
    assert_eq!(images(&opened(&path).await), kept);

    // One file of one image: all of that image, and of the other one nothing.
    let rows = rusqlite::Connection::open(&path).unwrap();
    rows.execute("UPDATE files SET path = '../up' WHERE image = ?1 AND place = 1", [one.fingerprint.as_bytes()]).unwrap();
    drop(rows);
    assert_eq!(images(&opened(&path).await), [used]);
}

#[tokio::test]
async fn a_product_without_images_is_not_kept_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let (record, changes) = image("one");
    let (database, _) = Database::open(&OsDisk, &path).unwrap();
    database.write(changes).await.unwrap();
    database.write(vec![Change::ImageGone(record.fingerprint)]).await.unwrap();
    database.close().await;
    opened(&path).await;
    for table in ["products", "images", "files"] {
        let rows = rusqlite::Connection::open(&path).unwrap();
        let count: i64 = rows.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0, "{table}");
    }
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

#[tokio::test]
async fn a_link_that_leads_nowhere_makes_no_database_there() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, target) = (folder.path().join("ledger.sqlite"), elsewhere.path().join("target"));
    std::os::unix::fs::symlink(&target, &path).unwrap();
    assert!(matches!(opened(&path).await, Found::Nothing));
    assert!(!target.exists() && path.symlink_metadata().unwrap().is_file());
}
