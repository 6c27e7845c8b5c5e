//! Figures of a store with 200,000 blobs, and of commands over many images.

use std::path::Path;
use std::time::{Duration, Instant};

use cistern::api;
use cistern::cli::admin::ask;
use cistern::database::Database;
use cistern::disk::OsDisk;
use cistern::store::layout::Layout;
use cistern::store::records;

use crate::large_store::{BLOBS, IMAGES, catalog, come_and_go, digest, ledger, make_room, record, touch};
use crate::support::large::large_document;
use crate::support::mirror::wait_for;
use crate::support::origin::Origin;
use crate::{Server, millis, report};

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
        most = most.max(server.most_mib());
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
    let (mut ledger, catalog) = (ledger(), catalog());
    let each = |name: &str, mut act: Box<dyn FnMut(u64) + '_>| {
        const ROUNDS: u64 = 20_000;
        let started = Instant::now();
        (0..ROUNDS).for_each(&mut act);
        let micros = started.elapsed().as_secs_f64() * 1e6 / f64::from(u32::try_from(ROUNDS).unwrap());
        report(&format!("200,000 blobs: {name}"), &format!("{micros:.2} us"), "5 us", micros < 5.0);
    };
    each("touch", Box::new(|round| touch(&mut ledger, round)));
    each("admit and strike", Box::new(|round| come_and_go(&mut ledger, round)));
    each("reserve where there is no room: name a victim and strike it", Box::new(|_| make_room(&mut ledger, &catalog)));
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
