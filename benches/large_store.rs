//! A store of 200,000 blobs as the ledger has it, a catalog that lists them, and what both are asked while files are served and
//! fetched.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use cistern::catalog::files::File;
use cistern::catalog::listing::Listing;
use cistern::catalog::mode::Mode;
use cistern::catalog::{Catalog, Remote};
use cistern::digest::{Claim, Digest, Expected, Fingerprint};
use cistern::http::path::StreamPath;
use cistern::image::architecture::Architecture;
use cistern::image::ftype::{ImageType, Root};
use cistern::image::version::{Product, Version};
use cistern::ledger::Ledger;
use cistern::ledger::account::Limits;
use cistern::ledger::record::{Fate, Owner, Piece, Record};
use cistern::retention::{Need, Rules, Scene, victims};
use jiff::Timestamp;

pub const BLOBS: u64 = 200_000;
/// Of every four blobs two are an image, and two are loose.
pub const IMAGES: u64 = BLOBS / 4;

/// So many seconds after the beginning.
pub fn at(second: u64) -> Timestamp {
    Timestamp::from_second(1_780_000_000 + i64::try_from(second).unwrap()).unwrap()
}

/// What a blob is called.
pub fn digest(number: u64) -> Digest {
    Digest::of(&number.to_le_bytes())
}

/// A ledger of so many blobs, of one byte each.
pub fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    for number in 0..BLOBS {
        ledger.admit(digest(number), 1, at(number));
        ledger.account.settle(0, 0, 1);
    }
    for number in 0..IMAGES {
        assert!(ledger.record(record(number)));
    }
    ledger
}

/// An image of two blobs.
pub fn record(number: u64) -> Record {
    let properties = [("os", "Ubuntu"), ("release", "noble"), ("version", "24.04"), ("architecture", "amd64")];
    let product = Product {
        name: format!("com.ubuntu.cloud:server:24.04:{}", number / 10),
        architecture: Architecture::parse("amd64").unwrap(),
        aliases: vec!["24.04".to_owned(), "noble".to_owned()],
        properties: properties.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        title: "24.04 LTS".to_owned(),
        expires: None,
    };
    let version = Version {
        product: Arc::new(product),
        serial: format!("202601{:02}", number % 10 + 1).into(),
        date: "2026-01-01".parse().unwrap(),
        label: "release".into(),
    };
    let piece = |blob: u64, name: &str| {
        let path = StreamPath::from_document(&format!("server/releases/noble/release-{number}/{name}")).unwrap();
        Piece::new(path, Expected { claim: Claim::Sha256(digest(blob)), size: Some(1) }, digest(blob), 1)
    };
    Record {
        fingerprint: Fingerprint::of_unified(Digest::of(&[number.to_le_bytes(), [1; 8]].concat())),
        remote: "ubuntu".into(),
        image_type: ImageType::Container,
        root: Some(Root::Squashfs),
        version: Arc::new(version),
        pieces: vec![piece(number * 2, "lxd.tar.xz"), piece(number * 2 + 1, "squashfs")],
        owner: Owner::Hosts,
        auto_update: number % 10 == 9,
        public: true,
        cached_at: at(number),
        last_used_at: at(number),
        use_count: 1,
        expires_at: None,
        fate: Fate::Stays,
    }
}

/// One remote in proxy mode lists everything.
pub fn catalog() -> Catalog {
    let mut listing = Listing::default();
    for number in 0..BLOBS {
        let path = StreamPath::from_document(&number.to_string()).unwrap();
        let expected = Expected { claim: Claim::Sha256(digest(number)), size: Some(1) };
        listing.add_file(File { path, expected, modified: None });
    }
    let remote = Remote { listing: Arc::new(listing), ..Remote::default() };
    let name: Arc<str> = "ubuntu".into();
    Catalog { modes: [(Arc::clone(&name), Mode::Proxy)].into(), remotes: [(name, Arc::new(remote))].into(), ..Catalog::default() }
}

/// A host asks for a blob.
pub fn touch(ledger: &mut Ledger, round: u64) {
    ledger.touch(digest(round * 7 % BLOBS), at(BLOBS + round));
}

/// A blob comes, and goes.
pub fn come_and_go(ledger: &mut Ledger, round: u64) {
    let fresh = digest(BLOBS + round);
    ledger.admit(fresh, 1, at(BLOBS + round));
    black_box(ledger.strike_lost(fresh));
}

/// A fetch finds no room: something is named, and leaves.
pub fn make_room(ledger: &mut Ledger, catalog: &Catalog) {
    let limits = Limits { capacity_bytes: BLOBS, min_free_bytes: 0 };
    let rules = Rules { auto_update: true, auto_update_cached: true, hold_back_max: Duration::ZERO, idle: None, grace: Duration::ZERO };
    assert!(ledger.account.promise(1, u64::MAX, &limits).is_err());
    let scene = Scene { ledger, catalog, is_leased: &|_| false, rules, now: at(BLOBS) };
    let sentences = victims(&scene, Need { least: 1, enough: 1 }).unwrap();
    let freed: u64 = sentences.iter().flat_map(|sentence| ledger.strike(sentence.unit)).map(|(_, size)| size).sum();
    ledger.account.release(freed);
    ledger.account.promise(1, u64::MAX, &limits).unwrap();
    ledger.account.settle(1, 1, freed);
}
