//! The works that are done by one server after the other.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cistern::digest::Digest;
use rustls::ClientConfig;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::load::{Got, Target, hosts, tls};
use crate::machine::{processors, processors_used};
use crate::origin::Origin;
use crate::server::Server;
use crate::table::{Goal, Table};

#[path = "../../tests/support/large.rs"]
mod large;

/// How often each work is done by each server.
const ROUNDS: usize = 5;
const MIB: usize = 1 << 20;
const WARM: &str = "cold/warm";
/// Bytes in a second of an image server that is far.
const FAR: f64 = 200e6;
/// The same for a crowd: what 64 hosts together take of it, which two processors can still move over loopback.
const FAR_FOR_A_CROWD: f64 = 15e6;

type Work = fn(&Bench, &mut Table);

/// Each work by its name.
pub const WORKS: [(&str, Work); 8] = [
    ("plain", plain),
    ("tls", over_tls),
    ("connections", connections),
    ("gzip", packed),
    ("cold", cold),
    ("herd", herd),
    ("local", local),
    ("memory", memory),
];

/// The servers, the image server behind them, and a folder for all of it.
pub struct Bench {
    origin: Origin,
    cistern: Server,
    nginx: Server,
    squid: Server,
    tls: Arc<ClientConfig>,
    folder: TempDir,
}

/// What one server made of a work.
struct Done {
    seconds: f64,
    gib: f64,
    cpu_per_gib: f64,
    /// The most memory that it had meanwhile, in MiB.
    memory: f64,
    got: Vec<Got>,
}

impl Bench {
    /// Starts everybody. Cistern has its documents then, and the others the same ones.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let origin = Origin::start();
        origin.put(files());
        let cistern = Server::cistern(&folder.path().join("cistern"), origin.address());
        let certificates = folder.path().join("cistern/store/tls");
        // Its sockets are there before its certificate is.
        while !certificates.join("server.key").exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let tls = tls(&std::fs::read(certificates.join("ca.crt")).expect("it made one"));
        let nginx = Server::nginx(&folder.path().join("nginx"), origin.address(), &certificates);
        let squid = Server::squid(&folder.path().join("squid"), origin.address());
        let bench = Self { origin, cistern, nginx, squid, tls, folder };
        bench.share_documents();
        bench
    }

    /// Another Cistern, over a store of its own.
    fn another_cistern(&self) -> Server {
        let cistern = Server::cistern(&self.folder.path().join("another"), self.origin.address());
        wait_for(&self.warm(&cistern, false));
        cistern
    }

    /// Waits until Cistern serves its documents, and gives nginx what it serves, packed as it packs it.
    fn share_documents(&self) {
        wait_for(&self.target(&self.cistern, "streams/v1/large.json", true));
        let files = self.folder.path().join("nginx/files");
        std::fs::create_dir_all(files.join("streams/v1")).expect("there is room");
        for name in ["index.json", "large.json"] {
            for (suffix, encoding) in [("", "identity"), (".gz", "gzip")] {
                let output = std::process::Command::new("curl")
                    .args(["-sk", "-H", &format!("Accept-Encoding: {encoding}")])
                    .arg(format!("https://{}/bench/streams/v1/{name}", self.cistern.secure))
                    .output()
                    .expect("curl is installed; apt-get install curl");
                std::fs::write(files.join(format!("streams/v1/{name}{suffix}")), output.stdout).expect("there is room");
            }
        }
        std::fs::write(files.join("warm"), &*bytes(WARM, 512 * MIB)).expect("there is room");
    }

    fn target(&self, server: &Server, path: &str, with_tls: bool) -> Target {
        Target {
            address: if with_tls { server.secure } else { server.plain },
            tls: with_tls.then(|| Arc::clone(&self.tls)),
            path: format!("{}{path}", server.prefix),
            headers: "",
            bytes: None,
        }
    }

    /// The same, and every byte of the answer is looked at.
    fn checked(&self, server: &Server, path: &str) -> Target {
        Target { bytes: self.origin.file(path), ..self.target(server, path, false) }
    }

    /// The same file that all of them hold, as each holds it best.
    fn warm(&self, server: &Server, with_tls: bool) -> Target {
        self.target(server, if server.name == "nginx" { "warm" } else { WARM }, with_tls)
    }
}

/// Waits until it is there.
fn wait_for(target: &Target) {
    let started = Instant::now();
    while target.get().is_err() {
        assert!(started.elapsed() < Duration::from_mins(1), "{} is not there", target.path);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Does a work with one server after the other, in rounds; of each what it did in each round.
fn compare(servers: &[&Server], work: impl Fn(&Server) -> Vec<Got>) -> Vec<Vec<Done>> {
    let mut all: Vec<Vec<Done>> = servers.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (server, done) in servers.iter().zip(&mut all) {
            done.push(measure(server, || work(server)));
        }
    }
    all
}

/// Does a work, and looks at what that cost the server.
fn measure(server: &Server, work: impl Fn() -> Vec<Got>) -> Done {
    server.forget_most_memory();
    let (cpu, started) = (server.cpu_seconds(), Instant::now());
    let got = work();
    let seconds = started.elapsed().as_secs_f64();
    let gib = got.iter().map(|got| got.bytes).sum::<u64>() as f64 / f64::from(1 << 30);
    Done { seconds, gib, cpu_per_gib: (server.cpu_seconds() - cpu) / gib, memory: server.memory_mib().1, got }
}

/// Files that the image server has, with the documents that list them.
fn files() -> Vec<(String, Arc<Vec<u8>>)> {
    let mut files = vec![(WARM.to_owned(), bytes(WARM, 512 * MIB))];
    let colds = (0..ROUNDS).map(|round| (far(round), 256)).chain((0..ROUNDS).map(|round| (crowded(round), 32)));
    let locals = (0..ROUNDS).flat_map(|round| (0..5).map(move |number| (near(round, number), 128)));
    files.extend(colds.chain(locals).map(|(path, mib)| (path.clone(), bytes(&path, mib * MIB))));
    let products: Map<String, Value> = files.iter().map(|(path, bytes)| product(path, bytes)).collect();
    let names: Vec<&String> = products.keys().collect();
    let mut large = String::from_utf8(large::large_document(13_500, "20260101").remove(1).1).expect("it is JSON");
    large = large.replace("\"content_id\":\"images\"", "\"content_id\":\"large\"");
    let entry = |path: &str, products: Value| json!({"datatype": "image-downloads", "path": path, "products": products});
    let index = json!({"format": "index:1.0", "index": {
        "images": entry("streams/v1/images.json", json!(names)), "large": entry("streams/v1/large.json", json!(["x"]))}});
    let images = json!({"format": "products:1.0", "content_id": "images", "products": products});
    files.push(("streams/v1/index.json".to_owned(), Arc::new(index.to_string().into_bytes())));
    files.push(("streams/v1/images.json".to_owned(), Arc::new(images.to_string().into_bytes())));
    files.push(("streams/v1/large.json".to_owned(), Arc::new(large.into_bytes())));
    files
}

/// A file with no metadata beside it, so that there is no fingerprint to compute.
fn product(path: &str, bytes: &[u8]) -> (String, Value) {
    let item = json!({"ftype": "squashfs", "path": path, "size": bytes.len(), "sha256": Digest::of(bytes).to_string()});
    let versions = json!({"20260101": {"items": {"squashfs": item}}});
    (format!("bench:{path}:amd64"), json!({"aliases": path, "arch": "amd64", "os": "bench", "release": path, "versions": versions}))
}

fn far(round: usize) -> String {
    format!("cold/far-{round}")
}

fn crowded(round: usize) -> String {
    format!("cold/crowded-{round}")
}

fn near(round: usize, number: usize) -> String {
    format!("cold/near-{round}-{number}")
}

/// Bytes that are no other file's.
fn bytes(path: &str, len: usize) -> Arc<Vec<u8>> {
    let seed = path.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    Arc::new(bytes)
}

/// A file of 512 MiB that is held, over plain HTTP.
fn plain(bench: &Bench, table: &mut Table) {
    for (readers, times, faster) in [(1, 6, 1.1), (8, 2, 1.4)] {
        bulk(bench, table, false, readers, times, (faster, 0.9));
    }
}

/// The same over TLS 1.3.
fn over_tls(bench: &Bench, table: &mut Table) {
    for (readers, times) in [(1, 3), (8, 1)] {
        bulk(bench, table, true, readers, times, (1.2, 0.85));
    }
}

fn bulk(bench: &Bench, table: &mut Table, with_tls: bool, readers: usize, times: usize, (faster, cheaper): (f64, f64)) {
    let mut servers = vec![&bench.cistern, &bench.nginx];
    if !with_tls {
        servers.push(&bench.squid);
    }
    for server in &servers {
        let target = Target { bytes: bench.origin.file(WARM), ..bench.warm(server, with_tls) };
        target.get().expect("it has the file");
    }
    let read = |server: &Server| {
        let target = bench.warm(server, with_tls);
        // Squid takes ten times as long, and once is enough to see that.
        let times = if server.name == "squid" { 1 } else { times };
        hosts(readers, |_| (0..times).map(|_| target.get()).collect())
    };
    let done = compare(&servers, read);
    let work = format!("warm file of 512 MiB, {}, {readers} readers", if with_tls { "TLS 1.3" } else { "plain HTTP" });
    let speed = |done: &Done| done.gib / done.seconds;
    let cost = |done: &Done| done.cpu_per_gib;
    for (server, done) in servers.iter().zip(&done) {
        table.add(&work, &format!("{}: GiB/s", server.name), median(done.iter().map(speed)), Goal::None, all(done, speed));
        table.add(&work, &format!("{}: CPU s/GiB", server.name), median(done.iter().map(cost)), Goal::None, all(done, cost));
        first_bytes_and_memory(table, &work, server, done);
    }
    table.add(&work, "throughput, nginx = 1", ratio(&done[0], &done[1], speed), Goal::AtLeast(faster), Value::Null);
    table.add(&work, "CPU s/GiB, nginx = 1", ratio(&done[0], &done[1], cost), Goal::AtMost(cheaper), Value::Null);
}

/// LXD's way: a new connection over TLS for each small document.
fn connections(bench: &Bench, table: &mut Table) {
    const HOSTS: usize = 4;
    const TIMES: usize = 400;
    let servers = [&bench.cistern, &bench.nginx];
    let done = compare(&servers, |server| {
        let target = bench.target(server, "streams/v1/index.json", true);
        hosts(HOSTS, |_| (0..TIMES).map(|_| target.get()).collect())
    });
    requests(table, "a new TLS connection for each small document", &servers, &done, 1.1, true);
}

/// A packed document of 4 MiB, again and again on one connection.
fn packed(bench: &Bench, table: &mut Table) {
    const HOSTS: usize = 4;
    const TIMES: usize = 200;
    let servers = [&bench.cistern, &bench.nginx];
    let done = compare(&servers, |server| {
        let target = Target { headers: "Accept-Encoding: gzip\r\n", ..bench.target(server, "streams/v1/large.json", true) };
        hosts(HOSTS, |_| target.get_often(TIMES))
    });
    requests(table, "a packed document of 4 MiB, keep-alive, TLS", &servers, &done, 1.0, false);
}

/// When hosts got their first bytes, and what memory that took.
fn first_bytes_and_memory(table: &mut Table, work: &str, server: &Server, done: &[Done]) {
    for (name, percent) in [("median", 50), ("p99", 99)] {
        let first = |done: &Done| percentile(&done.got, percent) * 1000.0;
        table.add(work, &format!("{}: first byte, {name}, ms", server.name), median(done.iter().map(first)), Goal::None, all(done, first));
    }
    let most = |done: &Done| done.memory;
    table.add(work, &format!("{}: most memory, MiB", server.name), median(done.iter().map(most)), Goal::None, all(done, most));
}

fn requests(table: &mut Table, work: &str, servers: &[&Server], done: &[Vec<Done>], faster: f64, no_later: bool) {
    let speed = |done: &Done| done.got.len() as f64 / done.seconds;
    let late = |done: &Done| percentile(&done.got, 99) * 1000.0;
    let cost = |done: &Done| done.cpu_per_gib * done.gib / done.got.len() as f64 * 1e6;
    for (server, done) in servers.iter().zip(done) {
        table.add(work, &format!("{}: requests/s", server.name), median(done.iter().map(speed)), Goal::None, all(done, speed));
        table.add(work, &format!("{}: CPU us/request", server.name), median(done.iter().map(cost)), Goal::None, all(done, cost));
        first_bytes_and_memory(table, work, server, done);
    }
    table.add(work, "requests/s, nginx = 1", ratio(&done[0], &done[1], speed), Goal::AtLeast(faster), Value::Null);
    let goal = if no_later { Goal::AtMost(1.0) } else { Goal::None };
    table.add(work, "first byte, p99, nginx = 1", ratio(&done[0], &done[1], late), goal, Value::Null);
}

/// A file that nobody holds, from an image server that is far, one reader.
fn cold(bench: &Bench, table: &mut Table) {
    let work = "cold file of 256 MiB, upstream at 200 MB/s, 1 reader";
    bench.origin.set_rate(Some(FAR));
    let (mut totals, mut lags) = (Vec::new(), Vec::new());
    let (mut nginx, mut drawn) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let path = far(round);
        let direct = direct(bench, &path);
        bench.origin.take_served();
        let got = bench.checked(&bench.cistern, &path).get().expect("it fetches the file");
        let served = bench.origin.take_served();
        let first = served.first.expect("it was asked");
        drawn.push(served.bytes as f64 / got.bytes as f64);
        totals.push(got.total.as_secs_f64() / direct);
        lags.push(got.first.saturating_duration_since(first).as_secs_f64() * 1000.0);
        nginx.push(bench.checked(&bench.nginx, &path).get().expect("it fetches the file").total.as_secs_f64() / direct);
    }
    bench.origin.set_rate(None);
    table.add(work, "cistern: total, direct = 1", median(totals.iter().copied()), Goal::AtMost(1.03), json!(totals));
    table.add(work, "cistern: first byte after upstream's, ms", median(lags.iter().copied()), Goal::AtMost(5.0), json!(lags));
    table.add(work, "cistern: bytes of upstream's, the file = 1", max(&drawn), Goal::AtMost(1.0), json!(drawn));
    table.add(work, "nginx: total, direct = 1", median(nginx.iter().copied()), Goal::None, json!(nginx));
}

/// The same, and 64 hosts want it at once.
fn herd(bench: &Bench, table: &mut Table) {
    let work = "cold file of 32 MiB, upstream at 15 MB/s, 64 readers";
    bench.origin.set_rate(Some(FAR_FOR_A_CROWD));
    for (server, prefix, name) in [
        (&bench.cistern, "", "cistern"),
        (&bench.nginx, "", "nginx"),
        (&bench.nginx, "sliced/", "nginx with slices"),
        (&bench.squid, "", "squid"),
    ] {
        let is_ours = server.name == "cistern";
        let (mut requests, mut totals, mut firsts, mut drawn, mut memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let path = crowded(round);
            let direct = direct(bench, &path);
            bench.origin.take_served();
            let mut target = bench.checked(server, &path);
            target.path = format!("{}{prefix}{path}", server.prefix);
            server.forget_most_memory();
            let got = hosts(64, |_| target.get().map(|got| vec![got]));
            memory.push(server.memory_mib().1);
            let served = bench.origin.take_served();
            let upstream = served.first.expect("it was asked");
            requests.push(served.requests as f64);
            drawn.push(served.bytes as f64 / got[0].bytes as f64);
            totals.push(got.iter().map(|got| got.total).max().unwrap_or_default().as_secs_f64() / direct);
            let lag = |got: &Got| got.first.saturating_duration_since(upstream).as_secs_f64() * 1000.0;
            firsts.push(got.iter().map(lag).fold(0.0, f64::max));
        }
        let goal = |goal| if is_ours { goal } else { Goal::None };
        table.add(work, &format!("{name}: upstream requests"), max(&requests), goal(Goal::AtMost(1.0)), json!(requests));
        table.add(work, &format!("{name}: bytes of upstream's, the file = 1"), max(&drawn), goal(Goal::AtMost(1.0)), json!(drawn));
        table.add(work, &format!("{name}: total, direct = 1"), median(totals.iter().copied()), goal(Goal::AtMost(1.05)), json!(totals));
        let late = median(firsts.iter().copied());
        table.add(work, &format!("{name}: last first byte after upstream's, ms"), late, goal(Goal::AtMost(50.0)), json!(firsts));
        table.add(work, &format!("{name}: most memory, MiB"), median(memory.iter().copied()), Goal::None, json!(memory));
    }
    bench.origin.set_rate(None);
}

/// Files that nobody holds, from an image server as fast as the machine: what hashing, writing and serving cost.
fn local(bench: &Bench, table: &mut Table) {
    /// The part of all processors that leaves next to nothing.
    const NEARLY_ALL: f64 = 0.9;
    let work = "cold file of 128 MiB, upstream as fast as the machine";
    let servers = [&bench.cistern, &bench.nginx];
    let mut costs = [Vec::new(), Vec::new()];
    // Of the machine, which its hosts and the image server share with a server, and its own.
    let (mut used, mut busy) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    // What the bytes have to go through in any case, and the peer does not do.
    let mut hashes = Vec::new();
    for round in 0..ROUNDS {
        hashes.push(cost_of_hashing(&bench.origin.file(&near(round, 0)).expect("it has the file")));
        for (at, server) in servers.iter().enumerate() {
            touch_memory(bench);
            let one = bench.checked(server, &near(round, 0));
            costs[at].push(measure(server, || vec![one.get().expect("it fetches the file")]).cpu_per_gib);
            touch_memory(bench);
            let of_four = |number| bench.checked(server, &near(round, number + 1)).get().map(|got| vec![got]);
            let (four, processors) = processors_used(|| measure(server, || hosts(4, of_four)));
            used[at].push(processors);
            busy[at].push(four.cpu_per_gib * four.gib / four.seconds);
        }
    }
    for (at, server) in servers.iter().enumerate() {
        let goal = |goal| if at == 0 { goal } else { Goal::None };
        let mut add = |figure: &str, all: &[f64], goal| {
            table.add(work, &format!("{}: {figure}", server.name), median(all.iter().copied()), goal, json!(all));
        };
        add("CPU s/GiB", &costs[at], goal(Goal::AtMost(1.5)));
        add("processors of the machine in use, 4 files at once", &used[at], goal(Goal::AtLeast(NEARLY_ALL * processors())));
        add("of these its own", &busy[at], Goal::None);
    }
    table.add(work, "SHA-256 of a file in memory: s/GiB", median(hashes.iter().copied()), Goal::None, json!(hashes));
    let ratios = (0..ROUNDS).map(|round| costs[0][round] / (costs[1][round] + hashes[round]));
    table.add(work, "CPU s/GiB, nginx and that hash = 1", median(ratios), Goal::None, Value::Null);
}

/// How many seconds a GiB takes to be hashed, on one processor.
fn cost_of_hashing(bytes: &[u8]) -> f64 {
    let started = Instant::now();
    std::hint::black_box(Digest::of(bytes));
    started.elapsed().as_secs_f64() * f64::from(1 << 30) / bytes.len() as f64
}

/// Hosts that ask nothing, or take nothing, and a server that has done nothing else.
fn memory(bench: &Bench, table: &mut Table) {
    let cistern = bench.another_cistern();
    for server in [&cistern, &bench.nginx] {
        let goal = |most| if server.name == "cistern" { Goal::AtMost(most) } else { Goal::None };
        let target = bench.warm(server, false);
        target.get().expect("it has the file");
        table.add("no hosts", &format!("{}: MiB", server.name), server.memory_mib().0, Goal::None, Value::Null);
        let stopped: Vec<TcpStream> = (0..1000).map(|_| target.begin().expect("it answers")).collect();
        std::thread::sleep(Duration::from_secs(3));
        table.add("1,000 hosts that stopped reading", &format!("{}: MiB", server.name), server.memory_mib().0, goal(64.0), Value::Null);
        drop(stopped);
        std::thread::sleep(Duration::from_secs(2));
        let idle: Vec<TcpStream> = (0..10_000).map(|_| connect(server.plain)).collect();
        std::thread::sleep(Duration::from_secs(2));
        table.add("10,000 idle connections", &format!("{}: MiB", server.name), server.memory_mib().0, goal(200.0), Value::Null);
        drop(idle);
        std::thread::sleep(Duration::from_secs(2));
    }
    for server in [&bench.cistern, &bench.nginx] {
        table.add("at the end of all works", &format!("{}: most MiB ever", server.name), server.memory_mib().1, Goal::None, Value::Null);
    }
}

/// Fills memory with a file and removes it, so that the machine has memory at hand for the next one. A virtual machine returns to
/// its host what is free, and to get a page back at the first write into it takes several times as long as that write.
fn touch_memory(bench: &Bench) {
    let path = bench.folder.path().join("memory");
    std::fs::write(&path, vec![1_u8; 1024 * MIB]).expect("there is room");
    std::fs::remove_file(&path).expect("it was written");
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).expect("it accepts")
}

/// How long a host takes that asks the image server itself.
fn direct(bench: &Bench, path: &str) -> f64 {
    let target = Target { address: bench.origin.address(), tls: None, path: format!("/{path}"), headers: "", bytes: None };
    target.get().expect("the image server answers").total.as_secs_f64()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// The median of what one was to the other, round by round.
fn ratio(one: &[Done], other: &[Done], figure: impl Fn(&Done) -> f64) -> f64 {
    median(one.iter().zip(other).map(|(one, other)| figure(one) / figure(other)))
}

fn all(done: &[Done], figure: impl Fn(&Done) -> f64) -> Value {
    json!(done.iter().map(figure).collect::<Vec<_>>())
}

/// When the first byte was there for so many in a hundred, in seconds.
fn percentile(got: &[Got], percent: usize) -> f64 {
    let mut firsts: Vec<f64> = got.iter().map(|got| got.first_after.as_secs_f64()).collect();
    firsts.sort_by(f64::total_cmp);
    firsts[(firsts.len() * percent / 100).min(firsts.len() - 1)]
}
