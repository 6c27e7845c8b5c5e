//! Two hundred hosts that behave like LXD, for a minute or for as many seconds as `CISTERN_SOAK` says; the whole form is
//! `CISTERN_SOAK=600 cargo test --test soak -- --nocapture`.
//!
//! Upstream publishes new versions and fails at random, and the store holds a part of what hosts want. All the while: no host
//! gets a wrong byte as a whole file, nothing that was listed within grace is called missing, the store is never over its
//! capacity, memory is flat. When the hosts have left, nothing of them is left.

mod fleet;
#[path = "../support/main.rs"]
mod support;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use cistern::digest::Digest;
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, Tally};
use crate::support::origin::Origin;
use crate::support::server::Server;
use crate::support::stream::{Stream, Version, noise};

const HOSTS: usize = 200;
const IMAGES: usize = 30;
/// Half of what the newest versions of all images have.
const CAPACITY: u32 = 12 << 20;
const GRACE: Duration = Duration::from_secs(15);
/// Upstream has the files of a version for so long after it listed it last: what we listed in good faith, while a refresh failed
/// or a newer version was on its way, is there for as long as a host may keep our documents.
const KEPT: Duration = Duration::from_secs(40);
/// One request in so many goes wrong upstream.
const CHAOS: u32 = 12;
/// So often the store may hold too much in a row.
const LOOKS: usize = 10;

/// The versions of each image that upstream lists: the newest and the one before.
struct Publisher {
    origins: Vec<Origin>,
    serials: HashMap<usize, u32>,
    /// What is listed no more, and since when.
    dropped: VecDeque<(Instant, usize, u32)>,
}

impl Publisher {
    async fn start() -> Self {
        let mut origins = Vec::new();
        for _ in 0..2 {
            origins.push(Origin::start().await);
        }
        let publisher = Self { origins, serials: (0..IMAGES).map(|image| (image, 1)).collect(), dropped: VecDeque::new() };
        publisher.put();
        publisher
    }

    fn publish(&mut self) {
        let image = fastrand::usize(..IMAGES);
        let newest = self.serials.entry(image).or_default();
        *newest += 1;
        self.dropped.push_back((Instant::now(), image, *newest - 2));
        self.put();
        while let Some((_, image, serial)) = self.dropped.pop_front_if(|(since, ..)| since.elapsed() > KEPT) {
            for file in ["squashfs", "metadata.tar.xz"] {
                self.origins.iter().for_each(|origin| origin.remove(&format!("i/{image}/{serial}/{file}")));
            }
        }
    }

    fn put(&self) {
        let versions = self.serials.iter().flat_map(|(image, newest)| [newest - 1, *newest].map(|serial| (*image, serial)));
        let stream = versions.fold(Stream::default(), |stream, (image, serial)| {
            let product = format!("busy:{image}:amd64");
            stream.add(&product, &format!("a{image}"), &format!("2026{serial:04}"), version(image, serial))
        });
        self.origins.iter().for_each(|origin| origin.put(stream.tree()));
    }
}

fn version(image: usize, serial: u32) -> Version {
    let seed = image as u64 * 10_000 + u64::from(serial);
    let size = 200_000 + image * 40_000;
    Version::new(&format!("i/{image}/{serial}"))
        .file("squashfs", &noise(size, seed))
        .metadata("lxd.tar.xz", format!("metadata of {image} {serial}").as_bytes())
}

/// What the server needs at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    resident_bytes: u64,
    descriptors: usize,
    tasks: f64,
}

async fn metric(server: &Server, name: &str) -> f64 {
    let text = reqwest::Client::builder().no_proxy().build().unwrap().get(server.metrics()).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("there is no {name}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn sample(server: &Server) -> Sample {
    let size = metric(server, "cistern_cache_size_bytes").await;
    assert!(size <= f64::from(CAPACITY), "{size} of {CAPACITY}");
    is_within_capacity(server).await;
    Sample { resident_bytes: server.resident_bytes(), descriptors: server.descriptors(), tasks: metric(server, "cistern_tasks").await }
}

/// The server says so itself; and a look at the disk says the same. Whoever reads a piece of a file that goes in that moment has it
/// open for as long as that takes.
async fn is_within_capacity(server: &Server) {
    let mut looks = Vec::new();
    loop {
        let stored = server.stored();
        let size: u64 = stored.values().sum();
        if size <= u64::from(CAPACITY) {
            return;
        }
        looks.push(size);
        assert!(looks.len() < LOOKS, "{looks:?} bytes lie in the store, of {CAPACITY}, the last time {stored:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn config(publisher: &Publisher) -> String {
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let urls: Vec<String> = publisher.origins.iter().map(Origin::url).collect();
    let grace = GRACE.as_secs();
    format!(
        "capacity = \"{CAPACITY}B\"\nscrub = \"20s\"\n[server]\nlisten = [\"127.0.0.1:0\"]\nmetrics = \"127.0.0.1:{port}\"\n\
         admin_socket = \"{{folder}}/admin.sock\"\n[images]\ngrace = \"{grace}s\"\nhold_back_max = \"10s\"\n\
         [limits]\nclient_fetches = 64\nsilence_timeout = \"1s\"\nretry_wrong = \"1s\"\nretry_gone = \"1s\"\n\
         [remotes.lab]\nurl = {urls:?}\ninterval = \"2s\""
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_hosts_a_failing_upstream_and_too_little_room() {
    let time = Duration::from_secs(std::env::var("CISTERN_SOAK").map_or(60, |seconds| seconds.parse().unwrap()));
    let mut publisher = Publisher::start().await;
    let server = Server::start(&config(&publisher), &[]);
    let fleet = Fleet::new(&server, GRACE);
    fleet.is_served().await;
    let before = sample(&server).await;
    publisher.origins.iter().for_each(|origin| origin.fail_one_in(CHAOS));

    let stop = CancellationToken::new();
    let hosts: Vec<_> = (0..HOSTS).map(|_| tokio::spawn(fleet.clone().host(stop.clone()))).collect();
    let (started, mut samples) = (Instant::now(), Vec::new());
    while started.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if samples.len() % 4 == 0 {
            publisher.publish();
        }
        samples.push(sample(&server).await);
        assert!(hosts.iter().all(|host| !host.is_finished()), "a host has seen what it must not see");
    }
    stop.cancel();
    let mut tally = Tally::default();
    for host in hosts {
        tally += host.await.unwrap();
    }
    println!("{tally:?} in {time:?}; at the start {before:?}, at the end {:?}", samples.last());
    assert!(tally.whole > HOSTS && tally.whole > 4 * tally.refused, "most is served: {tally:?}");
    is_flat(&samples);
    is_clean(&server, before).await;
}

/// The last third needs no more than the one before it did.
fn is_flat(samples: &[Sample]) {
    let third = samples.len() / 3;
    let most = |samples: &[Sample]| samples.iter().map(|sample| sample.resident_bytes).max().unwrap();
    let (middle, last) = (most(&samples[third..2 * third]), most(&samples[2 * third..]));
    assert!(last < middle + middle / 4 + (8 << 20), "{middle} bytes and then {last}");
}

/// Nothing is left of hosts that have gone, and what is held is right.
async fn is_clean(server: &Server, before: Sample) {
    let started = Instant::now();
    loop {
        let after = sample(server).await;
        // Each open file of the cache is one more.
        let has_gone = after.tasks <= before.tasks + 2.0 && after.descriptors <= before.descriptors + 2 * IMAGES * 4;
        let is_still = metric(server, "cistern_fetches_in_flight").await + metric(server, "cistern_fetch_readers").await < 0.5;
        if has_gone && is_still {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{after:?}, and before {before:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for folder in std::fs::read_dir(server.folder().join("store/blobs/sha256")).unwrap() {
        for blob in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let blob = blob.unwrap().path();
            assert!(blob.ends_with(Digest::of(&std::fs::read(&blob).unwrap()).to_string()), "{}", blob.display());
        }
    }
}
