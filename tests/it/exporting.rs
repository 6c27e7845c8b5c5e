//! Bundles are made: what is in them, that the same one has the same bytes, and that an interrupted one is gone on with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cistern::digest::Digest;
use cistern::manifest::{MANIFEST, Manifest};
use cistern::seal::SigningKey;
use serde_json::Value;

use crate::managing::{done, failed};
use crate::support::mirror::{Builder, Mirror};
use crate::support::origin::Origin;
use crate::support::stream::{Stream, Version, noise};

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
        (&["lab:busy", "--volume-size", "1MB", "--versions", "0", "--select", "os=rare"], "'lab:busy' does not pass"),
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
    // Two parts, the manifest's, and the signature, which is written anew before the manifest.
    assert_eq!(untouched, before.len() - 4, "what was whole was not written again");

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
