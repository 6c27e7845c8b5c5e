//! What is held, for how long, and what takes its place: LXD's rules for images, kept for all hosts (design.md §3).

use std::path::Path;
use std::time::Duration;

use cistern::api;
use cistern::cache::integrity::Verdict;
use cistern::digest::Digest;
use cistern::disk::OsDisk;
use futures_util::future::join_all;

use crate::queueing;
use crate::support::faulty::{Call, Fault, FaultyDisk};
use crate::support::mirror::{Builder, Mirror, wait_for};
use crate::support::origin::{Act, Origin};
use crate::support::stream::{Stream, Version, fingerprint, noise};

const IMAGES: &str = "lab/streams/v1/images.json";
const PRODUCT: &str = "busy:1:amd64";
const METADATA: &[u8] = b"metadata";

/// A version with one container.
fn container(folder: &str) -> Version {
    Version::new(folder).file("squashfs", &root(folder)).metadata("lxd.tar.xz", METADATA)
}

/// A version with every kind of root.
fn full(folder: &str) -> Version {
    let version = Version::new(folder).file("squashfs", &root(folder)).file("root.tar.xz", &[&root(folder)[..], b"x"].concat());
    version.file("disk-kvm.img", &[&root(folder)[..], b"vm"].concat()).metadata("lxd.tar.xz", METADATA)
}

fn root(folder: &str) -> Vec<u8> {
    noise(4096, folder.bytes().map(u64::from).sum())
}

fn print(folder: &str) -> String {
    fingerprint(METADATA, &root(folder))
}

fn stream(versions: &[(&str, Version)]) -> Stream {
    versions.iter().fold(Stream::default(), |stream, (serial, version)| stream.add(PRODUCT, "busy", serial, version.clone()))
}

async fn origin(versions: &[(&str, Version)]) -> Origin {
    let origin = Origin::start().await;
    origin.put(stream(versions).tree());
    origin
}

fn lab(origin: &Origin, images: &str) -> Builder {
    Builder::default().section(&format!("[images]\n{images}\n[limits]\nretry_wrong = \"100ms\"\nretry_gone = \"100ms\"")).remote(
        "lab",
        &[origin.url()],
        "",
    )
}

/// Downloads an image as a host does.
async fn pull(mirror: &Mirror, folder: &str) {
    for file in ["metadata.tar.xz", "squashfs"] {
        mirror.body(&format!("lab/{folder}/{file}")).await;
    }
}

/// The same, and waits until it is recorded.
async fn hold(mirror: &Mirror, folder: &str) {
    pull(mirror, folder).await;
    wait_for(async || is_held(mirror, &print(folder)).await).await;
}

async fn images(mirror: &Mirror, held: bool) -> Vec<api::Image> {
    let path = if held { "/1.0/images?held" } else { "/1.0/images" };
    cistern::cli::admin::ask(&mirror.socket(), hyper::Method::GET, path, Vec::new()).await.unwrap()
}

/// The image with this fingerprint, if it is listed.
async fn image(mirror: &Mirror, print: &str) -> Option<api::Image> {
    images(mirror, false).await.into_iter().find(|image| image.fingerprint == print)
}

async fn is_held(mirror: &Mirror, print: &str) -> bool {
    image(mirror, print).await.is_some_and(|image| image.held)
}

/// The versions of the product that hosts see, each with the kinds of its roots.
async fn seen(mirror: &Mirror) -> Vec<String> {
    let document = mirror.json(IMAGES).await;
    let mut seen = Vec::new();
    for (_, product) in document["products"].as_object().unwrap() {
        for (serial, version) in product["versions"].as_object().unwrap() {
            let items = version["items"].as_object().unwrap().values();
            let mut ftypes: Vec<&str> = items
                .filter_map(|item| item["ftype"].as_str())
                .filter(|ftype| !ftype.contains("tar.xz") || *ftype == "root.tar.xz")
                .collect();
            ftypes.sort_unstable();
            seen.push(format!("{serial} {}", ftypes.join(" ")));
        }
    }
    seen.sort();
    seen
}

/// design.md §3: "A host's first download pulls the image through and records it: `cached: true`, remote, product, version."
#[tokio::test]
async fn a_hosts_first_download_is_recorded_and_flagged_as_cached() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mirror = lab(&origin, "").start().await;
    assert!(images(&mirror, true).await.is_empty());
    mirror.body("lab/a/metadata.tar.xz").await;
    assert!(!is_held(&mirror, &print("a")).await, "half an image is none");
    mirror.body("lab/a/squashfs").await;
    wait_for(async || is_held(&mirror, &print("a")).await).await;
    let api::Image { cached, auto_update, public, remote, product, version, use_count, .. } = image(&mirror, &print("a")).await.unwrap();
    assert_eq!((cached, auto_update, public, use_count), (true, true, true, 1));
    assert_eq!((&*remote, &*product, &*version), ("lab", PRODUCT, "20260101"));
}

/// design.md §3: "A host's GET of an image's root, unified file or delta is a use of that image, by any host. A metadata file that several
/// images share is a use of none. HEAD, 304 and 416 are no use."
#[tokio::test]
async fn a_use_by_any_host_counts_and_what_is_no_use_does_not() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mirror = lab(&origin, "").start().await;
    hold(&mirror, "a").await;
    let uses = async || image(&mirror, &print("a")).await.unwrap().use_count;
    let before = uses().await;
    mirror.body("lab/a/metadata.tar.xz").await;
    let url = format!("{}/lab/a/squashfs", mirror.url());
    assert_eq!(mirror.client().head(&url).send().await.unwrap().status(), 200);
    assert_eq!(mirror.client().get(&url).header("range", "bytes=99999-").send().await.unwrap().status(), 416);
    let etag = mirror.client().head(&url).send().await.unwrap().headers()["etag"].clone();
    assert_eq!(mirror.client().get(&url).header("if-none-match", etag).send().await.unwrap().status(), 304);
    assert_eq!(uses().await, before, "metadata, HEAD, 304 and 416 are no use");
    mirror.body("lab/a/squashfs").await;
    assert_eq!(uses().await, before + 1);
    assert_eq!(mirror.client().get(&url).header("range", "bytes=5-9").send().await.unwrap().status(), 206);
    assert_eq!(uses().await, before + 2);
}

/// design.md §3: "A cached image goes when it was not used for `images.remote_cache_expiry` days … image by image, never half an image."
#[tokio::test]
async fn an_unused_image_goes_whole_and_a_use_postpones_that() {
    let origin = origin(&[("20260101", container("a")), ("20260102", container("b"))]).await;
    let mirror = lab(&origin, "remote_cache_expiry = \"1s\"\ngrace = \"200ms\"").start().await;
    pull(&mirror, "a").await;
    pull(&mirror, "b").await;
    wait_for(async || is_held(&mirror, &print("a")).await && is_held(&mirror, &print("b")).await).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        mirror.body("lab/b/squashfs").await;
    }
    assert!(!is_held(&mirror, &print("a")).await, "it was not used for a second");
    assert!(is_held(&mirror, &print("b")).await);
    assert_eq!(mirror.files("blobs").len(), 2, "the metadata is shared and stays with the other one");
    assert_eq!(origin.requests("b/squashfs").len(), 1, "what is in use is not fetched again");
    wait_for(async || mirror.files("blobs").is_empty() && mirror.files("records").is_empty()).await;
    pull(&mirror, "a").await;
    assert_eq!(origin.requests("a/squashfs").len(), 2, "upstream lists it, and so its path pulls through again");
}

#[tokio::test]
async fn files_that_belong_to_no_image_go_by_the_same_rule() {
    let version = container("a").file("manifest", b"packages");
    let origin = origin(&[("20260101", version)]).await;
    let mirror = lab(&origin, "remote_cache_expiry = \"700ms\"").start().await;
    mirror.body("lab/a/manifest").await;
    mirror.body("lab/a/metadata.tar.xz").await;
    wait_for(async || mirror.files("blobs").len() == 2).await;
    wait_for(async || mirror.files("blobs").is_empty()).await;
}

/// design.md §3: "Plus a size limit: least recently used `cached` images go first."
#[tokio::test]
async fn of_three_images_in_room_for_two_the_least_recently_used_goes_whole() {
    let large = |folder: &str, seed| Version::new(folder).file("squashfs", &noise(100_000, seed)).metadata("lxd.tar.xz", folder.as_bytes());
    let origin = Origin::start().await;
    let stream = ["a", "b", "c"].iter().zip(1..).fold(Stream::default(), |stream, (folder, seed)| {
        stream.add(&format!("os:{folder}:amd64"), folder, "20260101", large(folder, seed))
    });
    origin.put(stream.tree());
    let mirror = lab(&origin, "").storage("capacity = \"250KiB\"\nmin_free = \"0%\"").start().await;
    let prints = ["a", "b", "c"].map(|folder| fingerprint(folder.as_bytes(), &noise(100_000, u64::from(folder.as_bytes()[0] - b'a') + 1)));
    pull(&mirror, "a").await;
    pull(&mirror, "b").await;
    wait_for(async || images(&mirror, true).await.len() == 2).await;
    mirror.body("lab/a/squashfs").await;
    pull(&mirror, "c").await;
    wait_for(async || is_held(&mirror, &prints[2]).await).await;
    assert!(is_held(&mirror, &prints[0]).await);
    assert!(!is_held(&mirror, &prints[1]).await, "it was used the longest ago");
    assert_eq!(mirror.files("blobs").len(), 4, "its metadata went with it");
}

#[tokio::test]
async fn an_image_that_a_slow_host_downloads_stays_to_the_end_and_another_goes_in_its_place() {
    const LARGE: usize = 24 << 20;
    let origin = Origin::start().await;
    let large = |seed| noise(LARGE, seed);
    let stream = ["a", "b", "c"].iter().zip(1..).fold(Stream::default(), |stream, (folder, seed)| {
        let version = Version::new(folder).file("squashfs", &large(seed)).metadata("lxd.tar.xz", folder.as_bytes());
        stream.add(&format!("os:{folder}:amd64"), folder, "20260101", version)
    });
    origin.put(stream.tree());
    let mirror = lab(&origin, "").storage("capacity = \"60MiB\"\nmin_free = \"0%\"").start().await;
    let prints = [("a", 1), ("b", 2), ("c", 3)].map(|(folder, seed)| fingerprint(folder.as_bytes(), &large(seed)));
    pull(&mirror, "a").await;
    pull(&mirror, "b").await;
    wait_for(async || images(&mirror, true).await.len() == 2).await;
    // What the kernel sends is being read, too.
    for (slow, [read, goes, comes]) in
        [(mirror.get("lab/a/squashfs").await, [0, 1, 2]), (mirror.get_file("lab/a/squashfs").await, [0, 2, 1])]
    {
        let (mut slow, mut got) = (slow, Vec::new());
        got.extend(slow.chunk().await.unwrap().unwrap());
        pull(&mirror, ["a", "b", "c"][goes]).await;
        pull(&mirror, ["a", "b", "c"][comes]).await;
        wait_for(async || is_held(&mirror, &prints[comes]).await).await;
        assert!(is_held(&mirror, &prints[read]).await, "it was used the longest ago, and is being read");
        assert!(!is_held(&mirror, &prints[goes]).await);
        while let Some(chunk) = slow.chunk().await.unwrap() {
            got.extend(chunk);
        }
        assert!(got == large(1));
    }
}

#[tokio::test]
async fn what_goes_is_counted_by_its_reason() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let origin = origin(&[("20260101", container("a"))]).await;
    let mirror = lab(&origin, "remote_cache_expiry = \"700ms\"").metrics(port).start().await;
    let counted = async |reason: &str| {
        let text = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.unwrap().text().await.unwrap();
        let name = format!("cistern_cache_evicted_bytes_total{{reason=\"{reason}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().to_owned()
    };
    hold(&mirror, "a").await;
    assert_eq!(counted("idle").await, "0");
    wait_for(async || mirror.files("blobs").is_empty()).await;
    wait_for(async || counted("idle").await == (root("a").len() + METADATA.len()).to_string()).await;
    assert_eq!(counted("size").await, "0");
}

/// design.md §3: "Until the new image is held and verified whole, hosts get the old one from the cache: hold-back. It works per instance type:
/// it hides from the new version every root of the held-back type and every delta to them … The successor inherits `cached`,
/// `auto_update`, `last_used_at`. The old one stays downloadable for `images.grace`."
#[tokio::test]
async fn a_new_version_is_listed_when_it_is_held_and_until_then_hosts_get_the_old_one() {
    let origin = origin(&[("20260101", full("a"))]).await;
    let mirror = lab(&origin, "grace = \"2s\"").start().await;
    hold(&mirror, "a").await;
    origin.act("b/squashfs", [Act::StallAt(100, Duration::from_millis(1500))]);
    origin.put(stream(&[("20260102", full("b"))]).tree());
    assert_eq!(mirror.refresh("lab", true).await.result.label(), "changed");
    assert_eq!(
        seen(&mirror).await,
        ["20260101 squashfs", "20260102 disk-kvm.img"],
        "no root of a container is there of the new version; the old one is, though upstream lists it no more; virtual machines are not held back"
    );
    let held_back = mirror.remotes().await[0].held_back.clone();
    assert_eq!(
        held_back.iter().map(|held_back| (&*held_back.product, &*held_back.version, &*held_back.image_type)).collect::<Vec<_>>(),
        [(PRODUCT, "20260102", "container")]
    );
    mirror.body("lab/a/squashfs").await;
    wait_for(async || seen(&mirror).await == ["20260102 disk-kvm.img root.tar.xz squashfs"]).await;
    assert_eq!(origin.requests("b/squashfs").len(), 1, "it was fetched ahead of requests");
    let new = image(&mirror, &print("b")).await.unwrap();
    assert!(new.held && new.cached && new.auto_update, "it inherits the flags: {new:?}");
    let (old, before) = (mirror.body("lab/a/squashfs").await, origin.total());
    assert_eq!(old, root("a"), "in grace, hosts with documents of before can have the old one");
    mirror.body("lab/b/squashfs").await;
    assert_eq!(origin.total(), before);
    wait_for(async || mirror.files("blobs").len() == 2 && mirror.files("records").len() == 1).await;
    assert!(mirror.remotes().await[0].held_back.is_empty());
}

/// design.md §3: "A failed download leaves the old one in place; after `images.hold_back_max` the new version is listed and passed through all
/// the same, unless its bytes were wrong."
#[tokio::test]
async fn while_the_new_version_cannot_be_had_the_old_one_stays_and_the_next_refresh_tries_again() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mirror = lab(&origin, "grace = \"1s\"\nhold_back_max = \"1500ms\"").start().await;
    hold(&mirror, "a").await;
    origin.act("b/squashfs", vec![Act::WrongBytes; 50]);
    origin.put(stream(&[("20260101", container("a")), ("20260102", container("b"))]).tree());
    mirror.refresh("lab", false).await;
    wait_for(async || mirror.remotes().await[0].held_back.first().is_some_and(|held_back| held_back.problem.is_some())).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(seen(&mirror).await, ["20260101 squashfs"], "wrong bytes are not listed, however long it takes");
    assert!(is_held(&mirror, &print("a")).await);
    origin.act("b/squashfs", []);
    mirror.refresh("lab", false).await;
    wait_for(async || is_held(&mirror, &print("b")).await).await;
}

/// design.md §3: "After `images.hold_back_max` (24 h) the new version is listed and passed through all the same."
#[tokio::test]
async fn a_version_that_cannot_be_had_is_listed_when_it_has_waited_long_enough() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mirror = lab(&origin, "hold_back_max = \"1s\"").start().await;
    hold(&mirror, "a").await;
    origin.act("b/squashfs", vec![Act::Status(500, ""); 50]);
    origin.put(stream(&[("20260101", container("a")), ("20260102", container("b"))]).tree());
    mirror.refresh("lab", false).await;
    assert_eq!(seen(&mirror).await, ["20260101 squashfs"]);
    wait_for(async || seen(&mirror).await.len() == 2).await;
    assert_eq!(seen(&mirror).await, ["20260101 squashfs", "20260102 squashfs"], "the old one is left in place");
    origin.act("b/squashfs", []);
    wait_for(async || mirror.get("lab/b/squashfs").await.status() == 200).await;
}

#[tokio::test]
async fn a_version_that_is_released_without_being_held_leaves_the_old_one_in_place() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mirror = lab(&origin, "hold_back_max = \"500ms\"\ngrace = \"200ms\"").start().await;
    hold(&mirror, "a").await;
    origin.act("b/squashfs", vec![Act::Status(500, ""); 500]);
    origin.put(stream(&[("20260102", container("b"))]).tree());
    mirror.refresh("lab", true).await;
    wait_for(async || seen(&mirror).await.len() == 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(seen(&mirror).await, ["20260101 squashfs", "20260102 squashfs"]);
    assert!(is_held(&mirror, &print("a")).await);
}

/// design.md §3: "every `images.auto_update_interval` hours (default 6; 0 = off) LXD looks for newer versions of images that are marked
/// auto-update."
#[tokio::test]
async fn with_an_interval_of_zero_nothing_is_kept_up_to_date_and_nothing_held_back() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mirror = lab(&origin, "auto_update_interval = 0").start().await;
    hold(&mirror, "a").await;
    origin.put(stream(&[("20260101", container("a")), ("20260102", container("b"))]).tree());
    mirror.refresh("lab", false).await;
    assert_eq!(seen(&mirror).await, ["20260101 squashfs", "20260102 squashfs"]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(origin.requests("b/squashfs").is_empty());
}

#[tokio::test]
async fn both_types_of_an_image_stay_with_their_names_while_the_new_version_is_on_its_way() {
    let origin = origin(&[("20260101", full("a"))]).await;
    let mirror = Builder::default().remote("lab", &[origin.url()], "versions = 1").start().await;
    for file in ["metadata.tar.xz", "squashfs", "disk-kvm.img"] {
        mirror.body(&format!("lab/a/{file}")).await;
    }
    wait_for(async || images(&mirror, true).await.len() == 2).await;
    origin.act("b/metadata.tar.xz", vec![Act::Status(500, ""); 500]);
    origin.put(stream(&[("20260101", full("a")), ("20260102", full("b"))]).tree());
    mirror.refresh("lab", true).await;
    wait_for(async || seen(&mirror).await == ["20260101 disk-kvm.img squashfs"]).await;
    assert_eq!(mirror.json(IMAGES).await["products"].as_object().unwrap().len(), 1, "in one product, with its aliases");
    assert_eq!(images(&mirror, false).await.iter().filter(|image| image.aliases == ["busy"]).count(), 2);
}

/// design.md §3: "A request for a current version counts as a request by alias; a request for an older one is for that exact version and pins it:
/// never auto-updated, listed beside newer ones while it is held."
#[tokio::test]
async fn a_request_for_an_older_version_pins_it_and_it_stays_listed() {
    let origin = origin(&[("20260101", container("a")), ("20260102", container("b"))]).await;
    let mirror = lab(&origin, "grace = \"300ms\"").start().await;
    hold(&mirror, "a").await;
    let pinned = image(&mirror, &print("a")).await.unwrap();
    assert!(pinned.cached && !pinned.auto_update);
    origin.put(stream(&[("20260102", container("b")), ("20260103", container("c"))]).tree());
    mirror.refresh("lab", true).await;
    wait_for(async || seen(&mirror).await == ["20260101 squashfs", "20260102 squashfs", "20260103 squashfs"]).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(mirror.body("lab/a/squashfs").await, root("a"));
    let root = mirror.json("streams/v1/lab.images.json").await;
    assert_eq!(root["products"].as_object().unwrap().len(), 1, "it is a version of its product at the root, too");
    let mirror = mirror.restart().await;
    assert_eq!(seen(&mirror).await.len(), 3);
}

/// design.md §3: "On start … LXD looks for newer versions of images that are marked auto-update."
#[tokio::test]
async fn a_start_looks_for_newer_versions_without_waiting_for_the_interval() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mirror = lab(&origin, "auto_update_interval = \"6h\"").start().await;
    hold(&mirror, "a").await;
    let mirror = mirror.restart_after(|| origin.put(stream(&[("20260102", container("b"))]).tree())).await;
    wait_for(async || is_held(&mirror, &print("b")).await).await;
    wait_for(async || seen(&mirror).await == ["20260102 squashfs"]).await;
    assert_eq!(origin.requests("b/squashfs").len(), 1, "no host asked for it");
}

/// design.md §3: "Grace ends holding, not listing: while upstream lists a version, its path pulls through again."
#[tokio::test]
async fn a_version_that_went_is_pulled_through_again_for_as_long_as_upstream_lists_it() {
    let both = [("20260101", container("a")), ("20260102", container("b"))];
    let origin = origin(&both[..1]).await;
    let mirror = lab(&origin, "grace = \"200ms\"").start().await;
    hold(&mirror, "a").await;
    origin.put(stream(&both).tree());
    mirror.refresh("lab", true).await;
    wait_for(async || is_held(&mirror, &print("b")).await && !is_held(&mirror, &print("a")).await).await;
    let gone = cistern::digest::Digest::of(&root("a")).to_string();
    wait_for(async || mirror.files("blobs").iter().all(|blob| !blob.ends_with(&gone))).await;
    assert_eq!(seen(&mirror).await, ["20260101 squashfs", "20260102 squashfs"], "it is listed all the same");
    let before = origin.requests("a/squashfs").len();
    assert_eq!(mirror.body("lab/a/squashfs").await, root("a"));
    assert_eq!(origin.requests("a/squashfs").len(), before + 1);
}

/// design.md §4: "Any remote can be switched between modes by configuration reload": what a selection brought in goes by the
/// rules of pull-through once there is no selection any more, and is held again when there is.
#[tokio::test]
async fn what_a_selection_brought_in_is_cached_once_its_remote_is_a_proxy() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let images = "remote_cache_expiry = \"400ms\"\ngrace = \"100ms\"";
    let section = format!("[images]\n{images}");
    let mut mirror = Builder::default().section(&section).remote("lab", &[origin.url()], "mode = \"mirror\"").start().await;
    wait_for(async || is_held(&mirror, &print("a")).await).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let held = image(&mirror, &print("a")).await.unwrap();
    assert!(held.held && !held.cached, "a selection holds it, used or not: {held:?}");
    mirror.reload(|text| text.replace("mode = \"mirror\"", "mode = \"proxy\"")).await;
    wait_for(async || !is_held(&mirror, &print("a")).await && mirror.files("blobs").is_empty()).await;
    assert_eq!(seen(&mirror).await, ["20260101 squashfs"]);
    mirror.reload(|text| text.replace("mode = \"proxy\"", "mode = \"mirror\"")).await;
    wait_for(async || is_held(&mirror, &print("a")).await).await;
    assert!(!image(&mirror, &print("a")).await.unwrap().cached);
}

/// An image keeps the remote that it came from when the configuration loses that.
#[tokio::test]
async fn an_image_of_a_remote_that_is_gone_is_seen_by_people_and_can_be_deleted() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mut mirror = lab(&origin, "grace = \"100ms\"").start().await;
    crate::managing::done(&mirror, &["image", "copy", "lab:busy"]).await;
    mirror.reload(|text| text.replace("[remotes.lab]", "[remotes.new]")).await;
    wait_for(async || mirror.get("new/streams/v1/index.json").await.status() == 200).await;
    let of_lab = async |mirror: &Mirror| -> usize {
        let listed: Vec<api::Image> =
            serde_json::from_str(&crate::managing::done(mirror, &["image", "list", "lab:", "--format", "json"]).await).unwrap();
        listed.iter().filter(|image| image.held && image.remote == "lab").count()
    };
    assert_eq!(of_lab(&mirror).await, 1);
    assert_eq!(mirror.get("lab/a/squashfs").await.status(), 404, "no host has it from there");
    let mirror = mirror.restart().await;
    assert_eq!(of_lab(&mirror).await, 1);
    crate::managing::done(&mirror, &["image", "delete", "lab:busy"]).await;
    wait_for(async || mirror.files("records").is_empty() && mirror.files("blobs").is_empty()).await;
    let (code, line) = crate::managing::failed(&mirror, &["image", "list", "lab:"]).await;
    assert!(code == 1 && line.contains("there is no remote 'lab'"), "{line}");
}

/// design.md §3: "Only upstream's current documents decide upstream's aliases."
#[tokio::test]
async fn an_image_whose_product_is_gone_stays_listed_without_the_aliases_that_others_have_now() {
    let origin = Origin::start().await;
    origin.put(Stream::default().add("busy:1:amd64", "busy,lts", "20260101", container("a")).tree());
    let mirror = lab(&origin, "").start().await;
    hold(&mirror, "a").await;
    origin.put(Stream::default().add("busy:2:amd64", "busy2,lts", "20260201", container("b")).tree());
    mirror.refresh("lab", true).await;
    let document = mirror.json(IMAGES).await;
    assert_eq!(document["products"]["busy:1:amd64"]["aliases"], "busy");
    assert_eq!(document["products"]["busy:2:amd64"]["aliases"], "busy2,lts");
    assert_eq!(mirror.body("lab/a/squashfs").await, root("a"));
}

/// design.md §3: "A version that upstream withdrew is unlisted at once … unless it is pinned, copied or auto-updated with nothing newer to take
/// its place; then it stays listed, in a product without the aliases that upstream now gives elsewhere."
#[tokio::test]
async fn a_version_that_upstream_took_back_keeps_no_alias() {
    let origin = origin(&[("20260101", container("a")), ("20260102", container("b"))]).await;
    let mirror = lab(&origin, "").start().await;
    hold(&mirror, "b").await;
    origin.put(stream(&[("20260101", container("a"))]).tree());
    mirror.refresh("lab", true).await;
    let document = mirror.json(IMAGES).await;
    let products = document["products"].as_object().unwrap();
    let with_alias: Vec<&String> = products.iter().filter(|(_, product)| product["aliases"] == "busy").map(|(name, _)| name).collect();
    assert_eq!(with_alias, [PRODUCT], "{document}");
    assert_eq!(products[PRODUCT]["versions"].as_object().unwrap().keys().collect::<Vec<_>>(), ["20260101"]);
    assert_eq!(products.len(), 2, "nothing newer takes its place, and so it stays, apart");
}

#[tokio::test]
async fn without_its_database_only_times_of_use_are_lost() {
    let origin = origin(&[("20260101", container("a")), ("20260102", container("b"))]).await;
    let mirror = lab(&origin, "").start().await;
    pull(&mirror, "a").await;
    pull(&mirror, "b").await;
    wait_for(async || images(&mirror, true).await.len() == 2).await;
    let flags = async |mirror: &Mirror| -> Vec<(String, bool, bool)> {
        images(mirror, true).await.into_iter().map(|image| (image.fingerprint, image.cached, image.auto_update)).collect()
    };
    let before = flags(&mirror).await;
    let path = mirror.store().join("ledger.sqlite");
    let mirror = mirror.restart_after(|| std::fs::remove_file(&path).unwrap()).await;
    assert_eq!(flags(&mirror).await, before);
    let mirror = mirror.restart_after(|| std::fs::write(&path, b"nonsense".repeat(1000)).unwrap()).await;
    assert_eq!(flags(&mirror).await, before);
    assert!(mirror.store().join("ledger.sqlite.damaged").exists());
}

#[tokio::test]
async fn times_of_use_survive_a_restart_and_lost_files_are_noticed() {
    let origin = origin(&[("20260101", container("a")), ("20260102", container("b"))]).await;
    let mirror = lab(&origin, "").start().await;
    pull(&mirror, "a").await;
    pull(&mirror, "b").await;
    wait_for(async || images(&mirror, true).await.len() == 2).await;
    mirror.body("lab/b/squashfs").await;
    let before = image(&mirror, &print("b")).await.unwrap();
    let mirror = mirror.restart().await;
    assert_eq!(image(&mirror, &print("b")).await.unwrap(), before);
    let blob = mirror.store().join("blobs/sha256");
    let digest = cistern::digest::Digest::of(&root("a")).to_string();
    let mirror = mirror.restart_after(|| std::fs::remove_file(blob.join(&digest[..2]).join(&digest)).unwrap()).await;
    wait_for(async || !is_held(&mirror, &print("a")).await).await;
    assert!(is_held(&mirror, &print("b")).await);
    hold(&mirror, "a").await;
}

/// T29: a file that is not there is a miss and not an error, and what was known of it is put right.
#[tokio::test]
async fn a_file_that_vanishes_under_a_running_server_is_fetched_again_and_its_image_is_whole_again() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mirror = lab(&origin, "").start().await;
    hold(&mirror, "a").await;
    // A restart closes what is open.
    let mirror = mirror.restart().await;
    let digest = cistern::digest::Digest::of(&root("a")).to_string();
    std::fs::remove_file(mirror.store().join("blobs/sha256").join(&digest[..2]).join(&digest)).unwrap();
    let size = async || -> u64 {
        let info: serde_json::Value =
            cistern::cli::admin::ask(&mirror.socket(), hyper::Method::GET, "/1.0/cache", Vec::new()).await.unwrap();
        info["size"].as_u64().unwrap()
    };
    let before = size().await;
    assert_eq!(mirror.body("lab/a/squashfs").await, root("a"));
    assert_eq!(origin.requests("a/squashfs").len(), 2);
    wait_for(async || is_held(&mirror, &print("a")).await).await;
    assert_eq!(size().await, before, "it is counted once");
}

/// Changes one byte of a root in the store.
fn spoil(store: &Path, folder: &str) {
    let digest = Digest::of(&root(folder)).to_string();
    let blob = store.join("blobs/sha256").join(&digest[..2]).join(&digest);
    let file = std::fs::OpenOptions::new().write(true).open(blob).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"!", 7).unwrap();
}

/// T29: a file that no row tells of is read before anybody gets it: it may come from a crash, or from a stranger.
#[tokio::test]
async fn what_the_database_does_not_know_is_adopted_if_it_is_what_it_is_called_and_fetched_again_if_not() {
    let mut origin = origin(&[("20260101", container("a")), ("20260102", container("b"))]).await;
    // Nothing is read ahead of requests.
    let mirror = lab(&origin, "").storage("min_free = \"0%\"\nscrub = \"0s\"").start().await;
    hold(&mirror, "a").await;
    hold(&mirror, "b").await;
    let mirror = mirror
        .restart_after_in_store(|store| {
            std::fs::remove_file(store.join("ledger.sqlite")).unwrap();
            spoil(store, "a");
        })
        .await;
    let bodies = futures_util::future::join_all((0..20).map(|_| mirror.body("lab/a/squashfs"))).await;
    assert!(bodies.iter().all(|body| *body == root("a")), "nobody gets it as it was");
    assert_eq!(mirror.body("lab/b/squashfs").await, root("b"));
    let asked = |file: &str| origin.requests(file).len();
    assert_eq!((asked("a/squashfs"), asked("b/squashfs")), (2, 1), "one was fetched again");
    // What nobody has asked for yet is no less strange after the next start.
    let mirror = mirror
        .restart_after_in_store(|store| {
            std::fs::remove_file(store.join("ledger.sqlite")).unwrap();
            spoil(store, "b");
        })
        .await;
    mirror.body("lab/a/squashfs").await;
    tokio::time::sleep(Duration::from_millis(5500)).await;
    let mirror = mirror.restart().await;
    assert_eq!(mirror.body("lab/b/squashfs").await, root("b"));
    wait_for(async || is_held(&mirror, &print("b")).await).await;
    // Adopted is adopted, upstream or none.
    origin.stop().await;
    let mirror = mirror.restart().await;
    for folder in ["a", "b"] {
        assert_eq!(mirror.body(&format!("lab/{folder}/squashfs")).await, root(folder));
    }
    crate::deeds::is_sound(&mirror).await.unwrap();
}

/// T29: what nobody remembers to have verified and cannot be read is fetched: nothing is lost by that.
#[tokio::test]
async fn what_the_database_does_not_know_and_cannot_be_read_is_fetched_again() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let disk = FaultyDisk::over(OsDisk);
    let mirror = lab(&origin, "").disk(disk.clone()).storage("min_free = \"0%\"\nscrub = \"0s\"").start().await;
    hold(&mirror, "a").await;
    let mirror = mirror.restart_after_in_store(|store| std::fs::remove_file(store.join("ledger.sqlite")).unwrap()).await;
    disk.fail_all(Call::Open, Fault::Broken);
    assert_eq!(mirror.body("lab/a/squashfs").await, root("a"));
    disk.heal();
    wait_for(async || mirror.is_hit("lab/a/squashfs").await).await;
    assert_eq!((mirror.body("lab/a/squashfs").await, origin.requests("a/squashfs").len()), (root("a"), 2));
    crate::deeds::is_sound(&mirror).await.unwrap();
}

/// Invariant 9: however many of them are asked for, few are read at once; small ones do not wait for large ones.
#[tokio::test]
async fn what_the_database_does_not_know_is_read_in_turns() {
    let file = |number: u64| noise(1000, number);
    let origin = Origin::start().await;
    let stream = (0..9).fold(Stream::default(), |stream, number| {
        let version = Version::new(&number.to_string()).file("squashfs", &file(number)).metadata("lxd.tar.xz", METADATA);
        stream.add(PRODUCT, "busy", &format!("2026010{}", number + 1), version)
    });
    origin.put(stream.tree());
    let disk = FaultyDisk::over(OsDisk);
    let mirror = lab(&origin, "").disk(disk.clone()).storage("min_free = \"0%\"\nscrub = \"0s\"").start().await;
    let mirror = mirror
        .restart_after_in_store(|store| {
            for number in 0..9 {
                let digest = Digest::of(&file(number)).to_string();
                let blob = store.join("blobs/sha256").join(&digest[..2]).join(&digest);
                std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
                std::fs::write(&blob, file(number)).unwrap();
                if number < 4 {
                    std::fs::File::options().write(true).open(&blob).unwrap().set_len(65 << 20).unwrap();
                }
            }
        })
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    disk.hang(Call::Open);
    let hosts = join_all((0..9).map(|number| mirror.get_whole(format!("lab/{number}/squashfs"))));
    let watch = async {
        wait_for(async || disk.under_way() == 4).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(disk.under_way(), 4, "two small ones and two large ones");
        disk.heal();
    };
    let (bodies, ()) = tokio::join!(hosts, watch);
    for (number, body) in (0..).zip(bodies) {
        assert_eq!(body, Some(file(number)), "{number}");
    }
    let asked = (0..9).map(|number| origin.requests(&format!("{number}/squashfs")).len());
    assert_eq!(asked.collect::<Vec<_>>(), [1, 1, 1, 1, 0, 0, 0, 0, 0], "those that were too long were no good");
}

/// T29: an offline remote has nobody to fetch from, and what it holds is read all the same before anybody gets it.
#[tokio::test]
async fn what_the_database_does_not_know_of_an_offline_remote_is_adopted_or_refused() {
    let origin = origin(&[("20260101", container("a")), ("20260102", container("b"))]).await;
    let mut mirror = lab(&origin, "").storage("min_free = \"0%\"\nscrub = \"0s\"").start().await;
    hold(&mirror, "a").await;
    hold(&mirror, "b").await;
    mirror.reload(|text| text.replace("[remotes.lab]", "[remotes.lab]\nmode = \"offline\"")).await;
    let mirror = mirror
        .restart_after_in_store(|store| {
            std::fs::remove_file(store.join("ledger.sqlite")).unwrap();
            spoil(store, "a");
        })
        .await;
    assert_eq!(mirror.body("lab/b/squashfs").await, root("b"));
    let answers = futures_util::future::join_all((0..5).map(|_| mirror.get("lab/a/squashfs"))).await;
    // On a busy machine the last of them may come when it is listed no more.
    let is_refused = |answer: &reqwest::Response| [503, 404].contains(&answer.status().as_u16());
    assert!(answers.iter().all(is_refused) && answers[0].status() == 503, "it is listed, and wrong bytes are nobody's: {answers:?}");
    wait_for(async || mirror.get("lab/a/squashfs").await.status() == 404).await;
    crate::deeds::is_sound(&mirror).await.unwrap();
}

/// T25: what was found out of a file is of no other one that has its name by now.
#[tokio::test]
async fn a_late_verdict_takes_away_no_file_but_the_one_that_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let cache = queueing::cache(&folder);
    let bytes = noise(1000, 1);
    let (expected, commit) = (queueing::expected(&bytes), || queueing::commit(&cache, &bytes));
    drop(commit());
    let blob = cache.store().layout().blob(Digest::of(&bytes));
    std::os::unix::fs::FileExt::write_at(&std::fs::OpenOptions::new().write(true).open(blob).unwrap(), b"!", 7).unwrap();
    let read_meanwhile = cache.find(expected).await.unwrap().unwrap();
    let examined = cache.examine(Digest::of(&bytes)).unwrap();
    let Some(Verdict::Wrong(wrong)) = examined else { panic!("{examined:?}") };
    let good = commit();
    assert!(!cache.discard_broken(&wrong).unwrap(), "it is another one by now");
    assert!(read_meanwhile.is_broken() && !good.is_broken(), "who reads the wrong one is cut off, who reads the good one is not");
    assert!(cache.find(expected).await.unwrap().is_some());
    assert!(matches!(cache.examine(Digest::of(&bytes)), Ok(Some(Verdict::Right(_)))));
}

/// T21: the disk changed a file that is open, and somebody put a good one in its place: hosts get that one when it was read.
#[tokio::test]
async fn nobody_gets_what_was_open_before_the_file_that_was_read() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mirror = lab(&origin, "").storage("min_free = \"0%\"\nscrub = \"0s\"").start().await;
    hold(&mirror, "a").await;
    let digest = Digest::of(&root("a")).to_string();
    let blob = mirror.store().join("blobs/sha256").join(&digest[..2]).join(&digest);
    spoil(&mirror.store(), "a");
    std::fs::write(blob.with_extension("good"), root("a")).unwrap();
    std::fs::rename(blob.with_extension("good"), &blob).unwrap();
    crate::managing::done(&mirror, &["cache", "verify"]).await;
    assert_eq!(mirror.body("lab/a/squashfs").await, root("a"));
}

/// T29: a folder of the store that somebody took away is made again, and a file in the place of one hides nothing.
#[tokio::test]
async fn folders_of_the_store_may_be_gone_or_be_files() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mirror = lab(&origin, "").storage("min_free = \"0%\"\nscrub = \"0s\"").start().await;
    let blobs = mirror.store().join("blobs/sha256");
    let digests = [Digest::of(&root("a")).to_string(), Digest::of(METADATA).to_string()];
    for digest in &digests {
        std::fs::remove_dir_all(blobs.join(&digest[..2])).unwrap();
    }
    let free = (0..256).map(|number| format!("{number:02x}")).find(|name| digests.iter().all(|digest| !digest.starts_with(name))).unwrap();
    let _ = std::fs::remove_dir_all(blobs.join(&free));
    std::fs::write(blobs.join(&free), b"x").unwrap();
    hold(&mirror, "a").await;
    assert!(crate::managing::done(&mirror, &["cache", "verify"]).await.contains("2 files are what they are called"));
    // It cannot be kept then, and hosts get it all the same.
    let folder = blobs.join(&digests[0][..2]);
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, b"x").unwrap();
    let mirror = mirror.restart().await;
    for _ in 0..2 {
        assert_eq!(mirror.body("lab/a/squashfs").await, root("a"));
    }
}

/// T21: what was found to be wrong is nobody's from then on, also if the disk does not let it be looked at once more.
#[tokio::test]
async fn what_was_found_to_be_wrong_is_not_forgotten_because_the_disk_errs() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::over(OsDisk);
    let cache = queueing::cache_on(disk.clone(), &folder);
    let bytes = noise(1000, 1);
    let (expected, commit) = (queueing::expected(&bytes), || queueing::commit(&cache, &bytes));
    let reader = commit();
    let blob = cache.store().layout().blob(Digest::of(&bytes));
    std::os::unix::fs::FileExt::write_at(&std::fs::OpenOptions::new().write(true).open(blob).unwrap(), b"!", 7).unwrap();
    let Ok(Some(Verdict::Wrong(wrong))) = cache.examine(Digest::of(&bytes)) else { panic!("it is wrong") };
    disk.fail_all(Call::Open, Fault::Broken);
    assert!(cache.discard_broken(&wrong).is_err());
    disk.heal();
    assert!(reader.is_broken() && cache.find(expected).await.unwrap().is_none());
    drop(commit());
    assert!(cache.find(expected).await.unwrap().is_some(), "a good one has taken its place");
}

/// T29: also the verdict that a file is right is on that file, and not on whatever has its name by the time it is known.
#[tokio::test]
async fn nobody_vouches_for_a_file_that_took_the_place_of_the_one_that_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(1000, 1);
    let expected = cistern::digest::Expected { claim: cistern::digest::Claim::Sha256(Digest::of(&bytes)), size: None };
    let cache = queueing::cache(&folder);
    let blob = cache.store().layout().blob(Digest::of(&bytes));
    std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
    std::fs::write(&blob, &bytes).unwrap();
    assert!(cache.find(expected).await.unwrap().is_none() && cache.is_stranger(expected));
    let Ok(Some(Verdict::Right(right))) = cache.examine(Digest::of(&bytes)) else { panic!("it is right") };
    std::fs::write(blob.with_extension("new"), noise(1000, 2)).unwrap();
    std::fs::rename(blob.with_extension("new"), &blob).unwrap();
    assert!(!cache.vouch(&right).unwrap() && cache.is_stranger(expected));
    assert!(cache.find_or_adopt(expected).await.unwrap().is_none(), "it is read again, and is wrong");
}

/// A copied image that went by its rules does not come back because it was copied once.
#[tokio::test]
async fn a_copied_image_that_has_expired_stays_away_after_a_restart() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mirror = lab(&origin, "grace = \"200ms\"").start().await;
    crate::managing::done(&mirror, &["image", "copy", "lab:busy", "--arch", "amd64"]).await;
    crate::managing::done(&mirror, &["image", "set", "lab:busy", "expires_at=2026-01-01T00:00:00Z"]).await;
    wait_for(async || mirror.files("blobs").is_empty()).await;
    let mirror = mirror.restart().await;
    let asked = origin.requests("a/squashfs").len();
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!((mirror.files("blobs").len(), origin.requests("a/squashfs").len()), (0, asked));
    assert!(mirror.files("state/images").is_empty());
}

/// Where a document gives no SHA-256, the record of an image says as well which blob is meant, on the disk and in the database.
#[tokio::test]
async fn a_recorded_file_is_found_although_the_note_of_its_digest_is_lost() {
    let version = container("a").with(|items| crate::deeds::without_digest(&mut items["squashfs"], &root("a")));
    let mut origin = origin(&[("20260101", version)]).await;
    let mut mirror = lab(&origin, "").start().await;
    hold(&mirror, "a").await;
    origin.stop().await;
    for lost in ["learnt", "ledger.sqlite"] {
        mirror = mirror
            .restart_after_in_store(|store| {
                let lost = store.join(lost);
                if lost.is_dir() { std::fs::remove_dir_all(lost).unwrap() } else { std::fs::remove_file(lost).unwrap() }
            })
            .await;
        assert_eq!(mirror.body("lab/a/squashfs").await, root("a"), "without {lost}");
    }
}

/// T29: nothing of ours is a link, a pipe or a folder. Nobody is led elsewhere, waits for a pipe, or asks upstream each time.
#[tokio::test]
async fn what_is_no_file_in_a_blobs_place_is_no_blob_and_gives_way_to_one() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mut mirror = lab(&origin, "").start().await;
    let secret = tempfile::NamedTempFile::new().unwrap();
    // As long as the blob, so that its length tells nothing.
    std::fs::write(secret.path(), noise(4096, 77)).unwrap();
    let makers: [fn(&Path, &Path); 3] = [
        |blob, secret| std::os::unix::fs::symlink(secret, blob).unwrap(),
        |blob, _| assert!(std::process::Command::new("mkfifo").arg(blob).status().unwrap().success()),
        |blob, _| {
            std::fs::create_dir(blob).unwrap();
            std::fs::write(blob.join("x"), b"x").unwrap();
        },
    ];
    let digest = Digest::of(&root("a")).to_string();
    for (round, make) in makers.into_iter().enumerate() {
        hold(&mirror, "a").await;
        mirror = mirror
            .restart_after_in_store(|store| {
                let blob = store.join("blobs/sha256").join(&digest[..2]).join(&digest);
                std::fs::remove_file(&blob).unwrap();
                make(&blob, secret.path());
            })
            .await;
        assert_eq!(mirror.body("lab/a/squashfs").await, root("a"), "{round}");
        wait_for(async || is_held(&mirror, &print("a")).await).await;
        let asked = origin.requests("a/squashfs").len();
        assert_eq!((asked, mirror.body("lab/a/squashfs").await), (round + 2, root("a")));
        assert_eq!(origin.requests("a/squashfs").len(), asked, "it is a hit again");
        crate::deeds::is_sound(&mirror).await.unwrap();
    }
}

/// T29: what else lies in the store is none of ours, and hides nothing.
#[tokio::test]
async fn strangers_files_in_the_store_hide_nothing_from_a_start_without_its_database() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mirror = lab(&origin, "").start().await;
    hold(&mirror, "a").await;
    let store = mirror.store();
    let mirror = mirror
        .restart_after(|| {
            std::fs::remove_file(store.join("ledger.sqlite")).unwrap();
            std::fs::write(store.join("blobs/sha256/README"), b"hello").unwrap();
            std::fs::create_dir(store.join("blobs/sha256/lost+found")).unwrap();
            std::fs::write(store.join("blobs/sha256/00/README"), b"hello").unwrap();
        })
        .await;
    assert!(is_held(&mirror, &print("a")).await);
    crate::managing::done(&mirror, &["cache", "verify"]).await;
}

/// design.md §3: "Deltas belong to the image that they make … asking for one is a use of that image and completes its root in the background."
#[tokio::test]
async fn asking_for_a_delta_is_a_use_of_its_image_and_completes_its_root() {
    let origin = Origin::start().await;
    let with_delta = container("b").delta("squashfs.vcdiff", "20260101", b"delta");
    origin.put(stream(&[("20260101", container("a")), ("20260102", with_delta)]).tree());
    let mirror = lab(&origin, "").start().await;
    mirror.body("lab/b/metadata.tar.xz").await;
    mirror.body("lab/b/squashfs.vcdiff").await;
    wait_for(async || is_held(&mirror, &print("b")).await).await;
    let before = image(&mirror, &print("b")).await.unwrap().use_count;
    mirror.body("lab/b/squashfs.vcdiff").await;
    assert_eq!(image(&mirror, &print("b")).await.unwrap().use_count, before + 1);
}

/// design.md §3: "Deltas … listed only if held or obtainable, prefetched when their base is held."
#[tokio::test]
async fn the_delta_is_there_when_its_base_is_held() {
    let origin = origin(&[("20260101", container("a"))]).await;
    let mirror = lab(&origin, "").start().await;
    hold(&mirror, "a").await;
    let with_delta = container("b").delta("squashfs.vcdiff", "20260101", b"delta");
    origin.put(stream(&[("20260101", container("a")), ("20260102", with_delta)]).tree());
    mirror.refresh("lab", false).await;
    assert_eq!(seen(&mirror).await, ["20260101 squashfs"], "deltas are hidden with what they make");
    wait_for(async || origin.requests("b/squashfs.vcdiff").len() == 1 && seen(&mirror).await.len() == 2).await;
    assert_eq!(seen(&mirror).await, ["20260101 squashfs", "20260102 squashfs squashfs.vcdiff"]);
}

/// T19: a disk that never answers keeps no host waiting for longer than it waits for anything.
#[tokio::test]
async fn hosts_hear_in_time_of_a_disk_that_never_answers() {
    let (origin, disk) = (origin(&[("20260101", container("a"))]).await, FaultyDisk::over(OsDisk));
    let builder = Builder::default().disk(disk.clone()).storage("min_free = \"0%\"\nscrub = \"0s\"");
    let builder = builder.section("[limits]\nanswer_timeout = \"800ms\"").remote("lab", &[origin.url()], "");
    let mirror = builder.start().await;
    mirror.body("lab/a/squashfs").await;
    wait_for(async || mirror.is_hit("lab/a/squashfs").await).await;
    let mirror = mirror.restart().await;
    disk.hang(Call::Open);
    let started = std::time::Instant::now();
    let url = format!("{}/lab/a/squashfs", mirror.url());
    let (get, head, by_kernel) = tokio::join!(
        mirror.client().get(&url).send(),
        mirror.client().head(&url).send(),
        mirror.client().get(url.replace("https", "http")).header("connection", "close").send()
    );
    assert_eq!([get, head, by_kernel].map(|answer| answer.unwrap().status().as_u16()), [503; 3]);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    disk.heal();
    assert_eq!(mirror.body("lab/a/squashfs").await, root("a"));
}
