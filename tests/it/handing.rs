//! Files that a command opened and handed to the server: what comes of those that are what they should be, and of others.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cistern::api::{ImportPlan, ImportReport};
use cistern::cli::admin::{ask, send_with, understand};
use cistern::cli::exit::Failure;
use cistern::digest::Digest;
use cistern::disk::{Disk as _, File, OsDisk};
use cistern::manifest::{self, BundlePath, MANIFEST, Manifest, SIGNATURE};
use cistern::seal::SigningKey;
use http_body_util::{Empty, Full};
use hyper::Method;

use crate::importing::{Setting, manifest};
use crate::managing::done;
use crate::support::mirror::wait_for;

/// Offers what a folder has to the site.
async fn offer(setting: &Setting, folder: &Path, file: Option<File>) -> ImportPlan {
    let signature = URL_SAFE_NO_PAD.encode(fs::read(folder.join(SIGNATURE)).unwrap());
    let target = format!("/1.0/bundles/imports?signature={signature}");
    let body = Full::new(Bytes::from(fs::read(folder.join(MANIFEST)).unwrap()));
    let reply = send_with(&setting.site.socket(), Method::POST, &target, body, file).await.unwrap();
    understand(reply).await.unwrap()
}

/// Hands a file over as one of a bundle.
async fn hand(setting: &Setting, plan: &ImportPlan, path: &str, file: File) -> Result<(), Failure> {
    let target = format!("/1.0/bundles/imports/{}/{path}", plan.id);
    send_with(&setting.site.socket(), Method::PUT, &target, Empty::new(), Some(file)).await.map(drop)
}

fn opened(path: &Path) -> File {
    OsDisk.open(path).unwrap()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn files_of_a_bundle_are_handed_over_open() {
    let setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:"]).await;
    assert!(!offer(&setting, &bundle, None).await.takes_files, "nothing was handed over");
    let plan = offer(&setting, &bundle, Some(opened(&bundle.join(MANIFEST)))).await;
    assert!(plan.takes_files);
    for path in &plan.documents {
        let target = format!("/1.0/bundles/imports/{}/{path}", plan.id);
        let () = ask(&setting.site.socket(), Method::PUT, &target, fs::read(bundle.join(path)).unwrap()).await.unwrap();
    }
    for path in &plan.blobs {
        let file = opened(&bundle.join(path));
        // Nobody else can open it any more.
        fs::remove_file(bundle.join(path)).unwrap();
        hand(&setting, &plan, path, file).await.unwrap();
    }
    let target = format!("/1.0/bundles/imports/{}", plan.id);
    let report: ImportReport = ask(&setting.site.socket(), Method::POST, &target, Vec::new()).await.unwrap();
    assert!(report.listed);
    assert_eq!(setting.versions("busy").await, ["20260101"]);
}

#[tokio::test]
async fn what_is_handed_over_and_is_not_what_it_should_be_is_refused_and_let_go() {
    let setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:"]).await;
    let plan = offer(&setting, &bundle, Some(opened(&bundle.join(MANIFEST)))).await;
    let root = manifest(&bundle).blobs().find(|(_, file)| file.size == 300_000).unwrap().1.path.to_string();
    let other = setting.disk.path().join("other");
    fs::write(&other, fs::read(bundle.join(&root)).unwrap().iter().map(|byte| byte ^ 1).collect::<Vec<u8>>()).unwrap();
    let before = descriptors();
    for (file, expected) in [
        (opened(&bundle.join(MANIFEST)), "it ended early"),
        (opened(&other), "its bytes hash to"),
        (opened(Path::new("/dev/zero")), "it is no plain file"),
    ] {
        let reason = hand(&setting, &plan, &root, file).await.unwrap_err().message;
        assert!(reason.contains(expected), "{reason}");
    }
    let elsewhere = hand(&setting, &plan, "documents/lab/none", opened(&other)).await.unwrap_err().message;
    assert!(elsewhere.contains("documents/lab/none"), "{elsewhere}");
    wait_for(async || descriptors() <= before).await;
    hand(&setting, &plan, &root, opened(&bundle.join(&root))).await.unwrap();
}

/// A bundle of one file that is so large that nobody reads it at once. It takes no room.
fn large(setting: &Setting) -> (PathBuf, String, SigningKey) {
    const LEN: u64 = 4 << 30;
    let (key, folder) = (SigningKey::from_seed(&[9; 32]).unwrap(), setting.disk.path().join("large"));
    let path = BundlePath::Blob(Digest::of(b"none has that"));
    let name = path.to_string();
    fs::create_dir_all(folder.join(&name).parent().unwrap()).unwrap();
    fs::File::create(folder.join(&name)).unwrap().set_len(LEN).unwrap();
    let blobs = vec![manifest::File { path, size: LEN, sha256: Digest::of(b"none has that") }];
    let manifest =
        Manifest { created_at: "2026-11-27T00:00:00Z".to_owned(), volumes: vec![manifest::Volume { blobs }], ..Manifest::default() };
    fs::write(folder.join(MANIFEST), manifest.to_json()).unwrap();
    fs::write(folder.join(SIGNATURE), key.sign(&manifest.to_json())).unwrap();
    (folder, name, key)
}

#[tokio::test]
async fn what_was_handed_over_is_read_no_further_when_the_command_has_left() {
    let setting = Setting::new().await;
    let (folder, name, key) = large(&setting);
    let public = setting.disk.path().join("other.pem");
    fs::write(&public, key.public().to_pem()).unwrap();
    done(&setting.site, &["bundle", "trust", public.to_str().unwrap()]).await;
    let file = opened(&folder.join(&name));
    let plan = offer(&setting, &folder, Some(file.clone())).await;
    let handing = async { hand(&setting, &plan, &name, file.clone()).await };
    tokio::time::timeout(Duration::from_millis(300), handing).await.expect_err("it takes long");
    assert!(file.marked().unwrap() > 0, "it is being read");
    wait_for(async || {
        let before = file.marked().unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        file.marked().unwrap() == before
    })
    .await;
}
