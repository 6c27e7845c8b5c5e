//! Documents of image servers: taken, refused, and what is served meanwhile.

use serde_json::{Value, json};

use crate::support::documents;
use crate::support::mirror::{Builder, Mirror, free_port};
use crate::support::origin::{Act, Origin, header};
use crate::support::stream::{Stream, Version};

const INDEX: &str = "streams/v1/index.json";
const IMAGES: &str = "streams/v1/images.json";

fn version(folder: &str) -> Version {
    Version::new(folder).file("squashfs", folder.as_bytes()).metadata("lxd.tar.xz", b"metadata")
}

fn products(names: &[&str]) -> Stream {
    names.iter().fold(Stream::default(), |stream, name| stream.add(&format!("{name}:1:amd64"), name, "20260101", version(name)))
}

async fn origin_and_mirror(stream: &Stream) -> (Origin, Mirror) {
    let origin = Origin::start().await;
    origin.put(stream.tree());
    let mirror = Builder::default()
        .section("[limits]\ndocument_size = \"64KiB\"\ndocuments = 20")
        .remote("lab", &[origin.url()], "twins = false")
        .start()
        .await;
    (origin, mirror)
}

async fn names(mirror: &Mirror) -> Vec<String> {
    let images = mirror.json(&format!("lab/{IMAGES}")).await;
    images["products"].as_object().unwrap().keys().map(|name| name.split(':').next().unwrap().to_owned()).collect()
}

fn index_of(entries: &Value) -> Vec<u8> {
    json!({"format": "index:1.0", "index": entries}).to_string().into_bytes()
}

/// T32
#[tokio::test]
async fn garbage_is_refused_and_the_old_documents_go_on() {
    let (origin, mirror) = origin_and_mirror(&products(&["a", "b", "c"])).await;
    let too_large = format!("{{\"format\":\"index:1.0\",\"index\":{{}},\"x\":\"{}\"}}", "y".repeat(70_000)).into_bytes();
    let many: Value = (0..30)
        .map(|number| (number.to_string(), json!({"path": format!("streams/v1/{number}.json"), "datatype": "image-ids"})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    for (path, bytes, result, reason) in [
        (INDEX, b"<html>Log in to the hotel's network</html>".to_vec(), "refused", "not JSON"),
        (INDEX, b"".to_vec(), "refused", "not JSON"),
        (INDEX, b"{\"format\":\"index:1.0\",\"index\":{".to_vec(), "refused", "not JSON"),
        (INDEX, b"{\"format\":\"products:1.0\",\"products\":{}}".to_vec(), "refused", "format"),
        (INDEX, index_of(&json!({})), "refused", "not one product"),
        (INDEX, too_large, "failed", "more than"),
        (INDEX, index_of(&many), "refused", "documents"),
        (
            INDEX,
            index_of(&json!({"images": {"path": "streams/v1/none.json", "datatype": "image-downloads", "products": ["x"]}})),
            "refused",
            "is not there",
        ),
        (IMAGES, b"<html></html>".to_vec(), "refused", "not JSON"),
        (IMAGES, b"{\"format\":\"products:1.0\",\"content_id\":\"others\",\"products\":{}}".to_vec(), "refused", "content id"),
        (IMAGES, b"{\"format\":\"products:1.0\",\"content_id\":\"images\",\"products\":{}}".to_vec(), "refused", "not one product"),
        (IMAGES, products(&["a"]).documents()[1].1.clone(), "refused", "2 of 3 images would go"),
    ] {
        origin.put(products(&["a", "b", "c"]).tree());
        origin.put([(path.to_owned(), bytes)]);
        let report = mirror.refresh("lab", false).await;
        let said = report.reason.clone().unwrap_or_default();
        assert_eq!(report.result.label(), result, "{path} {reason}: {report:?}");
        assert!(said.contains(reason), "{reason}: {said}");
        assert_eq!(names(&mirror).await, ["a", "b", "c"], "{reason}");
    }
    assert_eq!(mirror.remotes().await[0].images, 3);
}

/// T32: a server that has a page in the place of documents again and again is one that fails, and people see that.
#[tokio::test]
async fn a_page_in_the_place_of_documents_counts_against_its_server() {
    let (origin, mirror) = origin_and_mirror(&products(&["a"])).await;
    let failing = async || mirror.remotes().await[0].failing.len();
    assert_eq!(failing().await, 0);
    origin.put([(INDEX.to_owned(), b"<html>Log in to the hotel's network</html>".to_vec())]);
    for (refresh, expected) in [(1, 0), (2, 1)] {
        mirror.refresh("lab", false).await;
        assert_eq!(failing().await, expected, "after refresh {refresh}");
    }
    origin.put(products(&["a", "b"]).tree());
    mirror.refresh("lab", false).await;
    assert_eq!(failing().await, 0);
}

/// T32
#[tokio::test]
async fn documents_from_the_past_are_refused_until_a_person_accepts_them() {
    let (origin, mirror) = origin_and_mirror(&products(&["a", "b"]).updated("Thu, 24 Jul 2025 08:01:49 +0000")).await;
    origin.put(products(&["a", "c"]).updated("Wed, 23 Jul 2025 08:01:49 +0000").tree());
    let report = mirror.refresh("lab", false).await;
    assert!(report.reason.unwrap().contains("older than ours"));
    assert_eq!((report.products_added, report.products_gone), (vec!["c:1:amd64".to_owned()], vec!["b:1:amd64".to_owned()]));
    assert_eq!(names(&mirror).await, ["a", "b"]);
    assert_eq!(mirror.refresh("lab", true).await.result.label(), "changed");
    assert_eq!(names(&mirror).await, ["a", "c"]);
}

#[tokio::test]
async fn a_shrunken_set_is_taken_when_a_person_accepts_it() {
    let (origin, mirror) = origin_and_mirror(&products(&["a", "b", "c"])).await;
    origin.put(products(&["a"]).documents());
    assert_eq!(mirror.refresh("lab", false).await.result.label(), "refused");
    let report = mirror.refresh("lab", true).await;
    assert_eq!((report.result.label(), report.images_before, report.images_after), ("changed", 3, 1));
    assert_eq!(names(&mirror).await, ["a"]);
}

/// T15, T33
#[tokio::test]
async fn a_refresh_asks_only_for_what_changed() {
    let (origin, mirror) = origin_and_mirror(&products(&["a"])).await;
    let mirror = mirror.restart().await;
    assert_eq!(mirror.refresh("lab", false).await.result.label(), "unchanged");
    for path in [INDEX, IMAGES] {
        let last = origin.requests(path).pop().unwrap();
        assert!(header(&last.head, "if-none-match").is_some(), "{}", last.head);
        assert!(header(&last.head, "user-agent").unwrap().starts_with("cistern/"));
    }
    origin.put(products(&["a", "b"]).tree());
    assert_eq!(mirror.refresh("lab", false).await.result.label(), "changed");
    assert_eq!(names(&mirror).await, ["a", "b"]);
}

/// T15: a 304 is as good as a 200: the clock of freshness goes on, and what hosts pull asks upstream nothing.
#[tokio::test]
async fn unchanged_documents_are_fresh_and_nobody_is_asked_for_each_pull() {
    let origin = Origin::start().await;
    origin.put(products(&["a"]).tree());
    let mirror = Builder::default().metrics(free_port()).remote("lab", &[origin.url()], "").start().await;
    mirror.body("lab/a/squashfs").await;
    let refreshed_at = async || mirror.metric("cistern_refresh_last_success_timestamp_seconds").await;
    let first = refreshed_at().await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(mirror.refresh("lab", false).await.result.label(), "unchanged");
    assert!(refreshed_at().await >= first + 1.0, "it was asked, and answered");
    let before = origin.total();
    for _ in 0..20 {
        for path in [format!("lab/{INDEX}"), format!("lab/{IMAGES}"), INDEX.to_owned(), "lab/a/squashfs".to_owned()] {
            let answer = mirror.get(&path).await;
            assert_eq!((answer.status().as_u16(), header_of(&answer, "cache-status")), (200, "cistern; hit".to_owned()), "{path}");
        }
    }
    assert_eq!(origin.total(), before);
}

fn header_of(answer: &reqwest::Response, name: &str) -> String {
    answer.headers()[name].to_str().unwrap().to_owned()
}

/// T33: of people who want the same at once, all get the same.
#[tokio::test]
async fn refreshes_that_are_wanted_at_once_are_one() {
    let (origin, mirror) = origin_and_mirror(&products(&["a"])).await;
    let before = origin.requests(INDEX).len();
    origin.act(INDEX, [Act::StallAt(0, std::time::Duration::from_millis(500))]);
    let wishes = futures_util::future::join_all((0..20).map(|_| mirror.refresh("lab", false)));
    assert!(wishes.await.iter().all(|report| report.result.label() == "unchanged"));
    let asked = origin.requests(INDEX).len() - before;
    assert!((1..=3).contains(&asked), "one that was under way, and one for all who came meanwhile: {asked}");
}

#[tokio::test]
async fn all_documents_come_from_one_url_and_one_that_is_behind_is_skipped() {
    let (ahead, behind) = (Origin::start().await, Origin::start().await);
    ahead.put(products(&["a", "new"]).updated("Thu, 24 Jul 2025 08:01:49 +0000").tree());
    behind.put(products(&["a", "old"]).updated("Wed, 23 Jul 2025 08:01:49 +0000").tree());
    let mirror = Builder::default().remote("lab", &[ahead.url(), behind.url()], "twins = false").start().await;
    assert_eq!(names(&mirror).await, ["a", "new"]);
    ahead.act(IMAGES, [Act::Status(500, "")]);
    let report = mirror.refresh("lab", false).await;
    assert_eq!(report.result.label(), "refused", "the second URL is behind: {report:?}");
    assert_eq!(names(&mirror).await, ["a", "new"]);
    behind.put(products(&["a", "new", "newer"]).updated("Fri, 25 Jul 2025 08:01:49 +0000").tree());
    ahead.act(IMAGES, [Act::Status(500, "")]);
    let report = mirror.refresh("lab", false).await;
    assert_eq!((report.result.label(), report.url), ("changed", Some(format!("{}/", behind.url()))));
    assert_eq!(names(&mirror).await, ["a", "new", "newer"]);
}

#[tokio::test]
async fn redirects_are_followed_up_to_a_limit() {
    let (origin, mirror) = origin_and_mirror(&products(&["a"])).await;
    origin.put([("elsewhere.json".to_owned(), products(&["a", "b"]).documents()[1].1.clone())]);
    origin.put([products(&["a", "b"]).documents()[0].clone()]);
    origin.act(IMAGES, [Act::Status(302, "Location: /elsewhere.json\r\n")]);
    assert_eq!(mirror.refresh("lab", false).await.result.label(), "changed");
    assert_eq!(names(&mirror).await, ["a", "b"]);
    origin.act(IMAGES, std::iter::repeat_n(Act::Status(302, "Location: /streams/v1/images.json\r\n"), 100));
    let report = mirror.refresh("lab", false).await;
    assert!(report.reason.unwrap().contains("limits.redirects"));
    assert!(origin.requests(IMAGES).len() < 12);
}

#[tokio::test]
async fn documents_for_others_and_nested_indexes_are_mirrored_as_they_are() {
    let origin = Origin::start().await;
    let ids =
        br#"{ "format": "products:1.0", "content_id": "ids", "products": {"p": {"versions": {"1": {"items": {"i": {"id": "ami-1"}}}}}} }"#;
    let deep =
        index_of(&json!({"images": {"path": IMAGES, "datatype": "image-downloads", "products": ["a:1:amd64"], "format": "products:1.0"}}));
    let top = index_of(&json!({
        "deep": {"path": "streams/v1/deep.json", "format": "index:1.0"},
        "ids": {"path": "streams/v1/ids.json", "datatype": "image-ids", "products": ["p"], "format": "products:1.0"},
        "lost": {"path": "streams/v1/lost.json", "datatype": "image-ids", "products": ["p"], "format": "products:1.0"},
    }));
    origin.put(products(&["a"]).tree());
    origin.put([
        (INDEX.to_owned(), top),
        ("streams/v1/deep.json".to_owned(), deep.clone()),
        ("streams/v1/ids.json".to_owned(), ids.to_vec()),
    ]);
    let mirror = Builder::default().remote("lab", &[origin.url()], "twins = false").start().await;
    assert_eq!(mirror.body("lab/streams/v1/ids.json").await, ids);
    assert_eq!(mirror.body("lab/streams/v1/deep.json").await, deep);
    assert_eq!(names(&mirror).await, ["a"]);
    let index = mirror.json(&format!("lab/{INDEX}")).await;
    assert_eq!(index["index"].as_object().unwrap().keys().collect::<Vec<_>>(), ["deep", "ids"], "what is not there is not listed");
    let root = mirror.json(INDEX).await;
    assert_eq!(root["index"]["ids"]["path"], "streams/v1/lab.ids.json");
    assert_eq!(root["index"]["images"]["path"], "streams/v1/lab.images.json");
}

#[tokio::test]
async fn signed_documents_go_out_as_they_came_while_all_that_they_name_can_be_had() {
    let stream = products(&["a", "b"]);
    let sign = |json: &[u8]| {
        format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{}\n-----BEGIN PGP SIGNATURE-----\n\nxyz\n-----END PGP SIGNATURE-----\n",
            String::from_utf8_lossy(json)
        )
        .into_bytes()
    };
    let [index, images] = [0, 1].map(|number| stream.documents()[number].1.clone());
    let index = String::from_utf8(index).unwrap().replace("images.json", "images.sjson").into_bytes();
    let origin = Origin::start().await;
    origin.put(stream.tree());
    origin.put([
        ("streams/v1/index.sjson".to_owned(), sign(&index)),
        ("streams/v1/images.sjson".to_owned(), sign(&images)),
        ("streams/v1/index.json.gpg".to_owned(), b"-----BEGIN PGP SIGNATURE-----".to_vec()),
    ]);
    let mirror =
        Builder::default().remote("whole", &[origin.url()], "").remote("part", &[origin.url()], "select = [\"os=a\"]").start().await;
    assert!(mirror.body("whole/streams/v1/index.sjson").await == sign(&index));
    let response = mirror.get("whole/streams/v1/images.sjson").await;
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert!(response.bytes().await.unwrap() == sign(&images));
    assert_eq!(mirror.body("whole/streams/v1/index.json.gpg").await, b"-----BEGIN PGP SIGNATURE-----");
    assert_eq!(mirror.get("part/streams/v1/images.sjson").await.status(), 404);
    assert_eq!(mirror.get("part/streams/v1/index.sjson").await.status(), 404);
}

#[tokio::test]
async fn a_selection_decides_what_is_listed_and_served() {
    let stream = ["20260101", "20260102", "20260103"]
        .iter()
        .fold(products(&["b"]), |stream, serial| stream.add("a:1:amd64", "a", serial, version(&format!("a/{serial}"))));
    let origin = Origin::start().await;
    origin.put(stream.tree());
    let mirror = Builder::default().remote("lab", &[origin.url()], "select = [\"os=a\"]\nversions = 2\ntwins = false").start().await;
    let images = mirror.json(&format!("lab/{IMAGES}")).await;
    assert_eq!(images["products"].as_object().unwrap().len(), 1);
    assert_eq!(images["products"]["a:1:amd64"]["versions"].as_object().unwrap().keys().collect::<Vec<_>>(), ["20260102", "20260103"]);
    let index = mirror.json(&format!("lab/{INDEX}")).await;
    assert_eq!(index["index"]["images"]["products"], json!(["a:1:amd64"]), "the index is true of the document");
    assert_eq!(mirror.body("lab/a/20260103/squashfs").await, b"a/20260103");
    assert_eq!(mirror.get("lab/a/20260101/squashfs").await.status(), 404);
    assert_eq!(mirror.get("lab/b/squashfs").await.status(), 404);
}

#[tokio::test]
async fn real_documents_are_taken_and_go_out_as_they_came() {
    for (name, tree) in documents::trees() {
        let origin = Origin::start().await;
        origin.put(tree.clone());
        let mirror = Builder::default().remote("real", &[origin.url()], "twins = false").start().await;
        let report = &mirror.remotes().await[0];
        assert_eq!(report.last_refresh.as_ref().unwrap().result.label(), "changed", "{name}: {report:?}");
        let index: Value = serde_json::from_slice(&tree.iter().find(|(path, _)| path == INDEX).unwrap().1).unwrap();
        let named: Vec<&str> = index["index"].as_object().unwrap().values().map(|entry| entry["path"].as_str().unwrap()).collect();
        for (path, bytes) in tree.iter().filter(|(path, _)| path == INDEX || named.contains(&path.as_str())) {
            assert!(mirror.body(&format!("real/{path}")).await == *bytes, "{name} {path}");
        }
        mirror.json(INDEX).await;
    }
}

#[tokio::test]
async fn a_real_server_is_followed_through_its_versions() {
    let origin = Origin::start().await;
    let states = documents::successive_states();
    origin.put(states[0].clone());
    let mirror = Builder::default().remote("lab", &[origin.url()], "twins = false").start().await;
    for state in &states[1..] {
        origin.put(state.clone());
        let report = mirror.refresh("lab", true).await;
        assert_eq!(report.result.label(), "changed", "{report:?}");
        assert!(mirror.body(&format!("lab/{IMAGES}")).await == state[1].1);
    }
}

#[tokio::test]
async fn files_of_real_trees_with_md5_alone_are_served() {
    for (name, tree) in documents::trees().into_iter().filter(|(name, _)| name.contains("foocloud") || name.contains("minimal")) {
        let origin = Origin::start().await;
        origin.put(tree.clone());
        let mirror = Builder::default().remote("real", &[origin.url()], "").start().await;
        for (path, bytes) in tree.iter().filter(|(path, _)| !path.starts_with("streams/")) {
            let response = mirror.get(&format!("real/{path}")).await;
            let status = response.status();
            assert!(status == 200 && response.bytes().await.unwrap() == *bytes, "{name} {path}: {status}");
        }
    }
}

/// T32: images that no client can see are as good as gone.
#[tokio::test]
async fn documents_in_which_clients_would_see_nothing_are_refused_like_empty_ones() {
    let stream = products(&["a", "b", "c"]);
    let (origin, mirror) = origin_and_mirror(&stream).await;
    for (good, bad) in [("\"aliases\":\"a\"", "\"aliases\":[]"), ("\"arch\":\"amd64\"", "\"arch\":\"z80\""), ("\"20260101\"", "\"one\"")] {
        let images = stream.tree().into_iter().find(|(path, _)| path == IMAGES).unwrap().1;
        let images = String::from_utf8(images).unwrap();
        let changed = images.replace(good, bad);
        assert_ne!(images, changed, "{good} in {images}");
        origin.put([(IMAGES.to_owned(), changed.into_bytes())]);
        let report = mirror.refresh("lab", false).await;
        let expected = if good.contains("aliases") { "changed" } else { "refused" };
        assert_eq!(report.result.label(), expected, "{bad}: {:?}", report.reason);
        origin.put(stream.tree());
        mirror.refresh("lab", false).await;
    }
    assert_eq!(names(&mirror).await, ["a", "b", "c"]);
}

/// An editor may empty a file before it writes it: no file at all means the public image servers.
#[tokio::test]
async fn a_reload_that_finds_no_remotes_any_more_is_refused() {
    let (_origin, mut mirror) = origin_and_mirror(&products(&["a"])).await;
    mirror.reload(|text| text.split("[remotes.").next().unwrap().to_owned()).await;
    assert_eq!(mirror.remotes().await.iter().map(|remote| &*remote.name).collect::<Vec<_>>(), ["lab"]);
    assert_eq!(names(&mirror).await, ["a"]);
}

#[tokio::test]
async fn a_reload_changes_remotes_without_dropping_what_is_under_way() {
    let (origin, mut mirror) = origin_and_mirror(&products(&["a", "b"])).await;
    origin.act("a/squashfs", [Act::StallAt(0, std::time::Duration::from_millis(600))]);
    let under_way = mirror.get("lab/a/squashfs").await;
    let text = format!("[remotes.more]\nurl = [\"{}\"]\nselect = [\"os=b\"]\n", origin.url());
    mirror.reload(|old| format!("{old}\n{text}")).await;
    crate::support::mirror::wait_for(async || mirror.get("more/streams/v1/images.json").await.status() == 200).await;
    assert_eq!(mirror.body("more/b/squashfs").await, b"b");
    assert_eq!(under_way.bytes().await.unwrap(), "a");
    mirror.reload(|old| old.replace("[remotes.lab]", "[remotes.other]")).await;
    crate::support::mirror::wait_for(async || mirror.get(&format!("other/{IMAGES}")).await.status() == 200).await;
    assert_eq!(mirror.get(&format!("lab/{IMAGES}")).await.status(), 404);
}

/// T30: at more than a hundred reads a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_generation_a_host_sees_resolves() {
    let (origin, mirror) = origin_and_mirror(&products(&["a"])).await;
    let flips = async {
        for number in 0..20 {
            let serial = format!("202601{:02}", number + 1);
            let stream = Stream::default().add("a:1:amd64", "a", &serial, version(&format!("a/{serial}")));
            origin.put(stream.tree());
            assert_eq!(mirror.refresh("lab", false).await.result.label(), "changed");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let (started, reads) = (std::time::Instant::now(), std::sync::atomic::AtomicUsize::new(0));
    let polls = async || {
        for _ in 0..40 {
            reads.fetch_add(3, std::sync::atomic::Ordering::Relaxed);
            let index = mirror.json(INDEX).await;
            let path = index["index"]["images"]["path"].as_str().unwrap().to_owned();
            let images = mirror.json(&path).await;
            for version in images["products"]["a:1:amd64"]["versions"].as_object().unwrap().values() {
                let item = &version["items"]["squashfs"];
                let bytes = mirror.body(item["path"].as_str().unwrap()).await;
                assert_eq!(cistern::digest::Digest::of(&bytes).to_string(), item["sha256"].as_str().unwrap());
            }
        }
    };
    let all_polls = async {
        futures_util::future::join_all((0..8).map(|_| polls())).await;
        started.elapsed().as_millis()
    };
    let ((), time) = tokio::join!(flips, all_polls);
    let reads = reads.into_inner() as u128;
    assert!(reads * 10 > time, "{reads} reads in {time} ms");
}
