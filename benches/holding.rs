//! Figures of a store with 200,000 blobs, and of commands over many images.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cistern::api;
use cistern::catalog::listing::{File, Listing};
use cistern::catalog::mode::Mode;
use cistern::catalog::{Catalog, Remote};
use cistern::cli::admin::ask;
use cistern::database::Database;
use cistern::digest::{Claim, Digest, Expected, Fingerprint};
use cistern::disk::OsDisk;
use cistern::http::path::StreamPath;
use cistern::image::architecture::Architecture;
use cistern::image::ftype::{ImageType, Root};
use cistern::image::version::{Product, Version};
use cistern::ledger::Ledger;
use cistern::ledger::account::Limits;
use cistern::ledger::record::{Fate, Owner, Piece, Record};
use cistern::retention::{Need, Rules, Scene, victims};
use cistern::store::layout::Layout;
use cistern::store::records;
use jiff::Timestamp;

use crate::support::large::large_document;
use crate::support::mirror::wait_for;
use crate::support::origin::Origin;
use crate::{Server, millis, report};

const BLOBS: u64 = 200_000;
/// Of every four blobs two are an image, and two are loose.
const IMAGES: u64 = BLOBS / 4;

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(1_780_000_000 + i64::try_from(second).unwrap()).unwrap()
}

fn digest(number: u64) -> Digest {
    Digest::of(&number.to_le_bytes())
}

/// A ledger of so many blobs, of one byte each.
fn ledger() -> Ledger {
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

fn record(number: u64) -> Record {
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

/// A program that starts over such a store.
pub async fn large_store() {
    let (folder, mut origin) = (tempfile::tempdir().unwrap(), Origin::start().await);
    drop(Server::start(folder.path(), &origin.url()).await);
    origin.stop().await;
    fill(folder.path()).await;
    let mut times = Vec::new();
    let mut most: f64 = 0.0;
    for _ in 0..3 {
        let started = Instant::now();
        let server = Server::start(folder.path(), &origin.url()).await;
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
        while client.get(format!("http://{}/", server.address)).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        times.push(started.elapsed());
        // What goes on after the first answer costs memory too.
        tokio::time::sleep(Duration::from_secs(8)).await;
        most = most.max(server.resident_mib());
    }
    times.sort();
    report("start over 200,000 blobs: a host is answered", &millis(times[1]), "1000 ms", times[1] < Duration::from_secs(1));
    report("200,000 blobs and 50,000 images: most memory", &format!("{most:.1} MiB"), "100 MiB", most < 100.0);
}

async fn fill(folder: &Path) {
    let layout = Layout::new(&folder.join("store"));
    let (database, _) = Database::open(&OsDisk, &layout.database()).unwrap();
    database.write(ledger().take_changes()).await.unwrap();
    database.close().await;
    for number in 0..BLOBS {
        std::fs::write(layout.blob(digest(number)), b"x").unwrap();
    }
    for number in 0..IMAGES {
        records::save(&OsDisk, &layout, &record(number), None).unwrap();
    }
}

/// What the ledger is asked while files are served and fetched.
pub fn decisions() {
    let mut ledger = ledger();
    let catalog = catalog();
    let limits = Limits { capacity_bytes: BLOBS, min_free_bytes: 0 };
    let rules = Rules { auto_update: true, auto_update_cached: true, hold_back_max: Duration::ZERO, idle: None, grace: Duration::ZERO };
    let each = |name: &str, mut act: Box<dyn FnMut(u64) + '_>| {
        const ROUNDS: u64 = 20_000;
        let started = Instant::now();
        (0..ROUNDS).for_each(&mut act);
        let micros = started.elapsed().as_secs_f64() * 1e6 / f64::from(u32::try_from(ROUNDS).unwrap());
        report(&format!("200,000 blobs: {name}"), &format!("{micros:.2} us"), "5 us", micros < 5.0);
    };
    each("touch", Box::new(|round| ledger.touch(digest(round * 7 % BLOBS), at(BLOBS + round))));
    each(
        "admit and strike",
        Box::new(|round| {
            let fresh = digest(BLOBS + round);
            ledger.admit(fresh, 1, at(BLOBS + round));
            black_box(ledger.strike_lost(fresh));
        }),
    );
    each(
        "reserve where there is no room: name a victim and strike it",
        Box::new(|_| {
            assert!(ledger.account.promise(1, u64::MAX, &limits).is_err());
            let scene = Scene { ledger: &ledger, catalog: &catalog, is_leased: &|_| false, rules, now: at(BLOBS) };
            let sentences = victims(&scene, Need { least: 1, enough: 1 }).unwrap();
            let freed: u64 = sentences.iter().flat_map(|sentence| ledger.strike(sentence.unit)).map(|(_, size)| size).sum();
            ledger.account.release(freed);
            ledger.account.promise(1, u64::MAX, &limits).unwrap();
            ledger.account.settle(1, 1, freed);
        }),
    );
}

/// One remote in proxy mode lists everything.
fn catalog() -> Catalog {
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

/// Listing many images.
pub async fn list() {
    const WANTED: usize = 2000;
    let (folder, origin) = (tempfile::tempdir().unwrap(), Origin::start().await);
    let mut items = WANTED;
    let images = loop {
        origin.put(large_document(items, "20260101"));
        let server = Server::start(folder.path(), &origin.url()).await;
        server.serves(folder.path()).await;
        let count = listed(folder.path()).await.0;
        if count >= WANTED {
            break server;
        }
        items = items * (WANTED + 50) / count.max(1);
        drop(server);
        std::fs::remove_dir_all(folder.path().join("store")).unwrap();
    };
    let mut times = Vec::new();
    let mut count = 0;
    for _ in 0..9 {
        let (images, time) = listed(folder.path()).await;
        count = images;
        times.push(time);
    }
    drop(images);
    times.sort();
    report(
        &format!("image list of {count} images, asked over the admin socket"),
        &millis(times[4]),
        "100 ms",
        times[4] < Duration::from_millis(100),
    );
}

async fn listed(folder: &Path) -> (usize, Duration) {
    let socket = folder.join("admin.sock");
    wait_for(async || socket.exists()).await;
    let started = Instant::now();
    let images = ask::<Vec<api::Image>>(&socket, hyper::Method::GET, "/1.0/images", Vec::new()).await.unwrap();
    (images.len(), started.elapsed())
}
