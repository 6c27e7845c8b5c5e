//! The three ways to hold a remote: proxy, mirror and offline, and switching between them.

use std::time::Duration;

use cistern::digest::Digest;
use serde_json::Value;

use crate::support::mirror::{Builder, Mirror, wait_for};
use crate::support::origin::{Act, Origin};
use crate::support::power::PowerDisk;
use crate::support::stream::{Stream, Version, noise};

const IMAGES: &str = "ubuntu/streams/v1/images.json";

fn version(folder: &str) -> Version {
    Version::new(&format!("images/{folder}"))
        .file("squashfs", folder.as_bytes())
        .file("manifest", b"packages")
        .metadata("lxd.tar.xz", b"metadata")
}

fn stream(serials: &[&str]) -> Stream {
    serials.iter().fold(Stream::default(), |stream, serial| stream.add("ubuntu:noble:amd64", "24.04", serial, version(serial)))
}

async fn origin(serials: &[&str]) -> Origin {
    let origin = Origin::start().await;
    origin.put(stream(serials).tree());
    origin
}

async fn serials(mirror: &Mirror, path: &str) -> Vec<String> {
    let document = mirror.json(path).await;
    let products = document["products"].as_object().unwrap();
    products.values().flat_map(|product| product["versions"].as_object().unwrap().keys().cloned()).collect()
}

async fn missing(mirror: &Mirror) -> (usize, Option<String>) {
    let missing = mirror.remotes().await[0].missing.clone().unwrap_or_default();
    (missing.files, missing.problem)
}

async fn is_whole(mirror: &Mirror) {
    wait_for(async || mirror.remotes().await[0].missing.as_ref().is_some_and(|missing| missing.files == 0)).await;
}

#[tokio::test]
async fn a_mirror_holds_all_that_is_selected_before_anybody_asks_and_goes_along_with_upstream() {
    let origin = origin(&["20260101", "20260102"]).await;
    let more = "mode = \"mirror\"\nversions = 1\nselect = [\"ftype!=manifest\"]";
    let mirror = Builder::default().remote("ubuntu", &[origin.url()], more).start().await;
    is_whole(&mirror).await;
    assert_eq!(mirror.files("blobs").len(), 2, "one version, and no manifest; what is not missing is on the disk");
    assert_eq!(origin.requests("images/20260101/squashfs").len(), 0);
    assert_eq!(mirror.body("ubuntu/images/20260102/squashfs").await, b"20260102");
    assert_eq!(origin.requests("images/20260102/squashfs").len(), 1, "a host's request finds it held");

    origin.put(stream(&["20260101", "20260102", "20260103"]).tree());
    assert_eq!(mirror.refresh("ubuntu", false).await.result.label(), "changed");
    wait_for(async || !origin.requests("images/20260103/squashfs").is_empty()).await;
    is_whole(&mirror).await;
    let mirror = mirror.restart().await;
    is_whole(&mirror).await;
    assert_eq!(origin.requests("images/20260103/squashfs").len(), 1, "what is held is not fetched again");
}

#[tokio::test]
async fn a_mirror_fetches_few_files_at_once_and_says_what_it_cannot_have() {
    const PAUSE: Duration = Duration::from_millis(300);
    let origin = Origin::start().await;
    let names: Vec<String> = (0..6).map(|number| format!("file{number}.img")).collect();
    let version = names.iter().fold(Version::new("images/x"), |version, name| version.file(name, name.as_bytes()));
    origin.put(Stream::default().add("x:1:amd64", "", "20260101", version).tree());
    names.iter().for_each(|name| origin.act(&format!("images/x/{name}"), [Act::Silence(PAUSE)]));
    origin.act("images/x/file3.img", [Act::Status(404, ""), Act::Status(404, "")]);
    let mirror =
        Builder::default().section("[limits]\nmirror_fetches = 2").remote("ubuntu", &[origin.url()], "mode = \"mirror\"").start().await;
    wait_for(async || mirror.files("blobs").len() == 5).await;
    let mut times: Vec<_> = names.iter().flat_map(|name| origin.requests(&format!("images/x/{name}"))).map(|seen| seen.at).collect();
    times.sort();
    let [first, .., last] = times.as_slice() else { panic!("{times:?}") };
    assert!(*last - *first >= PAUSE, "six at once would be begun at once");
    wait_for(async || missing(&mirror).await.0 == 1).await;
    let problem = missing(&mirror).await.1.unwrap();
    assert!(problem.contains("images/x/file3.img"), "{problem}");
}

#[tokio::test]
async fn many_files_that_upstream_does_not_have_keep_no_other_from_being_held() {
    let origin = Origin::start().await;
    let gone = (0..12).fold(Version::new("images/gone"), |version, number| version.file(&format!("{number}.img"), &[number; 9]));
    origin.put(Stream::default().add("x:1:amd64", "", "20260102", gone).add("x:1:amd64", "", "20260101", version("old")).tree());
    (0..12).for_each(|number| origin.remove(&format!("images/gone/{number}.img")));
    let mirror = Builder::default().remote("ubuntu", &[origin.url()], "mode = \"mirror\"").start().await;
    wait_for(async || missing(&mirror).await.0 == 12 && mirror.files("blobs").len() == 3).await;
}

#[tokio::test]
async fn a_mirror_that_has_no_room_says_so_and_passes_files_on_to_hosts() {
    let origin = origin(&["20260101"]).await;
    let mirror =
        Builder::default().storage("capacity = \"1KiB\"\nmin_free = \"0%\"").remote("ubuntu", &[origin.url()], "mode = \"mirror\"");
    let large = Version::new("images/large").file("squashfs", &vec![7; 4096]).metadata("lxd.tar.xz", b"metadata");
    origin.put(Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", large).tree());
    let mirror = mirror.start().await;
    wait_for(async || {
        missing(&mirror).await.1.is_some_and(|problem| problem.contains("the selection has") && problem.contains("storage.capacity"))
    })
    .await;
    assert_eq!(mirror.body("ubuntu/images/large/squashfs").await.len(), 4096);
}

#[tokio::test]
async fn an_offline_remote_asks_nobody_and_lists_what_is_held_whole() {
    let origin = origin(&["20260101", "20260102", "20260103"]).await;
    let mut mirror = Builder::default().remote("ubuntu", &[origin.url()], "mode = \"proxy\"").start().await;
    for file in ["images/20260101/squashfs", "images/20260101/metadata.tar.xz", "images/20260102/squashfs", "images/20260103/manifest"] {
        mirror.body(&format!("ubuntu/{file}")).await;
    }
    wait_for(async || mirror.files("blobs").len() == 4).await;
    let before = origin.total();
    mirror.reload(|text| text.replace("mode = \"proxy\"", "mode = \"offline\"")).await;
    wait_for(async || mirror.remotes().await[0].mode == "offline").await;
    wait_for(async || serials(&mirror, IMAGES).await.len() < 3).await;
    // Of the last one only a file that belongs to no image is held; of the one before, the metadata is shared.
    assert_eq!(serials(&mirror, IMAGES).await, ["20260101", "20260102", "20260103"].map(str::to_owned)[..2]);
    for path in ["ubuntu/images/20260101/squashfs", "ubuntu/images/20260102/squashfs"] {
        mirror.body(path).await;
    }
    assert_eq!(mirror.get("ubuntu/images/20260103/squashfs").await.status(), 404);
    let (code, said) = refused(&mirror).await;
    assert!(code == 409 && said.contains("offline"), "{said}");
    let mirror_after = mirror.restart().await;
    assert_eq!(serials(&mirror_after, IMAGES).await.len(), 2);
    assert_eq!(serials(&mirror_after, "streams/v1/ubuntu.images.json").await.len(), 2, "at the root too");
    assert_eq!(origin.total(), before, "nobody was asked");

    let mut mirror = mirror_after;
    mirror.reload(|text| text.replace("mode = \"offline\"", "mode = \"proxy\"")).await;
    wait_for(async || serials(&mirror, IMAGES).await.len() == 3).await;
    mirror.body("ubuntu/images/20260103/squashfs").await;
}

/// design.md §4: "offline: never contact upstream; list only images that are held whole; evict nothing."
#[tokio::test]
async fn an_offline_remote_loses_not_even_half_an_image() {
    let origin = origin(&["20260101"]).await;
    let images = "[images]\nremote_cache_expiry = \"300ms\"\ngrace = \"100ms\"";
    let mut mirror = Builder::default().section(images).remote("ubuntu", &[origin.url()], "mode = \"proxy\"").start().await;
    let half = "ubuntu/images/20260101/squashfs";
    mirror.body(half).await;
    mirror.reload(|text| text.replace("mode = \"proxy\"", "mode = \"offline\"")).await;
    wait_for(async || mirror.remotes().await[0].mode == "offline").await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(mirror.files("blobs").len(), 1);
    assert!(serials(&mirror, IMAGES).await.is_empty());
    let mut mirror = mirror.restart().await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(mirror.files("blobs").len(), 1);
    mirror.reload(|text| text.replace("mode = \"offline\"", "mode = \"proxy\"")).await;
    wait_for(async || mirror.files("blobs").is_empty()).await;
}

#[tokio::test]
async fn an_offline_remote_that_was_never_fed_has_nothing_and_holds_nobody_up() {
    let origin = origin(&["20260101"]).await;
    let mirror =
        Builder::default().remote("site", &[], "mode = \"offline\"").remote("ubuntu", &[origin.url()], "").start_without_waiting().await;
    wait_for(async || mirror.get("streams/v1/index.json").await.status() == 200).await;
    assert_eq!(mirror.get("site/streams/v1/index.json").await.status(), 404);
    let index: Value = mirror.json("streams/v1/index.json").await;
    assert_eq!(index["index"].as_object().unwrap().len(), 1);
}

/// What a refresh of `ubuntu` that cannot be had says.
async fn refused(mirror: &Mirror) -> (u16, String) {
    let mut stream = tokio::net::UnixStream::connect(mirror.socket()).await.unwrap();
    let request = "POST /1.0/remotes/ubuntu/refresh HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

/// T21: what the disk changed is found, whoever reads it is cut off, it is fetched again and counted.
#[tokio::test]
async fn what_the_disk_changed_is_found_and_fetched_again_and_nobody_gets_it_whole() {
    let large = noise(24 << 20, 1);
    let version = Version::new("images/large").file("squashfs", &large).metadata("lxd.tar.xz", b"metadata");
    let origin = Origin::start().await;
    origin.put(Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", version).tree());
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let storage = "min_free = \"0%\"\nscrub = \"1s\"";
    let mirror = Builder::default().storage(storage).metrics(port).remote("ubuntu", &[origin.url()], "").start().await;
    let (path, digest) = ("ubuntu/images/large/squashfs", Digest::of(&large).to_string());
    assert_eq!(mirror.body(path).await, large);
    let metric = async |name: &str| {
        let text = mirror.client().get(format!("http://127.0.0.1:{port}/metrics")).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}")).to_owned();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    wait_for(async || metric("cistern_scrub_last_completed_timestamp_seconds").await > 0.0).await;
    assert!(metric("cistern_digest_mismatch_total{source=\"scrub\"}").await.abs() < 0.5, "what is right stays");

    // Hosts that read the beginning and then take their time: one over TLS, and one for which the kernel sends.
    let mut slow = [mirror.get(path).await, mirror.get_file(path).await];
    for answer in &mut slow {
        answer.chunk().await.unwrap().unwrap();
    }
    let file = std::fs::OpenOptions::new().write(true).open(mirror.store().join("blobs/sha256").join(&digest[..2]).join(&digest)).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"!", 20 << 20).unwrap();
    wait_for(async || metric("cistern_digest_mismatch_total{source=\"scrub\"}").await > 0.5).await;
    assert!(metric("cistern_http_sendfile_bytes_total").await > 1e5, "the kernel sends to one of them");
    for mut answer in slow {
        let rest = async {
            while answer.chunk().await?.is_some() {}
            Ok::<_, reqwest::Error>(())
        };
        assert!(rest.await.is_err(), "it gets no whole file");
    }
    wait_for(async || origin.requests("images/large/squashfs").len() == 2 && mirror.files("blobs").len() == 1).await;
    assert_eq!(mirror.body(path).await, large);
    assert_eq!(origin.requests("images/large/squashfs").len(), 2, "it was fetched again before anybody asked");
}

/// T21: an image that somebody copied is not lost because the server was away when the disk changed it.
#[tokio::test]
async fn what_the_disk_changed_while_upstream_is_away_is_fetched_when_it_is_back_also_after_a_restart() {
    let mut origin = origin(&["20260101"]).await;
    let builder = Builder::default().storage("min_free = \"0%\"\nscrub = \"1s\"");
    let mirror = builder.remote("ubuntu", &[origin.url()], "interval = \"300ms\"").start().await;
    crate::managing::done(&mirror, &["image", "copy", "ubuntu:24.04", "--arch", "amd64"]).await;
    let blobs = mirror.files("blobs");
    origin.stop().await;
    for blob in &blobs {
        let file = std::fs::OpenOptions::new().write(true).open(mirror.store().join("blobs").join(blob)).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"!", 0).unwrap();
    }
    wait_for(async || mirror.files("blobs").is_empty()).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(mirror.files("blobs").is_empty());
    let mirror = mirror.restart().await;
    origin.resume().await;
    wait_for(async || mirror.files("blobs") == blobs).await;
    wait_for(async || {
        let (_, out, _) = crate::managing::typed(&mirror, &["image", "list", "--held", "--format", "json"], "").await;
        serde_json::from_str::<Value>(&out).is_ok_and(|images| images[0]["cached"] == false)
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_and_cannot_be_taken_away_is_served_no_more_all_the_same() {
    let (origin, disk) = (origin(&["20260101"]).await, PowerDisk::default());
    let storage = "min_free = \"0%\"\nscrub = \"1s\"";
    let mirror = Builder::default().disk(disk.clone()).storage(storage).remote("ubuntu", &[origin.url()], "").start().await;
    let path = "ubuntu/images/20260101/squashfs";
    let bytes = mirror.body(path).await;
    let digest = Digest::of(&bytes).to_string();
    let blob = mirror.store().join("blobs/sha256").join(&digest[..2]).join(&digest);
    // A host has the last byte before the file has its name.
    wait_for(async || blob.exists()).await;
    // From now on nothing can be changed, as on a disk that is read-only after an error.
    disk.arm(&mirror.store(), 0);
    std::os::unix::fs::FileExt::write_at(&std::fs::OpenOptions::new().write(true).open(&blob).unwrap(), b"!", 0).unwrap();
    // Whoever reads it when it is found is cut off; whoever comes after that gets what is right.
    wait_for(async || mirror.get_whole(path.to_owned()).await.is_some_and(|body| body == bytes)).await;
    let (code, _, error) = crate::managing::typed(&mirror, &["cache", "verify", "--repair"], "").await;
    assert!(code == 1 && error.contains("removed"), "{error}");
    for _ in 0..5 {
        assert_eq!(mirror.body(path).await, bytes);
    }
    // The disk can be written again: a good copy takes its place, and is a hit from then on.
    disk.disarm();
    assert_eq!(mirror.body(path).await, bytes);
    wait_for(async || {
        let asked = origin.requests("images/20260101/squashfs").len();
        mirror.body(path).await;
        origin.requests("images/20260101/squashfs").len() == asked
    })
    .await;
}
