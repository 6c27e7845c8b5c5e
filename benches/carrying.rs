//! What bundles cost, beside `cp` and `openssl dgst -sha256` on the same bytes. A disk that is carried away, and a store that is to
//! survive a loss of power, need the bytes to be there: whoever copies by hand has to say `sync`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cistern::digest::Digest;
use cistern::manifest::{BundlePath, File, MANIFEST, Manifest, SIGNATURE, Volume};
use cistern::seal::SigningKey;

use crate::support::origin::Origin;
use crate::support::stream::{Stream, Version, noise};
use crate::{CISTERN, Server, millis, report};

const ROUNDS: usize = 5;
const FILES: u64 = 4;
const FILE_BYTES: usize = 128 << 20;
const MANY: u64 = 100_000;

/// Exports, imports and imports again, each time beside what people would do by hand.
pub async fn run() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start().await;
    let stream = (0..FILES).fold(Stream::default(), |stream, number| {
        let version = Version::new(&format!("images/{number}")).file("squashfs", &noise(FILE_BYTES, number)).metadata("lxd.tar.xz", b"m");
        stream.add(&format!("noble:{number}:amd64"), &number.to_string(), "20260101", version)
    });
    origin.put(stream.tree());
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("connected")).unwrap();
    let connected = Server::start(&path("connected"), &origin.url()).await;
    connected.serves(&path("connected")).await;
    let export = |to: &Path| cistern(&path("connected"), &["bundle", "export", "ubuntu:", "--to", to.to_str().unwrap()]);
    // What is not held is fetched first, and memory that was never touched costs whoever touches it.
    export(&path("bundle"));
    std::fs::write(path("key"), cistern(&path("connected"), &["bundle", "key"]).1).unwrap();
    let (mut by_hand, mut exports, mut imports, mut again) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let site = path(&format!("site-{round}"));
        touch_memory(folder.path());
        by_hand.push(copied_and_hashed(&path("bundle"), &path("copy")));
        touch_memory(folder.path());
        exports.push(export(&path("exported")).0);
        touch_memory(folder.path());
        std::fs::create_dir(&site).unwrap();
        // Nobody answers there, and nothing is lost by that.
        let server = Server::start_offline(&site).await;
        cistern(&site, &["bundle", "trust", path("key").to_str().unwrap()]);
        let import = || cistern(&site, &["bundle", "import", path("bundle").to_str().unwrap()]).0;
        imports.push(import());
        again.push(import());
        drop(server);
        for done in [&path("copy"), &path("exported"), &site] {
            std::fs::remove_dir_all(done).unwrap();
        }
    }
    let (copied, synced) = by_hand.into_iter().unzip();
    let [copied, synced, exported, imported, again] = [copied, synced, exports, imports, again].map(median);
    let ratio = |time: Duration, to: Duration| time.as_secs_f64() / to.as_secs_f64();
    let size = FILES * (FILE_BYTES as u64 >> 20);
    report(&format!("cp and openssl dgst of a bundle of {size} MiB"), &millis(copied), "", true);
    report("the same with sync", &millis(synced), "", true);
    for (what, time) in [("export", exported), ("import", imported)] {
        let figure = format!("{what} of the same: times cp, openssl dgst and sync");
        report(&figure, &format!("{:.2}", ratio(time, synced)), "1", ratio(time, synced) <= 1.0);
        let figure = format!("{what} of the same: times cp and openssl dgst");
        report(&figure, &format!("{:.2}", ratio(time, copied)), "1", ratio(time, copied) <= 1.0);
    }
    report("import once more: times cp and openssl dgst", &format!("{:.3}", ratio(again, copied)), "0.1", ratio(again, copied) <= 0.1);
}

/// A bundle of very many files is verified.
pub fn verify() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = very_many_files(folder.path());
    let started = Instant::now();
    let mut child = Command::new(CISTERN).args(["bundle", "verify"]).arg(&bundle).stdout(Stdio::null()).spawn().unwrap();
    let mut most: f64 = 0.0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        most = most.max(line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() / 1024.0);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait().unwrap().success());
    let manifest = std::fs::metadata(bundle.join(MANIFEST)).unwrap().len() >> 20;
    report(&format!("a bundle of {MANY} files is verified"), &millis(started.elapsed()), "", true);
    let figure = format!("the same: most memory, with a manifest of {manifest} MiB");
    report(&figure, &format!("{most:.1} MiB"), "128 MiB", most < 128.0);
}

fn very_many_files(folder: &Path) -> PathBuf {
    let bytes = |number: u64| number.to_le_bytes();
    let blob = |number: u64| {
        let sha256 = Digest::of(&bytes(number));
        File { path: BundlePath::Blob(sha256), size: 8, sha256 }
    };
    let blobs: Vec<File> = (0..MANY).map(blob).collect();
    for (number, blob) in (0..MANY).zip(&blobs) {
        let path = folder.join(blob.path.to_string());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes(number)).unwrap();
    }
    let manifest =
        Manifest { generation: 1, created_at: "2026-11-27T00:00:00Z".to_owned(), volumes: vec![Volume { blobs }], ..Manifest::default() };
    let text = manifest.to_json();
    std::fs::write(folder.join(SIGNATURE), SigningKey::from_seed(&[1; 32]).unwrap().sign(&text)).unwrap();
    std::fs::write(folder.join(MANIFEST), text).unwrap();
    folder.to_owned()
}

/// Runs a command of ours; how long it took, and what it printed.
fn cistern(server: &Path, arguments: &[&str]) -> (Duration, Vec<u8>) {
    let started = Instant::now();
    let output = Command::new(CISTERN).env("CISTERN_SOCKET", server.join("admin.sock")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    (started.elapsed(), output.stdout)
}

/// A machine may give free memory back to its host, and then whoever writes first pays for all of it.
fn touch_memory(folder: &Path) {
    let path = folder.join("touch");
    std::fs::write(&path, vec![1; 1 << 30]).unwrap();
    std::fs::remove_file(path).unwrap();
}

/// How long it takes to copy and to hash, and to make sure of it as well.
fn copied_and_hashed(from: &Path, to: &Path) -> (Duration, Duration) {
    let started = Instant::now();
    let copied = Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    let find = |then: &str| {
        let command = format!("find {} -type f -exec {then} {{}} +", to.display());
        assert!(Command::new("sh").args(["-c", &command]).stdout(Stdio::null()).status().unwrap().success(), "apt-get install openssl");
        started.elapsed()
    };
    assert!(copied.success());
    (find("openssl dgst -sha256"), find("sync"))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
