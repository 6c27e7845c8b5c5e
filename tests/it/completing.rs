//! Bundles of which not everything came yet, what was left of attempts, and selections that a site lets go of.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cistern::digest::{Claim, Digest, Expected};
use cistern::store::layout::Layout;
use serde_json::Value;

use crate::importing::{FIRST, SECOND, Setting, manifest, shell_of, site, stream};
use crate::managing::{CISTERN, done, failed};
use crate::support::mirror::{Builder, wait_for};

/// A site at which what nobody uses goes at once.
fn hasty() -> Builder {
    let images = "[images]\ngrace = \"1s\"\nremote_cache_expiry = \"1s\"";
    Builder::default().remote("other", &[], "mode = \"offline\"").section(images)
}

async fn bundles(setting: &Setting) -> Vec<Value> {
    let listed: Value = serde_json::from_str(&done(&setting.site, &["bundle", "list", "--format", "json"]).await).unwrap();
    listed.as_array().unwrap().clone()
}

async fn states(setting: &Setting) -> Vec<String> {
    bundles(setting).await.iter().map(|bundle| bundle["state"].as_str().unwrap().to_owned()).collect()
}

/// Lets so much time pass that what nobody needs goes, and has it go.
async fn much_later(setting: &Setting) {
    tokio::time::sleep(Duration::from_millis(2100)).await;
    done(&setting.site, &["cache", "prune"]).await;
}

#[tokio::test]
async fn what_came_of_a_bundle_stays_until_the_rest_comes_also_after_a_restart() {
    let mut setting = Setting::with(hasty()).await;
    let bundle = setting.export("split", &["lab:", "--volume-size", "320KB"]).await;
    setting.import(&bundle.join("volume-1"), &[]).await;
    let came = setting.site.files("blobs").len();
    assert!(came > 0);
    assert_eq!(states(&setting).await, ["incomplete"]);
    much_later(&setting).await;
    assert_eq!(setting.site.files("blobs").len(), came, "on another day");
    setting.site = setting.site.restart().await;
    much_later(&setting).await;
    assert_eq!(setting.site.files("blobs").len(), came, "after a restart");
    assert!(setting.import(&bundle.join("volume-2"), &[]).await.contains("is imported"));
    assert_eq!(states(&setting).await, ["listed"]);
    assert_eq!((setting.versions("busy").await.len(), setting.versions("rare").await.len()), (1, 1));
}

#[tokio::test]
async fn what_came_of_a_bundle_makes_no_room_for_another_one() {
    let setting = Setting::with(site().storage("min_free = \"0%\"\ncapacity = \"700KB\"")).await;
    let split = setting.export("split", &["lab:", "--volume-size", "320KB"]).await;
    setting.import(&split.join("volume-1"), &[]).await;
    let came = setting.site.files("blobs");
    setting.publish(&[("20260103", "busy/3", 550_000)]).await;
    let other = setting.export("other", &["lab:busy"]).await;
    let reason = setting.refused(&other, &[]).await;
    assert!(reason.contains("less beside what has to stay"), "{reason}");
    assert_eq!(setting.site.files("blobs"), came);
    let id = bundles(&setting).await[0]["id"].as_str().unwrap().to_owned();
    done(&setting.site, &["bundle", "forget", &id]).await;
    assert!(setting.import(&other, &[]).await.contains("is imported"), "nobody waits for the rest any more");
}

#[tokio::test]
async fn a_bundle_that_is_forgotten_leaves_nothing_behind() {
    let setting = Setting::with(hasty()).await;
    let split = setting.export("split", &["lab:", "--volume-size", "320KB"]).await;
    setting.import(&split.join("volume-1"), &[]).await;
    let busy = setting.export("busy", &["lab:busy"]).await;
    setting.import(&busy, &[]).await;
    assert_eq!(states(&setting).await, ["incomplete", "listed"]);
    let ids: Vec<String> = bundles(&setting).await.iter().map(|bundle| bundle["id"].as_str().unwrap().to_owned()).collect();
    assert!(failed(&setting.site, &["bundle", "forget", "none"]).await.1.contains("no selection, or more than one"));
    done(&setting.site, &["bundle", "forget", &ids[0]]).await;
    assert_eq!(states(&setting).await, ["listed"]);
    assert_eq!(setting.versions("busy").await, ["20260101"], "another selection has it too");
    done(&setting.site, &["bundle", "forget", &ids[1]]).await;
    assert!(bundles(&setting).await.is_empty() && setting.versions("busy").await.is_empty());
    wait_for(async || {
        much_later(&setting).await;
        setting.site.files("blobs").is_empty()
    })
    .await;
    assert!(failed(&setting.site, &["bundle", "forget", &ids[1]]).await.1.contains("cistern bundle list shows them"));
}

/// A site at which nothing goes for not being used, as most are that have no way out.
fn patient() -> Builder {
    let images = "[images]\ngrace = \"1s\"\nremote_cache_expiry = \"0s\"";
    Builder::default().remote("other", &[], "mode = \"offline\"").section(images)
}

#[tokio::test]
async fn what_came_of_the_next_bundle_is_forgotten_without_the_one_that_is_listed() {
    let setting = Setting::with(patient()).await;
    let first = setting.export("first", &["lab:"]).await;
    setting.import(&first, &[]).await;
    let held = setting.site.files("blobs");
    setting.publish(&[SECOND]).await;
    let next = setting.export("next", &["lab:", "--volume-size", "320KB"]).await;
    let root = manifest(&next.join("volume-1")).blobs().find(|(_, file)| file.size == 310_000).unwrap().1.path.to_string();
    let without = ["volume-1", "volume-2"].map(|volume| next.join(volume)).into_iter().find(|volume| !volume.join(&root).exists()).unwrap();
    // All that it has is here, because of the first one.
    setting.import(&without, &[]).await;
    assert_eq!(states(&setting).await, ["listed", "incomplete"]);
    setting.import(&first, &["--allow-rollback"]).await;
    assert_eq!(states(&setting).await, ["listed", "incomplete"], "what is listed once more says nothing of the next");
    let id = bundles(&setting).await[0]["id"].as_str().unwrap().to_owned();
    let said = done(&setting.site, &["bundle", "forget", &id]).await;
    assert!(said.contains("nothing more of it is waited for; bundle 1 of "), "{said}");
    assert_eq!((states(&setting).await, setting.site.files("blobs")), (vec!["listed".to_owned()], held));
    assert_eq!(setting.versions("busy").await, ["20260101"]);
}

#[tokio::test]
async fn what_a_person_copied_is_listed_also_when_the_last_bundle_is_forgotten() {
    let setting = Setting::with(hasty()).await;
    let bundle = setting.export("first", &["lab:"]).await;
    setting.import(&bundle, &[]).await;
    wait_for(async || setting.images().await.iter().filter(|image| image["held"] == true).count() == 2).await;
    done(&setting.site, &["image", "copy", "lab:rare"]).await;
    let id = bundles(&setting).await[0]["id"].as_str().unwrap().to_owned();
    done(&setting.site, &["bundle", "forget", &id]).await;
    assert!(setting.versions("busy").await.is_empty());
    much_later(&setting).await;
    let images = setting.images().await;
    assert_eq!(images.len(), 1, "{images:?}");
    assert!(setting.is_served("rare/squashfs").await);
    let print = images[0]["fingerprint"].as_str().unwrap().to_owned();
    done(&setting.site, &["image", "delete", &print]).await;
    assert!(setting.images().await.is_empty());
}

/// Bytes of attempts that broke off are nobody's, and have to stay for nobody.
#[tokio::test]
async fn an_import_that_broke_off_has_room_to_be_gone_on_with() {
    let mut setting = Setting::with(site().storage("min_free = \"0%\"\ncapacity = \"700KB\"")).await;
    let bundle = setting.export("first", &["lab:"]).await;
    let root = manifest(&bundle).blobs().find(|(_, file)| file.size == 300_000).unwrap().1.clone();
    let begun = fs::read(bundle.join(root.path.to_string())).unwrap();
    let leave = |store: &Path, sha256: Digest, bytes: &[u8]| {
        let expected = Expected { claim: Claim::Sha256(sha256), size: Some(300_000) };
        fs::write(Layout::new(store).partial(expected), bytes).unwrap();
    };
    setting.site = setting
        .site
        .restart_after_in_store(|store| {
            leave(store, root.sha256, &begun[..290_000]);
            leave(store, Digest::of(b"of another bundle"), &vec![1; 200_000]);
        })
        .await;
    // While the store is looked through nobody is refused.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(setting.import(&bundle, &[]).await.contains("is imported"));
    assert_eq!(setting.site.body("lab/busy/1/squashfs").await, begun);
}

#[tokio::test]
async fn an_architecture_is_the_same_selection_by_every_name() {
    let setting = Setting::new().await;
    setting.origin.put(stream(&[FIRST]).tree());
    let (name, other) = if std::env::consts::ARCH == "x86_64" { ("amd64", "x86_64") } else { ("arm64", "aarch64") };
    let selections = [name, other].map(|arch| (format!("of-{arch}"), arch));
    let mut ids = Vec::new();
    for (folder, arch) in selections {
        ids.push(manifest(&setting.export(&folder, &["lab:", "--arch", arch]).await).selection.id());
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_stream_with_a_broken_file_brings_the_others_and_names_it() {
    let setting = Setting::new().await;
    let stream = setting.disk.path().join("stream.tar");
    let export = format!("{CISTERN} bundle export lab: --stdout > {}", stream.display());
    assert_eq!(shell_of(&setting.connected, &export).await.0, 0);
    let mut bytes = fs::read(&stream).unwrap();
    // The largest file is nearly all of the archive from somewhere before its middle.
    let held = crate::support::stream::noise(300_000, 300_000);
    let place = bytes.windows(64).position(|window| *window == held[1000..1064]).unwrap();
    bytes[place] ^= 1;
    fs::write(&stream, bytes).unwrap();
    let (code, out, error) = shell_of(&setting.site, &format!("{CISTERN} bundle import - < {}", stream.display())).await;
    assert_eq!(code, 1, "{out}{error}");
    assert!(out.contains("standard input: blobs/sha256/") && out.contains("its bytes hash to"), "{out}");
    assert!(error.contains("the bundle has 1 faults"), "{error}");
    assert_eq!(setting.site.files("blobs").len(), 3, "the others are here");
    let (code, _, error) = shell_of(&setting.site, &format!("head -c 4096 /dev/zero | tr '\\0' x | {CISTERN} bundle import -")).await;
    assert!(code == 1 && error.contains("standard input is no archive"), "{code} {error}");
}

#[tokio::test]
async fn a_folder_that_is_no_bundle_is_refused_by_what_it_is() {
    let setting = Setting::new().await;
    let split = setting.export("split", &["lab:", "--volume-size", "320KB"]).await;
    let reason = setting.refused(&split, &[]).await;
    assert!(reason.contains("has volumes in it; name them") && reason.contains("split/volume-1"), "{reason}");
    let reason = setting.refused(&setting.disk.path().join("none"), &[]).await;
    assert!(reason.contains("there is no folder") && reason.contains("mounted"), "{reason}");
    let reason = setting.refused(&split.join("volume-1/blobs"), &[]).await;
    assert!(reason.contains("it is no bundle, or its export was interrupted"), "{reason}");
}
