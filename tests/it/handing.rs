//! Files that a command opened and handed to the server: what comes of those that are what they should be, and of others.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cistern::api::{ImportPlan, ImportReport};
use cistern::cli::admin::{ask, exchange, good};
use cistern::digest::{Claim, Digest, Expected};
use cistern::disk::{Disk as _, File, OsDisk};
use cistern::manifest::{self, BundlePath, MANIFEST, Manifest, SIGNATURE};
use cistern::seal::SigningKey;
use cistern::store::layout::Layout;
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper::{Method, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::importing::{Setting, manifest};
use crate::managing::{CISTERN, done};
use crate::support::mirror::wait_for;

/// Offers what a folder has to the site.
async fn offer(setting: &Setting, folder: &Path) -> ImportPlan {
    let signature = URL_SAFE_NO_PAD.encode(fs::read(folder.join(SIGNATURE)).unwrap());
    let target = format!("/1.0/bundles/imports?signature={signature}");
    ask(&setting.site.socket(), Method::POST, &target, fs::read(folder.join(MANIFEST)).unwrap()).await.unwrap()
}

/// Hands a file over as one of a bundle.
async fn hand(setting: &Setting, plan: &ImportPlan, path: &str, file: Option<File>) -> Response<Incoming> {
    let target = format!("/1.0/bundles/imports/{}/{path}?handed=true", plan.id);
    exchange(&setting.site.socket(), Method::PUT, &target, Empty::new(), file).await.unwrap()
}

/// Why a file is not taken.
async fn refused(setting: &Setting, plan: &ImportPlan, path: &str, file: Option<File>) -> (StatusCode, String) {
    let answer = hand(setting, plan, path, file).await;
    (answer.status(), good(answer).await.unwrap_err().message)
}

fn opened(path: &Path) -> File {
    OsDisk.open(path).unwrap()
}

/// How often this process has a file open.
fn open_files(path: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link == path).count()
}

#[tokio::test]
async fn files_of_a_bundle_are_handed_over_open() {
    let setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:"]).await;
    let plan = offer(&setting, &bundle).await;
    for path in &plan.documents {
        let target = format!("/1.0/bundles/imports/{}/{path}", plan.id);
        let () = ask(&setting.site.socket(), Method::PUT, &target, fs::read(bundle.join(path)).unwrap()).await.unwrap();
    }
    for path in &plan.blobs {
        let file = Some(opened(&bundle.join(path)));
        // Nobody else can open it any more.
        fs::remove_file(bundle.join(path)).unwrap();
        assert_eq!(hand(&setting, &plan, path, file).await.status(), StatusCode::OK);
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
    let plan = offer(&setting, &bundle).await;
    let root = manifest(&bundle).blobs().find(|(_, file)| file.size == 300_000).unwrap().1.path.to_string();
    let other = setting.disk.path().join("other");
    fs::write(&other, fs::read(bundle.join(&root)).unwrap().iter().map(|byte| byte ^ 1).collect::<Vec<u8>>()).unwrap();
    let short = bundle.join(MANIFEST);
    for (file, status, expected) in [
        (Some(opened(&other)), StatusCode::BAD_REQUEST, "its bytes hash to"),
        (Some(opened(&short)), StatusCode::BAD_REQUEST, "it ended early"),
        // Bytes of these can be sent.
        (Some(opened(Path::new("/dev/zero"))), StatusCode::UNSUPPORTED_MEDIA_TYPE, "it is no plain file"),
        (None, StatusCode::UNSUPPORTED_MEDIA_TYPE, "it did not arrive"),
    ] {
        let reason = refused(&setting, &plan, &root, file).await;
        assert!(reason.0 == status && reason.1.contains(expected) && reason.1.contains(&root), "{reason:?}");
    }
    let elsewhere = refused(&setting, &plan, "documents/lab/none", Some(opened(&other))).await.1;
    assert!(elsewhere.contains("documents/lab/none"), "{elsewhere}");
    wait_for(async || open_files(&other) + open_files(&short) == 0).await;
    // What is left of the short one is in the way of nothing.
    assert_eq!(hand(&setting, &plan, &root, Some(opened(&bundle.join(&root)))).await.status(), StatusCode::OK);
}

/// What is before the server and lets no open file through, as a security module may; and how many came.
fn let_no_file_through(server: PathBuf, socket: &Path) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(socket).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut command, _)) = listener.accept().await {
            let (server, seen) = (server.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut server = UnixStream::connect(server).await.unwrap();
                let mut head = vec![0; 4096];
                // What is not received with its bytes is closed.
                let len = command.read(&mut head).await.unwrap();
                seen.fetch_add(usize::from(head[..len].windows(12).any(|part| part == b"?handed=true")), Ordering::Relaxed);
                server.write_all(&head[..len]).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut command, &mut server).await);
            });
        }
    });
    asked
}

#[tokio::test]
async fn where_open_files_do_not_arrive_bytes_are_sent() {
    let setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:"]).await;
    let socket = setting.disk.path().join("between.sock");
    let handed = let_no_file_through(setting.site.socket(), &socket);
    let mut command = tokio::process::Command::new(CISTERN);
    command.args(["bundle", "import", bundle.to_str().unwrap()]).env("CISTERN_SOCKET", &socket);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(handed.load(Ordering::Relaxed), manifest(&bundle).blobs().count(), "the command tries it with each");
    assert_eq!(setting.versions("busy").await, ["20260101"]);
}

#[tokio::test]
async fn what_was_left_damaged_costs_a_whole_file_nothing() {
    let setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:"]).await;
    let (_, root) = manifest(&bundle).blobs().find(|(_, file)| file.size == 300_000).map(|(at, file)| (at, file.clone())).unwrap();
    let leave = || {
        let expected = Expected { claim: Claim::Sha256(root.sha256), size: Some(root.size) };
        fs::write(Layout::new(&setting.site.store()).partial(expected), [7; 1000]).unwrap();
    };
    // Bytes that were sent are gone: somebody has to send them again.
    leave();
    let plan = offer(&setting, &bundle).await;
    let target = format!("/1.0/bundles/imports/{}/{}", plan.id, root.path);
    let body = Full::new(Bytes::from(fs::read(bundle.join(root.path.to_string())).unwrap()));
    let answer = exchange(&setting.site.socket(), Method::PUT, &target, body, None).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(good(answer).await.unwrap_err().message.contains("from an earlier attempt was damaged, and is gone now; run this again"));
    leave();
    assert!(setting.import(&bundle, &[]).await.contains("imported"));
}

/// More than anybody reads in the time of a test.
const LEN: u64 = 4 << 30;

/// A bundle of one file that is so large that nobody reads it at once. It takes no room.
fn large(setting: &Setting) -> (PathBuf, String, SigningKey) {
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
    let path = folder.join(&name);
    let plan = offer(&setting, &folder).await;
    let file = opened(&path);
    let handing = async { hand(&setting, &plan, &name, Some(file.clone())).await };
    let begun = wait_for(async || file.marked().unwrap() > 0);
    tokio::select! {
        answer = handing => panic!("it takes long, and not as long as this: {answer:?}"),
        () = begun => {}
    }
    drop(file);
    // It is let go of long before its end.
    wait_for(async || open_files(&path) == 0).await;
    let written = setting
        .site
        .files("partials")
        .iter()
        .map(|partial| fs::metadata(setting.site.store().join("partials").join(partial)).unwrap().len())
        .sum::<u64>();
    assert!(written < LEN, "{written}");
}
