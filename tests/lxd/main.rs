//! End to end with Debian's real `lxd` and `lxc`: what hosts make of what they are served.
//!
//! `cargo test` skips these where the programs are missing, and says so; with `CISTERN_REQUIRE_LXD=1`, as in CI, a missing
//! program is a failure.

mod host;
mod images;
mod nginx;
#[path = "../support/main.rs"]
mod support;
mod tap;

use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::host::Host;
use crate::images::Build;
use crate::nginx::Nginx;
use crate::support::mirror::{Builder, Mirror, wait_for};
use crate::support::origin::Origin;
use crate::support::stream::{Stream, Version, fingerprint, noise};
use crate::tap::{Opening, Tap};

const PROGRAMS: [&str; 8] = ["lxd", "lxc", "busybox", "mksquashfs", "xz", "tar", "xdelta3", "nginx"];

/// One daemon at a time: two would share what the kernel has one of.
static TURN: Mutex<()> = Mutex::const_new(());

/// Takes the turn, or says why the test is skipped.
async fn turn() -> Option<MutexGuard<'static, ()>> {
    let is_missing =
        |program: &&str| !std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|folder| folder.join(program).exists());
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(is_missing).collect();
    let is_root = rustix::process::geteuid().is_root();
    if missing.is_empty() && is_root {
        return Some(TURN.lock().await);
    }
    let reason = if is_root { format!("not installed: {}", missing.join(", ")) } else { "lxd needs root".to_owned() };
    assert!(std::env::var_os("CISTERN_REQUIRE_LXD").is_none(), "the tests with the real lxd cannot run: {reason}");
    eprintln!("SKIPPED: a test with the real lxd; {reason}");
    None
}

fn arch() -> &'static str {
    if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" }
}

/// A version with every kind of root, over one metadata file.
fn version(folder: &str, build: &Build) -> Version {
    let version =
        Version::new(folder).file("squashfs", &build.squashfs).file("root.tar.xz", &build.tarball).file("disk-kvm.img", &noise(5000, 7));
    version.metadata("lxd.tar.xz", &build.metadata)
}

fn busy(versions: &[(&str, Version)]) -> Stream {
    let product = format!("busy:1:{}", arch());
    versions.iter().fold(Stream::default(), |stream, (serial, version)| stream.add(&product, "busy,default", serial, version.clone()))
}

struct Setting {
    origin: Origin,
    mirror: Mirror,
    build: Build,
}

impl Setting {
    async fn make() -> Self {
        let origin = Origin::start().await;
        let build = Build::make("first");
        let unified = Version::new("images/unified").file("lxd_combined.tar.gz", &build.unified);
        let other = Version::new("images/other").file("squashfs", b"for another machine").metadata("lxd.tar.xz", &build.metadata);
        let stream = busy(&[("20260101", version("images/first", &build))]);
        let stream =
            stream.add(&format!("one:1:{}", arch()), "unified", "20260101", unified).add("busy:1:s390x", "busy", "20260101", other);
        origin.put(stream.tree());
        let mirror = Builder::default().with_lasting_port().remote("lab", &[origin.url()], "").start().await;
        Self { origin, mirror, build }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_lists_shows_exports_copies_and_launches_through_the_mirror() {
    let Some(_turn) = turn().await else { return };
    let Setting { origin, mirror, build } = Setting::make().await;
    let tap = Tap::start(mirror.address()).await;
    let host = Host::start(&mirror.ca());
    host.add_remote("m", &tap.url());

    let listed: Value = serde_json::from_str(&host.lxc(&["image", "list", "m:", "--format=json"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 5, "{listed}");
    let squashfs = fingerprint(&build.metadata, &build.squashfs);
    assert_eq!(host.fingerprint("m:busy", false), Some(squashfs.clone()), "clients prefer squashfs");
    assert_eq!(host.fingerprint("m:busy", true), Some(fingerprint(&build.metadata, &noise(5000, 7))));

    tap.take();
    let target = host.scratch();
    host.lxc(&["image", "export", "m:busy", target.to_str().unwrap()]);
    assert!(std::fs::read(target.join("squashfs")).unwrap() == build.squashfs);
    host.lxc(&["image", "copy", "m:busy", "local:", "--auto-update", "--alias", "mine"]);
    host.launch("m:busy", "c1");
    assert_eq!(host.lxc(&["exec", "c1", "--", "/bin/busybox", "cat", "/etc/build"]), "first");

    let openings = tap.take();
    let plain: Vec<&str> =
        openings.iter().filter_map(|opening| if let Opening::Plain(line) = opening { Some(line.as_str()) } else { None }).collect();
    assert!(plain.iter().any(|line| line.contains("/lab/images/first/squashfs")), "files travel over plain HTTP: {openings:?}");
    assert!(!plain.iter().any(|line| line.contains(".json")), "documents never do: {openings:?}");
    assert!(openings.contains(&Opening::Tls) && openings.contains(&Opening::Empty), "{openings:?}");
    assert_eq!(origin.requests("images/first/squashfs").len(), 1);
    assert_eq!(origin.requests("images/first/metadata.tar.xz").len(), 1);

    host.launch("m:unified", "c2");
    drop(host);
    let before = origin.total();
    let second = Host::start(&mirror.ca());
    second.add_remote("m", &mirror.url());
    second.launch("m:busy", "c1");
    assert_eq!(origin.total(), before, "a second host needs nothing of upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_launches_while_upstream_is_down_and_a_new_version_comes_with_a_refresh() {
    let Some(_turn) = turn().await else { return };
    let Setting { mut origin, mirror, build } = Setting::make().await;
    let host = Host::start(&mirror.ca());
    host.add_remote("m", &mirror.url());
    host.launch("m:busy", "c1");
    host.lxc(&["delete", "--force", "c1"]);

    origin.stop().await;
    let mirror = mirror.restart().await;
    for image in host.lxc(&["image", "list", "--format=csv", "--columns=F"]).lines() {
        host.lxc(&["image", "delete", image]);
    }
    host.forget_documents();
    host.launch("m:busy", "c2");

    origin.resume().await;
    let next = Build::make("second");
    let fresh = version("images/second", &next).delta("squashfs.vcdiff", "20260101", &next.delta_from(&build));
    origin.put(busy(&[("20260101", version("images/first", &build)), ("20260201", fresh)]).tree());
    assert_eq!(mirror.refresh("lab", false).await.result.label(), "changed");
    let second = Some(fingerprint(&next.metadata, &next.squashfs));
    wait_for(async || host.fingerprint("m:busy", false) == second).await;
    host.forget_documents();
    let tap = Tap::start(mirror.address()).await;
    host.add_remote("tapped", &tap.url());
    // A launch by alias would take the image that the host has cached; a copy does not.
    host.lxc(&["image", "copy", "tapped:busy", "local:", "--alias", "second"]);
    let asked = tap.take().into_iter().filter_map(|opening| if let Opening::Plain(line) = opening { Some(line) } else { None });
    let asked: Vec<String> = asked.collect();
    assert!(asked.iter().any(|line| line.contains("/squashfs.vcdiff")), "the host has the older root, so it asks for the delta: {asked:?}");
    assert!(!asked.iter().any(|line| line.contains("/squashfs ")), "{asked:?}");
    host.launch("second", "c3");
    assert_eq!(host.lxc(&["exec", "c3", "--", "/bin/busybox", "cat", "/etc/build"]), "second");
    for file in ["squashfs", "squashfs.vcdiff", "metadata.tar.xz"] {
        assert_eq!(origin.requests(&format!("images/second/{file}")).len(), 1, "{file} was fetched ahead of requests, and once");
    }
}

/// A mirror that keeps its image of `busy` up to date, every second; the host has documents of before and not the image.
async fn kept_up_to_date() -> (Setting, Host) {
    let origin = Origin::start().await;
    let build = Build::make("first");
    let other =
        Version::new("images/other").file("squashfs", &build.squashfs).metadata("lxd.tar.xz", &[&build.metadata[..], b"x"].concat());
    let stream = busy(&[("20260101", version("images/first", &build))]).add(&format!("other:1:{}", arch()), "other", "20260101", other);
    origin.put(stream.tree());
    let images = "[images]\nauto_update_interval = \"1s\"\ngrace = \"10s\"\n[limits]\nretry_wrong = \"1s\"";
    let mirror = Builder::default().section(images).remote("lab", &[origin.url()], "").start().await;
    let host = Host::start(&mirror.ca());
    host.add_remote("m", &mirror.url());
    // Its daemon reads the documents, and finds no such image.
    assert!(!host.run(&["launch", "m:nothing", "c0"]).status.success());
    let first = host.scratch().join("first");
    host.lxc(&["image", "export", "m:busy", first.to_str().unwrap()]);
    wait_for(async || !mirror.files("records").is_empty()).await;
    (Setting { origin, mirror, build }, host)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_reaches_hosts_when_it_is_held_and_the_old_one_goes_after_grace() {
    let Some(_turn) = turn().await else { return };
    let (Setting { origin, mirror, build }, host) = kept_up_to_date().await;
    let next = Build::make("second");
    origin.put(busy(&[("20260201", version("images/second", &next))]).tree());
    ["squashfs", "metadata.tar.xz", "root.tar.xz", "disk-kvm.img"].iter().for_each(|file| origin.remove(&format!("images/first/{file}")));
    let second = Some(fingerprint(&next.metadata, &next.squashfs));
    wait_for(async || host.fingerprint("m:busy", false) == second).await;
    let files = ["squashfs", "metadata.tar.xz"].map(|file| format!("images/second/{file}"));
    let requests = || files.iter().map(|file| origin.requests(file).len()).collect::<Vec<_>>();
    assert_eq!(requests(), [1, 1]);
    let other_host = Host::without_daemon(&mirror.ca());
    other_host.add_remote("m", &mirror.url());
    let target = other_host.scratch();
    other_host.lxc(&["image", "export", "m:busy", target.to_str().unwrap()]);
    assert!(std::fs::read(target.join("squashfs")).unwrap() == next.squashfs);
    assert_eq!(requests(), [1, 1], "no host's request goes upstream");

    host.launch("m:busy", "c1");
    assert_eq!(
        host.lxc(&["exec", "c1", "--", "/bin/busybox", "cat", "/etc/build"]),
        "first",
        "its documents are of before, and what they name is there"
    );
    let blob = mirror.store().join("blobs/sha256").join(digest_path(&build.squashfs));
    assert!(blob.exists());
    let gone = std::time::Instant::now();
    while blob.exists() {
        assert!(gone.elapsed().as_secs() < 20, "a use in grace pins nothing");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!(host.fingerprint("m:busy", false), second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_that_is_corrupt_reaches_nobody() {
    let Some(_turn) = turn().await else { return };
    let (Setting { origin, mirror, build }, host) = kept_up_to_date().await;
    let next = Build::make("second");
    origin.put(busy(&[("20260201", version("images/second", &next))]).tree());
    origin.act("images/second/squashfs", vec![support::origin::Act::WrongBytes; 1000]);
    wait_for(async || mirror.remotes().await[0].held_back.first().is_some_and(|held_back| held_back.problem.is_some())).await;
    let first = Some(fingerprint(&build.metadata, &build.squashfs));
    assert_eq!(host.fingerprint("m:busy", false), first);
    assert_eq!(host.fingerprint("m:busy", true), Some(fingerprint(&next.metadata, &noise(5000, 7))), "virtual machines are not held back");
    host.forget_documents();
    host.launch("m:busy", "c1");
    assert_eq!(host.lxc(&["exec", "c1", "--", "/bin/busybox", "cat", "/etc/build"]), "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_our_own_launches_and_tells_lxd_what_it_needs() {
    let Some(_turn) = turn().await else { return };
    let mirror = Builder::default().start().await;
    let (build, folder) = (Build::make("our own"), tempfile::tempdir().unwrap());
    let import = |files: &[(&str, &[u8])], more: &[&str]| {
        let paths = files.iter().map(|(name, bytes)| {
            std::fs::write(folder.path().join(name), bytes).unwrap();
            folder.path().join(name)
        });
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cistern"));
        command.env("CISTERN_SOCKET", mirror.socket()).args(["image", "import", "--public"]).args(paths.collect::<Vec<_>>()).args(more);
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let split = import(&[("meta", &build.metadata), ("root", &build.squashfs)], &["--alias", "mine", "requirements.secureboot=false"]);
    assert_eq!(split, fingerprint(&build.metadata, &build.squashfs));
    let unified = import(&[("whole", &build.unified)], &["--alias", "whole"]);
    let host = Host::start(&mirror.ca());
    host.add_remote("m", &mirror.url());
    let shown = host.lxc(&["image", "info", "m:mine"]);
    assert!(shown.contains("requirements.secureboot: false") && shown.contains(&split), "{shown}");
    assert_eq!(host.fingerprint("m:whole", false), Some(unified));
    for (image, name) in [("m:mine", "c1"), ("m:whole", "c2")] {
        host.launch(image, name);
        assert_eq!(host.lxc(&["exec", name, "--", "/bin/busybox", "cat", "/etc/build"]), "our own");
    }
    let exported = host.scratch();
    host.lxc(&["image", "export", &split, exported.join("back").to_str().unwrap()]);
    let again = |name: &str| std::fs::read(exported.join(name)).unwrap();
    let back = import(&[("exported-meta", &again("back")), ("exported-root", &again("back.root"))], &["--alias", "again"]);
    assert_eq!(back, split, "what lxc image export writes is the same image");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_nginx_serves_launches() {
    let Some(_turn) = turn().await else { return };
    let setting = Setting::make().await;
    let mirror = &setting.mirror;
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cistern"));
    command.env("CISTERN_SOCKET", mirror.socket()).args(["bundle", "export", "lab:busy", "lab:unified", "--tree"]).arg(&tree);
    let output = tokio::task::block_in_place(|| command.output().unwrap());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let nginx = Nginx::start(&tree, &mirror.store().join("tls"));
    let host = Host::start(&mirror.ca());
    host.add_remote("n", &nginx.url());
    let listed: Value = serde_json::from_str(&host.lxc(&["image", "list", "n:", "--format=json"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2, "what was selected and nothing else: {listed}");
    for (image, name) in [("n:busy", "c1"), ("n:unified", "c2")] {
        host.launch(image, name);
        assert_eq!(host.lxc(&["exec", name, "--", "/bin/busybox", "cat", "/etc/build"]), "first");
    }
}

/// Runs a command of ours against a mirror; what it printed.
fn cistern(mirror: &Mirror, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cistern"));
    command.env("CISTERN_SOCKET", mirror.socket()).args(arguments);
    let output = tokio::task::block_in_place(|| command.output().unwrap());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_without_a_way_out_is_fed_by_bundles_and_launches() {
    let Some(_turn) = turn().await else { return };
    let Setting { mut origin, mirror, build } = Setting::make().await;
    let site = Builder::default().remote("other", &[], "mode = \"offline\"").section("[images]\ngrace = \"3s\"");
    let site = site.start_without_waiting().await;
    let disk = tempfile::tempdir().unwrap();
    let path = |name: &str| disk.path().join(name).display().to_string();
    let (key, inventory, first, second) = (path("cistern.pub"), path("site.inv"), path("first"), path("second"));
    std::fs::write(&key, cistern(&mirror, &["bundle", "key"])).unwrap();
    cistern(&mirror, &["bundle", "export", "lab:", "--to", &first]);
    cistern(&site, &["bundle", "verify", &first, "--key", &key]);
    cistern(&site, &["bundle", "trust", &key]);
    cistern(&site, &["bundle", "import", &first]);
    let host = Host::start(&site.ca());
    host.add_remote("m", &site.url());
    for (image, name) in [("m:busy", "c1"), ("m:unified", "c2")] {
        host.launch(image, name);
        assert_eq!(host.lxc(&["exec", name, "--", "/bin/busybox", "cat", "/etc/build"]), "first");
    }

    let next = Build::make("second");
    let unified = Version::new("images/unified").file("lxd_combined.tar.gz", &build.unified);
    let stream = busy(&[("20260201", version("images/second", &next))]);
    origin.put(stream.add(&format!("one:1:{}", arch()), "unified", "20260101", unified).tree());
    mirror.refresh("lab", true).await;
    wait_for(async || !cistern(&site, &["bundle", "inventory"]).contains("\"blobs\":[]")).await;
    std::fs::write(&inventory, cistern(&site, &["bundle", "inventory"])).unwrap();
    cistern(&mirror, &["bundle", "export", "lab:", "--have", &inventory, "--to", &second]);
    origin.stop().await;
    mirror.stop().await;
    let manifest = cistern::manifest::Manifest::parse(&std::fs::read(disk.path().join("second/manifest.json")).unwrap()).unwrap();
    let travelled: u64 = manifest.blobs().map(|(_, file)| file.size).sum();
    // The virtual machine's root is the same in both builds.
    assert_eq!(travelled, [&next.metadata, &next.squashfs, &next.tarball].map(|file| file.len() as u64).iter().sum::<u64>());
    cistern(&site, &["bundle", "import", &second]);
    host.forget_documents();
    assert_eq!(host.fingerprint("m:busy", false), Some(fingerprint(&next.metadata, &next.squashfs)), "the alias moved");
    for image in host.lxc(&["image", "list", "--format=csv", "--columns=F"]).lines() {
        host.lxc(&["image", "delete", image]);
    }
    host.launch("m:busy", "c3");
    assert_eq!(host.lxc(&["exec", "c3", "--", "/bin/busybox", "cat", "/etc/build"]), "second");
    host.launch("m:unified", "c4");
    let old = site.store().join("blobs/sha256").join(digest_path(&build.squashfs));
    wait_for(async || !cistern(&site, &["cache", "prune"]).is_empty() && !old.exists()).await;
}

fn digest_path(bytes: &[u8]) -> String {
    let digest = cistern::digest::Digest::of(bytes).to_string();
    format!("{}/{digest}", &digest[..2])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_ca_outlives_the_certificate() {
    let Some(_turn) = turn().await else { return };
    let Setting { mut mirror, .. } = Setting::make().await;
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    let host = Host::without_daemon(elsewhere.path());
    host.add_remote("m", &mirror.url());
    assert!(!host.run(&["image", "list", "m:"]).status.success(), "nobody told this host to trust the mirror");
    host.pin("m", &mirror.ca());
    host.lxc(&["image", "list", "m:"]);
    let certificate = || std::fs::read(mirror.store().join("tls/server.crt")).unwrap();
    let before = certificate();
    std::fs::remove_file(mirror.store().join("tls/server.crt")).unwrap();
    mirror.reload(ToOwned::to_owned).await;
    assert_ne!(std::fs::read(mirror.store().join("tls/server.crt")).unwrap(), before);
    host.lxc(&["image", "list", "m:"]);
}

/// An image: the bytes of its metadata and root, and its fingerprint.
fn split(folder: &str, ftype: &str, root: &str, seed: u64) -> (Version, String) {
    let (metadata, root_bytes) = (noise(100, seed), noise(2000, seed + 1000));
    (Version::new(folder).file(root, &root_bytes).metadata(ftype, &metadata), fingerprint(&metadata, &root_bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_alias_means_what_the_order_of_the_root_says() {
    let Some(_turn) = turn().await else { return };
    let arch = arch();
    let (released, released_print) = split("r/1", "lxd.tar.xz", "squashfs", 1);
    let (shared, shared_print) = split("shared", "lxd.tar.xz", "squashfs", 2);
    let (virtual_machine, virtual_machine_print) = split("d/vm", "lxd.tar.xz", "disk-kvm.img", 3);
    let (daily, daily_print) = split("d/2", "lxd.tar.xz", "squashfs", 4);
    let (incus, incus_print) = split("i/1", "incus.tar.xz", "squashfs", 5);
    let (old, _) = split("d/0", "lxd.tar.xz", "squashfs", 6);
    let (only_incus, _) = split("i/2", "incus.tar.xz", "squashfs", 7);
    let releases = Stream::default().add(&format!("ubuntu:noble:{arch}"), "24.04,lts", "20260101", released).add(
        &format!("ubuntu:shared:{arch}"),
        "shared",
        "20260301",
        shared.clone(),
    );
    let daily_stream = Stream::default()
        .add(&format!("ubuntu:noble:{arch}"), "24.04,noble-daily", "20260201", daily)
        .add(&format!("ubuntu:vm:{arch}"), "24.04", "20260201", virtual_machine)
        .add(&format!("ubuntu:shared:{arch}"), "shared-daily", "20260101", old)
        .add(&format!("ubuntu:shared:{arch}"), "shared-daily", "20260301", shared);
    let incus_stream = Stream::default().add(&format!("debian:12:{arch}"), "debian/12", "20260101", incus);
    let untwinned = Stream::default().add(&format!("debian:13:{arch}"), "debian/13", "20260101", only_incus);
    let mut remotes = Builder::default().server("root = [\"releases\"]");
    let mut origins = Vec::new();
    for (name, stream, more) in
        [("daily", daily_stream, ""), ("releases", releases, ""), ("incus", incus_stream, ""), ("untwinned", untwinned, "twins = false")]
    {
        let origin = Origin::start().await;
        origin.put(stream.tree());
        remotes = remotes.remote(name, &[origin.url()], more);
        origins.push(origin);
    }
    let mirror = remotes.start().await;
    let host = Host::without_daemon(&mirror.ca());
    for name in ["", "releases", "daily", "incus", "untwinned"] {
        host.add_remote(&format!("m{name}"), &format!("{}/{name}", mirror.url()));
    }
    let named = |print: &str| Some(print.to_owned());
    for (image, is_vm, expected) in [
        ("m:24.04", false, named(&released_print)),
        ("m:lts", false, named(&released_print)),
        ("m:24.04", true, named(&virtual_machine_print)),
        ("m:noble-daily", false, named(&daily_print)),
        ("m:shared", false, named(&shared_print)),
        ("m:shared-daily", false, named(&shared_print)),
        ("m:debian/12", false, named(&incus_print)),
        ("m:debian/13", false, None),
        ("mreleases:24.04", false, named(&released_print)),
        ("mreleases:24.04", true, None),
        ("mdaily:24.04", false, named(&daily_print)),
        ("mdaily:24.04", true, named(&virtual_machine_print)),
        ("mdaily:shared-daily", false, named(&shared_print)),
        ("mincus:debian/12", false, named(&incus_print)),
        ("muntwinned:debian/13", false, None),
    ] {
        assert_eq!(host.fingerprint(image, is_vm), expected, "{image} vm={is_vm}");
    }
    for print in [&released_print, &shared_print, &daily_print, &incus_print] {
        assert_eq!(host.fingerprint(&format!("m:{print}"), false).as_ref(), Some(print), "each fingerprint appears once");
    }
}

/// What `lxc` lists, in an order of its own.
fn list(host: &Host, remote: &str) -> Vec<String> {
    let output = host.run(&["image", "list", remote, "--format=json"]);
    let Ok(Value::Array(mut images)) = serde_json::from_slice(&output.stdout) else {
        return vec![String::from_utf8_lossy(&output.stderr).replace(remote, "")];
    };
    for image in &mut images {
        image.as_object_mut().unwrap().remove("update_source");
    }
    let mut images: Vec<String> = images.iter().map(Value::to_string).collect();
    images.sort();
    images
}

#[tokio::test(flavor = "multi_thread")]
async fn real_documents_list_the_same_through_the_mirror_as_without_it() {
    let Some(_turn) = turn().await else { return };
    let mut listed = 0;
    for (name, tree) in support::documents::trees() {
        let origin = Origin::start_tls().await;
        origin.put(tree);
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), origin.ca()).unwrap();
        let more = format!("twins = false\nca = \"{}\"", ca.path().display());
        let mirror = Builder::default().remote("real", &[origin.url()], &more).start().await;
        assert_eq!(
            mirror.remotes().await[0].last_refresh.as_ref().unwrap().result.label(),
            "changed",
            "{name}: {:?}",
            mirror.remotes().await
        );
        let trusted = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(trusted.path(), [std::fs::read(mirror.ca()).unwrap(), origin.ca().as_bytes().to_vec()].concat()).unwrap();
        let host = Host::without_daemon(trusted.path());
        host.add_remote("direct", &origin.url());
        host.add_remote("mirrored", &format!("{}/real", mirror.url()));
        let direct = list(&host, "direct:");
        assert_eq!(list(&host, "mirrored:"), direct, "{name}");
        listed += direct.len();
    }
    assert!(listed > 3, "some of the real documents have images for LXD");
}

#[tokio::test(flavor = "multi_thread")]
async fn requirements_and_a_size_in_quotes_reach_lxd_as_it_wants_them() {
    let Some(_turn) = turn().await else { return };
    let (image, print) = split("images/1", "lxd.tar.xz", "squashfs", 1);
    let image = image.with(|items| items["squashfs"]["size"] = json!("2000"));
    let product = format!("ubuntu:noble:{}", arch());
    let stream = Stream::default()
        .add(&product, "24.04", "20260101", image)
        .with(&product, |product| product["requirements"] = json!({"secureboot": "false"}));
    let origin = Origin::start().await;
    origin.put(stream.tree());
    let mirror = Builder::default().remote("lab", &[origin.url()], "").start().await;
    let host = Host::without_daemon(&mirror.ca());
    host.add_remote("m", &mirror.url());
    wait_for(async || host.fingerprint("m:24.04", false).is_some()).await;
    let shown = host.lxc(&["image", "info", "m:24.04"]);
    assert!(shown.contains(&print) && shown.contains("requirements.secureboot: false"), "{shown}");
}
