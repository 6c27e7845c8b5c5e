//! Bundles are made: what is in them, that the same one has the same bytes, and that an interrupted one is gone on with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cistern::digest::Digest;
use cistern::inventory::{Imported, Inventory};
use cistern::manifest::{MANIFEST, Manifest};
use cistern::seal::SigningKey;
use serde_json::Value;

use crate::managing::{done, failed, typed};
use crate::support::mirror::{Builder, Mirror};
use crate::support::origin::Origin;
use crate::support::stream::{Stream, Version, fingerprint, noise};

fn version(folder: &str, len: usize) -> Version {
    Version::new(folder).file("squashfs", &noise(len, len as u64)).metadata("lxd.tar.xz", folder.as_bytes())
}

fn arch() -> &'static str {
    if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" }
}

/// Two images for this machine, one of them in two versions, and one for another machine.
async fn setting() -> (Origin, Mirror) {
    let origin = Origin::start().await;
    let busy = format!("busy:1:{}", arch());
    let stream = Stream::default()
        .add(&busy, "busy", "20260101", version("busy/1", 300_000))
        .add(&busy, "busy", "20260102", version("busy/2", 310_000))
        .add(&format!("rare:1:{}", arch()), "rare", "20260101", version("rare", 200_000))
        .add("far:1:s390x", "far", "20260101", version("far", 100_000));
    origin.put(stream.tree());
    let mirror = Builder::default().remote("lab", &[origin.url()], "").start().await;
    (origin, mirror)
}

async fn export(mirror: &Mirror, to: &Path, arguments: &[&str]) -> String {
    let to = to.display().to_string();
    done(mirror, &[&["bundle", "export", "--to", &to], arguments].concat()).await
}

async fn refused(mirror: &Mirror, to: &Path, arguments: &[&str]) -> (i32, String) {
    let to = to.display().to_string();
    failed(mirror, &[&["bundle", "export", "--to", &to], arguments].concat()).await
}

fn manifest(folder: &Path) -> Manifest {
    Manifest::parse(&fs::read(folder.join(MANIFEST)).unwrap()).unwrap()
}

/// The roots that a bundle has, by their size.
fn sizes(folder: &Path) -> Vec<u64> {
    let mut sizes: Vec<u64> = manifest(folder).blobs().map(|(_, file)| file.size).filter(|size| *size > 1000).collect();
    sizes.sort_unstable();
    sizes
}

/// Every file below a folder: its digest, and when it was last written.
fn files(folder: &Path) -> BTreeMap<PathBuf, (Digest, SystemTime)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                let (bytes, modified) = (fs::read(entry.path()).unwrap(), entry.metadata().unwrap().modified().unwrap());
                all.insert(entry.path().strip_prefix(folder).unwrap().to_owned(), (Digest::of(&bytes), modified));
            }
        }
    }
    all
}

fn bytes(folder: &Path) -> BTreeMap<PathBuf, Digest> {
    files(folder).into_iter().map(|(path, (digest, _))| (path, digest)).collect()
}

#[tokio::test]
async fn a_bundle_has_what_was_asked_for_and_documents_that_list_just_that() {
    let (origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("bundle");
    let said = export(&mirror, &to, &["lab:busy"]).await;
    assert!(said.starts_with("bundle 1: ") && said.trim_end().ends_with(&format!("in {}", to.display())), "{said}");
    assert_eq!(sizes(&to), [310_000], "the newest, which nobody held before");
    assert_eq!(origin.requests("busy/2/squashfs").len(), 1);
    done(&mirror, &["bundle", "verify", &to.display().to_string()]).await;
    let read = |path: &str| fs::read(to.join(path)).unwrap();
    let url = format!("{}/streams/v1/images.json", origin.url());
    let upstream = reqwest::get(url).await.unwrap().bytes().await.unwrap();
    assert_eq!(read("documents/lab/streams/v1/images.json"), upstream, "as it came");
    let rendered: Value = serde_json::from_slice(&read("rendered/lab/streams/v1/images.json")).unwrap();
    let products = rendered["products"].as_object().unwrap();
    assert_eq!(products.len(), 1);
    let versions = products.values().next().unwrap()["versions"].as_object().unwrap();
    assert_eq!(versions.keys().collect::<Vec<_>>(), ["20260102"]);
    let ftypes: Vec<&Value> = versions["20260102"]["items"].as_object().unwrap().values().map(|item| &item["ftype"]).collect();
    assert!(["squashfs", "lxd.tar.xz", "incus.tar.xz"].iter().all(|ftype| ftypes.iter().any(|other| *other == ftype)), "{ftypes:?}");
}

#[tokio::test]
async fn a_selection_is_by_name_remote_filter_architecture_and_versions_or_all_that_is_held() {
    let (_origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let (code, error) = refused(&mirror, &folder.path().join("x"), &[]).await;
    assert_eq!((code, error.as_str()), (1, "cistern: no image is selected; cistern image list shows what there is\n"));
    done(&mirror, &["image", "copy", "lab:rare"]).await;
    let cases: [(&[&str], &[u64]); 7] = [
        (&[], &[200_000]),
        (&["lab:"], &[100_000, 200_000, 300_000, 310_000]),
        (&["lab:", "--arch", "s390x"], &[100_000]),
        (&["lab:", "--versions", "1"], &[100_000, 200_000, 310_000]),
        (&["lab:busy", "--versions", "2"], &[300_000, 310_000]),
        (&["lab:", "--select", "os=busy"], &[300_000, 310_000]),
        (&["lab:rare", "lab:busy"], &[200_000, 310_000]),
    ];
    for (number, (arguments, expected)) in cases.into_iter().enumerate() {
        let to = folder.path().join(number.to_string());
        export(&mirror, &to, arguments).await;
        assert_eq!(sizes(&to), expected, "{arguments:?}");
    }
    for (arguments, reason) in [
        (&["lab:nothing"][..], "no image is called 'nothing'"),
        (&["nowhere:"], "there is no remote 'nowhere'"),
        (&["lab:", "--select", "release"], "'release' is no filter"),
        (&["lab:", "--arch", "pdp11"], "'pdp11' is no architecture"),
        (&["lab:busy", "--select", "os=rare"], "'lab:busy' does not pass"),
        (&["lab:", "--vm"], "'lab:' does not pass"),
        (&["lab:busy", "--volume-size", "100KB"], "a volume must have"),
    ] {
        let (code, error) = refused(&mirror, &folder.path().join("refused"), arguments).await;
        assert!(code == 1 && error.contains(reason), "{arguments:?}: {error}");
        assert!(!folder.path().join("refused").exists(), "nothing is left of it");
    }
}

#[tokio::test]
async fn the_same_export_has_the_same_bytes_and_an_interrupted_one_is_gone_on_with() {
    let (_origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    export(&mirror, &first, &["lab:busy", "lab:rare"]).await;
    export(&mirror, &second, &["lab:busy", "lab:rare"]).await;
    assert_eq!(bytes(&first), bytes(&second));
    let before = files(&first);
    export(&mirror, &first, &["lab:busy", "lab:rare"]).await;
    assert_eq!(files(&first), before, "there is nothing to do");

    // What a kill in the middle leaves.
    let blob = |size: u64| second.join(manifest(&first).files().find(|file| file.size == size).unwrap().path.to_string());
    let [half, missing] = [blob(310_000), blob(200_000)];
    fs::rename(second.join(MANIFEST), second.join("manifest.json.part")).unwrap();
    fs::write(format!("{}.part", half.display()), &fs::read(&half).unwrap()[..100_000]).unwrap();
    fs::remove_file(&half).unwrap();
    fs::write(format!("{}.part", missing.display()), noise(100, 9)).unwrap();
    fs::remove_file(&missing).unwrap();
    let before = files(&second);
    let (code, error) = refused(&mirror, &second, &["lab:busy", "lab:rare"]).await;
    assert!(code == 75 && error.contains("did not come whole; run this again"), "what was there was no part of it: {error}");
    export(&mirror, &second, &["lab:busy", "lab:rare"]).await;
    assert_eq!(bytes(&first), bytes(&second));
    let after = files(&second);
    let untouched = before.iter().filter(|(path, file)| after.get(*path) == Some(*file)).count();
    // Two parts, and the manifest's, which has its name now.
    assert_eq!(untouched, before.len() - 3, "what was whole was not written again");

    let (_, error) = refused(&mirror, &second, &["lab:rare"]).await;
    assert!(error.contains("holds another bundle"), "{error}");
    let (_, error) = refused(&mirror, folder.path(), &["lab:rare"]).await;
    assert!(error.contains("is not empty"), "{error}");
}

#[tokio::test]
async fn an_interrupted_export_of_something_else_leaves_nothing() {
    let (_origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let [to, clean] = ["bundle", "clean"].map(|name| folder.path().join(name));
    export(&mirror, &to, &["lab:busy"]).await;
    fs::rename(to.join(MANIFEST), to.join("manifest.json.part")).unwrap();
    export(&mirror, &to, &["lab:rare"]).await;
    export(&mirror, &clean, &["lab:rare"]).await;
    assert_eq!(bytes(&to), bytes(&clean));
}

#[tokio::test]
async fn volumes_are_complete_in_themselves() {
    let (_origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("bundle");
    export(&mirror, &to, &["lab:", "--volume-size", "420KB"]).await;
    let volumes: Vec<PathBuf> = (1..=3).map(|number| to.join(format!("volume-{number}"))).collect();
    assert_eq!(fs::read_dir(&to).unwrap().count(), volumes.len());
    for volume in &volumes {
        let inside: u64 = files(volume).keys().map(|path| fs::metadata(volume.join(path)).unwrap().len()).sum();
        assert!(inside <= 420_000, "{} has {inside}", volume.display());
        done(&mirror, &["bundle", "verify", &volume.display().to_string()]).await;
    }
    let names: Vec<String> = volumes.iter().rev().map(|volume| volume.display().to_string()).collect();
    let arguments: Vec<&str> = ["bundle", "verify"].into_iter().chain(names.iter().map(String::as_str)).collect();
    assert!(!done(&mirror, &arguments).await.contains("not here"));
}

#[tokio::test]
async fn what_would_be_in_it_is_shown_and_nothing_is_fetched() {
    let (origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    done(&mirror, &["image", "copy", "lab:rare"]).await;
    let to = folder.path().join("bundle");
    let shown = done(&mirror, &["bundle", "export", "lab:busy", "lab:rare", "--dry-run"]).await;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("REMOTE") && lines.len() == 3, "{shown}");
    assert!(lines[1].contains("busy") && lines[1].ends_with("no") && lines[2].contains("rare") && lines[2].ends_with("yes"), "{shown}");
    let json: Value = serde_json::from_str(&export(&mirror, &to, &["lab:busy", "--dry-run", "--format", "json"]).await).unwrap();
    assert_eq!((&json[0]["version"], &json[0]["held"]), (&"20260102".into(), &false.into()));
    assert!(!to.exists() && origin.requests("busy/2/squashfs").is_empty());
}

/// `openssl genpkey -algorithm ed25519` makes such a key.
#[tokio::test]
async fn a_key_of_the_operators_own_signs_from_then_on() {
    let (_origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let public = folder.path().join("pub.pem").display().to_string();
    let verified = async |to: &Path| {
        fs::write(&public, done(&mirror, &["bundle", "key"]).await).unwrap();
        done(&mirror, &["bundle", "verify", &to.display().to_string(), "--key", &public]).await
    };
    export(&mirror, &folder.path().join("made"), &["lab:rare"]).await;
    export(&mirror, &folder.path().join("later"), &["lab:rare"]).await;
    let by_ours = verified(&folder.path().join("made")).await;
    let key = SigningKey::from_seed(&[5; 32]).unwrap();
    let file = folder.path().join("key.pem").display().to_string();
    fs::write(&file, key.to_pem()).unwrap();
    export(&mirror, &folder.path().join("given"), &["lab:rare", "--key", &file]).await;
    // It is there already, and signed by another key.
    export(&mirror, &folder.path().join("later"), &["lab:rare"]).await;
    for folder in ["given", "later"].map(|name| folder.path().join(name)) {
        let said = verified(&folder).await;
        assert!(said.contains(&format!("signed by key {}", key.public())) && !by_ours.contains(&key.public().to_string()), "{said}");
    }
    let (_, error) = failed(&mirror, &["bundle", "verify", &folder.path().join("made").display().to_string(), "--key", &public]).await;
    assert!(error.contains("is not what the owner of key"), "{error}");
    fs::write(&file, "no key").unwrap();
    let (code, error) = refused(&mirror, &folder.path().join("no"), &["lab:rare", "--key", &file]).await;
    assert!(code == 1 && error.contains("the key cannot be taken: it has no private key in PEM"), "{error}");
}

/// Two remotes have the same alias; the first of them keeps it, as at the root.
#[tokio::test]
async fn a_tree_is_what_any_web_server_can_serve_and_is_brought_up_to_date() {
    let origin = Origin::start().await;
    let busy = format!("busy:1:{}", arch());
    let one = |number: usize| version(&format!("busy/{number}"), 300_000 + number);
    let stream = Stream::default().add(&busy, "busy", "20260101", one(1)).add("far:1:s390x", "far", "20260101", version("far", 9_000));
    origin.put(stream.clone().tree());
    let second = Origin::start().await;
    second.put(Stream::default().add(&busy, "busy", "20260109", version("twin", 5_000)).tree());
    let mirror =
        Builder::default().section("[images]\ngrace = \"2s\"").remote("lab", &[origin.url()], "").remote("two", &[second.url()], "");
    let mirror = mirror.start().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("tree");
    let tree = async || done(&mirror, &["bundle", "export", "lab:", "two:", "--tree", &to.display().to_string()]).await;
    assert!(tree().await.contains("0 old ones removed"));
    // Another Cistern takes it for an image server.
    let web = Origin::start().await;
    let serve = || web.put(files(&to).keys().map(|path| (path.display().to_string(), fs::read(to.join(path)).unwrap())));
    serve();
    let site = Builder::default().remote("site", &[web.url()], "").start().await;
    done(&site, &["remote", "refresh", "site"]).await;
    let image = async |site: &Mirror| {
        let info: Value = serde_json::from_str(&done(site, &["image", "info", "busy", "--format", "json"]).await).unwrap();
        info["version"].as_str().unwrap().to_owned()
    };
    assert_eq!(image(&site).await, "20260101", "it is the first remote's");
    done(&site, &["image", "copy", "busy"]).await;

    let before = files(&to);
    tree().await;
    let ours = Path::new(".cistern.json");
    let but_ours = |files: BTreeMap<PathBuf, (Digest, SystemTime)>| files.into_iter().filter(|(path, _)| path != ours).collect::<Vec<_>>();
    assert_eq!(but_ours(files(&to)), but_ours(before.clone()), "nothing is written again");

    let newer = Stream::default().add(&busy, "busy", "20260102", one(2)).add("far:1:s390x", "far", "20260101", version("far", 9_000));
    origin.put(newer.tree());
    done(&mirror, &["remote", "refresh", "lab"]).await;
    assert!(tree().await.contains("0 old ones removed"));
    let old = Path::new("lab/busy/1/squashfs");
    assert!(files(&to).contains_key(old), "hosts may still ask for it");
    assert_eq!(files(&to)[Path::new("lab/far/squashfs")], before[Path::new("lab/far/squashfs")]);
    serve();
    done(&site, &["remote", "refresh", "site"]).await;
    assert_eq!(image(&site).await, "20260102");
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(tree().await.contains("2 old ones removed"));
    assert!(!files(&to).contains_key(old));
}

#[tokio::test]
async fn an_interrupted_tree_is_gone_on_with_and_a_folder_of_somebody_elses_is_refused() {
    let (_origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("tree");
    let arguments = ["bundle", "export", "lab:busy", "--tree", &to.display().to_string()].map(ToOwned::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    done(&mirror, &arguments).await;
    let whole = bytes(&to);
    // Killed before it was noted that files are whole, with half of one.
    let notes = fs::read_to_string(to.join(".cistern.json")).unwrap();
    let mut forgotten: Value = serde_json::from_str(&notes).unwrap();
    forgotten["files"].as_object_mut().unwrap().values_mut().for_each(|note| note["sha256"] = Value::Null);
    fs::write(to.join(".cistern.json"), forgotten.to_string()).unwrap();
    let half = to.join("lab/busy/2/squashfs");
    fs::write(format!("{}.part", half.display()), &fs::read(&half).unwrap()[..1000]).unwrap();
    fs::remove_file(&half).unwrap();
    let metadata = to.join("lab/busy/2/metadata.tar.xz");
    let written = fs::metadata(&metadata).unwrap().modified().unwrap();
    done(&mirror, &arguments).await;
    assert_eq!(bytes(&to), whole);
    assert_eq!(fs::metadata(&metadata).unwrap().modified().unwrap(), written);
    let (_, error) = failed(&mirror, &["bundle", "export", "lab:busy", "--tree", &folder.path().display().to_string()]).await;
    assert!(error.contains("is not empty, and what is in it is no export"), "{error}");
}

#[tokio::test]
async fn what_was_lost_is_written_again_and_what_comes_back_is_newer() {
    let (_origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("bundle");
    export(&mirror, &to, &["lab:busy", "lab:rare"]).await;
    let whole = bytes(&to);
    let blob = to.join(manifest(&to).files().find(|file| file.size == 310_000).unwrap().path.to_string());
    fs::remove_file(&blob).unwrap();
    export(&mirror, &to, &["lab:busy", "lab:rare"]).await;
    assert_eq!(bytes(&to), whole);

    let mut generations = Vec::new();
    for number in 0..3 {
        // All that is held: both, one of them, both again.
        let change = ["copy", "delete", "copy"][number];
        let image = if change == "copy" { "lab:rare" } else { "rare" };
        done(&mirror, &["image", change, image]).await;
        let to = folder.path().join(number.to_string());
        export(&mirror, &to, &[]).await;
        generations.push((manifest(&to).generation, sizes(&to).len()));
    }
    assert_eq!(generations, [(2, 2), (3, 1), (4, 2)]);
}

#[tokio::test]
async fn two_exports_at_once_have_two_numbers_and_one_key() {
    let (_origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
    let (busy, rare) = (["lab:busy"], ["lab:rare"]);
    tokio::join!(export(&mirror, &one, &busy), export(&mirror, &other, &rare));
    let mut generations = [manifest(&one).generation, manifest(&other).generation];
    generations.sort_unstable();
    assert_eq!(generations, [1, 2]);
    let public = folder.path().join("pub.pem").display().to_string();
    fs::write(&public, done(&mirror, &["bundle", "key"]).await).unwrap();
    for folder in [one, other] {
        done(&mirror, &["bundle", "verify", "--key", &public, &folder.display().to_string()]).await;
    }
}

#[tokio::test]
async fn a_volume_without_its_blobs_is_named_and_one_that_was_split_otherwise_is_not_mixed_up() {
    let (_origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("bundle");
    export(&mirror, &to, &["lab:", "--volume-size", "420KB"]).await;
    let [first, second, third] = [1, 2, 3].map(|number| to.join(format!("volume-{number}")));
    let (_, error) = refused(&mirror, &to, &["lab:"]).await;
    assert!(error.contains("is not empty"), "{error}");
    // Interrupted, and split in two the next time.
    for volume in [&first, &second, &third] {
        fs::rename(volume.join(MANIFEST), volume.join("manifest.json.part")).unwrap();
    }
    let (_, error) = refused(&mirror, &to, &["lab:", "--volume-size", "640KB"]).await;
    assert!(error.contains("is not empty"), "there is a third volume: {error}");
    fs::remove_dir_all(&third).unwrap();
    export(&mirror, &to, &["lab:", "--volume-size", "640KB"]).await;
    for volume in [&first, &second] {
        done(&mirror, &["bundle", "verify", &volume.display().to_string()]).await;
    }
    fs::remove_dir_all(second.join("blobs")).unwrap();
    let [first, second] = [first, second].map(|path| path.display().to_string());
    let (code, out, _) = typed(&mirror, &["bundle", "verify", &first, &second], "").await;
    assert!(code == 1 && out.contains(&format!("{second}: has no blob of any volume")), "{out}");
}

#[tokio::test]
async fn an_image_that_has_another_fingerprint_is_in_no_bundle() {
    let origin = Origin::start().await;
    let wrong = version("wrong", 4000).with(|items| items["lxd.tar.xz"]["combined_squashfs_sha256"] = "ab".repeat(32).into());
    origin.put(Stream::default().add(&format!("wrong:1:{}", arch()), "wrong", "20260101", wrong).tree());
    let mirror = Builder::default().remote("lab", &[origin.url()], "").start().await;
    let folder = tempfile::tempdir().unwrap();
    let (code, error) = refused(&mirror, &folder.path().join("x"), &["lab:wrong"]).await;
    assert!(code == 1 && error.contains("its files do not have its fingerprint"), "{error}");
}

#[tokio::test]
async fn more_than_the_store_can_hold_is_refused_before_anything_is_fetched() {
    let origin = Origin::start().await;
    let one = |name: &str| version(name, 400_000 + name.len());
    let [a, b] = ["a", "b"].map(|name| format!("{name}:1:{}", arch()));
    origin.put(Stream::default().add(&a, "a", "20260101", one("a")).add(&b, "b", "20260101", one("bb")).tree());
    let mirror = Builder::default().storage("capacity = \"500kB\"").remote("lab", &[origin.url()], "").start().await;
    let folder = tempfile::tempdir().unwrap();
    let (code, error) = refused(&mirror, &folder.path().join("x"), &["lab:"]).await;
    assert!(code == 1 && error.contains("the store holds 500000 at most (storage.capacity)"), "{error}");
    assert!(origin.requests("a/squashfs").is_empty());
    export(&mirror, &folder.path().join("y"), &["lab:a"]).await;
}

#[tokio::test]
async fn versions_are_counted_among_what_is_meant() {
    let (_origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let old = fingerprint(b"busy/1", &noise(300_000, 300_000));
    done(&mirror, &["image", "copy", &old]).await;
    for (number, arguments) in [&["--versions", "1"][..], &[&old, "--versions", "1"], &[&old]].into_iter().enumerate() {
        let to = folder.path().join(number.to_string());
        export(&mirror, &to, arguments).await;
        assert_eq!(sizes(&to), [300_000], "{arguments:?}");
    }
}

/// T40: killed at any moment, an export leaves nothing that looks whole and is not, and is gone on with.
#[tokio::test]
async fn an_export_that_is_killed_again_and_again_comes_to_its_end() {
    const KILLS: u64 = 25;
    let (origin, folder) = (Origin::start().await, tempfile::tempdir().unwrap());
    let stream = (1..=12).fold(Stream::default(), |stream, number| {
        let product = format!("image{number}:1:{}", arch());
        stream.add(&product, &format!("image{number}"), "20260101", version(&format!("i/{number}"), 1_000_000 + number))
    });
    origin.put(stream.tree());
    let mirror = Builder::default().remote("lab", &[origin.url()], "").start().await;
    let (clean, to) = (folder.path().join("clean"), folder.path().join("bundle"));
    export(&mirror, &clean, &["lab:"]).await;
    let started = std::time::Instant::now();
    export(&mirror, &folder.path().join("timed"), &["lab:"]).await;
    let whole = started.elapsed();
    for number in 0..KILLS {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_cistern"));
        command.args(["bundle", "export", "lab:", "--to"]).arg(&to).env("CISTERN_SOCKET", mirror.socket()).kill_on_drop(true);
        let mut child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        let killed = tokio::time::timeout(whole.mul_f64(fastrand::Rng::with_seed(number).f64()), child.wait()).await;
        drop(child.kill().await);
        if !to.exists() {
            continue;
        }
        for (path, (digest, _)) in files(&to) {
            if path.starts_with("blobs") && path.extension().is_none() {
                assert_eq!(digest.to_string(), path.file_name().unwrap().to_str().unwrap(), "what has its last name is whole");
            }
        }
        if killed.is_err() && to.join(MANIFEST).exists() {
            done(&mirror, &["bundle", "verify", &to.display().to_string()]).await;
        }
    }
    export(&mirror, &to, &["lab:"]).await;
    assert_eq!(bytes(&to), bytes(&clean));
}

/// Whoever may write to the folder cannot have the exporter, who is often root, write or remove anything elsewhere.
#[tokio::test]
async fn nothing_is_written_or_removed_outside_the_folder() {
    let (_origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let victim = place("victim");
    fs::write(&victim, "precious").unwrap();
    fs::create_dir_all(place("others/inside")).unwrap();
    let tree = place("tree").display().to_string();
    let tree: Vec<&str> = ["bundle", "export", "lab:rare", "--tree", &tree].to_vec();
    for strange in ["/etc/hosts", "../victim", "others/../../victim"] {
        fs::create_dir_all(place("tree")).unwrap();
        let notes = serde_json::json!({"files": {strange: {"sha256": null, "gone_at": 1}}});
        fs::write(place("tree/.cistern.json"), notes.to_string()).unwrap();
        let (_, error) = failed(&mirror, &tree).await;
        assert!(error.contains("is no place in a tree") && error.contains("remove the folder"), "{error}");
        fs::remove_dir_all(place("tree")).unwrap();
    }
    // What has the name of an old file and is a folder, or lies behind a link, is somebody else's.
    fs::create_dir_all(place("tree/old/folder")).unwrap();
    std::os::unix::fs::symlink(place("others"), place("tree/link")).unwrap();
    fs::write(place("others/file"), "").unwrap();
    let old = serde_json::json!({"sha256": null, "gone_at": 1});
    let notes = serde_json::json!({"files": {"old/folder": old, "link/file": old}});
    fs::write(place("tree/.cistern.json"), notes.to_string()).unwrap();
    std::os::unix::fs::symlink(&victim, place("tree/.cistern.json.new")).unwrap();
    done(&mirror, &tree).await;
    assert!(place("tree/old/folder").exists() && place("others/file").exists());
    fs::create_dir(place("bundle")).unwrap();
    for name in ["manifest.json.part.new", ".cistern.lock"] {
        std::os::unix::fs::symlink(&victim, place("bundle").join(name)).unwrap();
    }
    drop(typed(&mirror, &["bundle", "export", "lab:rare", "--to", &place("bundle").display().to_string()], "").await);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[tokio::test]
async fn one_export_at_a_time_writes_to_a_folder() {
    let (_origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("bundle");
    fs::create_dir_all(to.join("lost+found")).unwrap();
    let lock = fs::File::create(to.join(".cistern.lock")).unwrap();
    lock.try_lock().unwrap();
    let (_, error) = refused(&mirror, &to, &["lab:rare"]).await;
    assert!(error.contains("another export writes to"), "{error}");
    drop(lock);
    export(&mirror, &to, &["lab:rare"]).await;
    done(&mirror, &["bundle", "verify", &to.display().to_string()]).await;
}

#[tokio::test]
async fn a_tree_has_what_its_documents_name_and_nothing_else_and_documents_are_repaired() {
    let origin = Origin::start().await;
    origin.put(Stream::default().add(&format!("a:1:{}", arch()), "a", "20260101", version("a", 9000)).tree());
    let mirror = Builder::default().remote("one", &[origin.url()], "").remote("two", &[origin.url()], "").start().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("tree").display().to_string();
    let arguments = ["bundle", "export", "one:", "two:", "--tree", &to];
    done(&mirror, &arguments).await;
    let names = || files(Path::new(&to)).into_keys().map(|path| path.display().to_string()).collect::<Vec<_>>();
    let expected = [".cistern.json", "one/a/metadata.tar.xz", "one/a/squashfs", "streams/v1/index.json", "streams/v1/one.images.json"];
    assert_eq!(names(), expected);
    let index = Path::new(&to).join("streams/v1/index.json");
    let before = fs::read_to_string(&index).unwrap();
    fs::write(&index, before.replace("index:1.0", "index:9.9")).unwrap();
    done(&mirror, &arguments).await;
    assert_eq!(fs::read_to_string(&index).unwrap(), before);
    assert_eq!(names(), expected);
}

/// What a folder is prepared with leads nowhere else: neither what is removed nor what is written.
#[tokio::test]
async fn a_folder_that_was_prepared_leads_nowhere_else() {
    let (_origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let [victim, to] = ["victim", "to"].map(|name| folder.path().join(name));
    fs::create_dir_all(victim.join("home/user/data")).unwrap();
    fs::write(victim.join("home/file"), "x").unwrap();
    fs::create_dir(&to).unwrap();
    std::os::unix::fs::symlink(&victim, to.join("documents")).unwrap();
    let file = |path: &str| serde_json::json!({"path": path, "size": 1, "sha256": "a".repeat(64)});
    let prepared = serde_json::json!({
        "format": "bundle:1.0", "generation": 1, "parent": null, "created_at": "2026-11-27T00:00:00Z",
        "selection": {"images": [], "select": [], "arch": null, "vm": false, "versions": 0},
        "documents": [file("documents/home/user"), file("documents/home/file")], "volumes": [],
    });
    fs::write(to.join(format!("{MANIFEST}.part")), prepared.to_string()).unwrap();
    let (code, reason) = refused(&mirror, &to, &["lab:busy"]).await;
    assert!(code == 1 && reason.contains("documents is a link, which may lead elsewhere; remove it"), "{reason}");
    assert!(victim.join("home/user/data").is_dir() && victim.join("home/file").is_file(), "nothing went");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1, "nothing came");
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), tree.join(".cistern.lock")).unwrap();
    done(&mirror, &["bundle", "export", "lab:busy", "--tree", &tree.display().to_string()]).await;
    assert!(!folder.path().join("elsewhere").exists(), "nor is a lock made there");
    fs::rename(tree.join("lab"), folder.path().join("moved")).unwrap();
    std::os::unix::fs::symlink(&victim, tree.join("lab")).unwrap();
    let (code, reason) = failed(&mirror, &["bundle", "export", "lab:busy", "--tree", &tree.display().to_string()]).await;
    assert!(code == 1 && reason.contains("lab is a link"), "{reason}");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
}

/// A site may have had more bundles of this key than whoever makes them remembers, and may say anything.
#[tokio::test]
async fn whoever_lost_count_goes_on_where_the_site_is() {
    let (_origin, mirror) = setting().await;
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    export(&mirror, &first, &["lab:busy"]).await;
    let key = SigningKey::from_pem(&fs::read_to_string(mirror.store().join("state/bundles/key.pem")).unwrap()).unwrap();
    for (claimed, expected) in [(41, (42, Some(41))), (u64::MAX, (43, None))] {
        let imported =
            Imported { key: key.public().to_string(), selection: manifest(&first).selection.id().to_string(), generation: claimed };
        let inventory = Inventory {
            format: cistern::inventory::FORMAT.to_owned(),
            created_at: "2026-11-27T00:00:00Z".to_owned(),
            bundles: vec![imported],
            blobs: Vec::new(),
        };
        let path = folder.path().join("site.inv");
        fs::write(&path, inventory.seal(&key)).unwrap();
        let to = folder.path().join(claimed.to_string());
        export(&mirror, &to, &["lab:busy", "--have", &path.display().to_string()]).await;
        assert_eq!((manifest(&to).generation, manifest(&to).parent), expected);
    }
}
