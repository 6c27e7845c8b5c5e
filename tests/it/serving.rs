//! What hosts get: documents and files, held and not, over TLS and plain HTTP.

use std::time::Duration;

use cistern::digest::Digest;
use serde_json::json;

use crate::support::mirror::{Builder, Mirror, wait_for};
use crate::support::origin::{Act, Origin, header};
use crate::support::stream::{Stream, Version, fingerprint, item, noise};

const ROOT: &str = "images/noble/squashfs";
const PLENTY: usize = 600_000;

fn noble(root: &[u8]) -> Stream {
    let version = Version::new("images/noble").file("squashfs", root).metadata("lxd.tar.xz", b"metadata");
    Stream::default().add("ubuntu:noble:amd64", "24.04,noble", "20260101", version)
}

async fn origin_and_mirror(root: &[u8]) -> (Origin, Mirror) {
    let origin = Origin::start().await;
    origin.put(noble(root).tree());
    let mirror = Builder::default().remote("ubuntu", &[origin.url()], "").start().await;
    (origin, mirror)
}

fn text<'a>(response: &'a reqwest::Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_file_is_fetched_once_and_then_held() {
    let root = noise(PLENTY, 1);
    let (origin, mirror) = origin_and_mirror(&root).await;
    let digest = Digest::of(&root);
    for (state, cache_status) in [("cold", "cistern; fwd=uri-miss; stored"), ("warm", "cistern; hit")] {
        let response = mirror.get(&format!("ubuntu/{ROOT}")).await;
        assert_eq!(text(&response, "cache-status"), cache_status, "{state}");
        assert_eq!(text(&response, "etag"), format!("\"{digest}\""));
        assert_eq!(text(&response, "repr-digest"), digest.repr_digest());
        assert_eq!(text(&response, "content-length"), PLENTY.to_string());
        assert_eq!(text(&response, "content-type"), "application/octet-stream");
        assert_eq!(text(&response, "last-modified"), "Thu, 01 Jan 2026 00:00:00 GMT");
        assert_eq!(text(&response, "content-encoding"), "");
        assert!(response.bytes().await.unwrap() == root);
        wait_for(async || mirror.is_hit(&format!("ubuntu/{ROOT}")).await).await;
    }
    assert_eq!(origin.requests(ROOT).len(), 1);
    let head = &origin.requests(ROOT)[0].head;
    assert!(header(head, "user-agent").unwrap().starts_with("cistern/"), "{head}");
    assert_eq!(header(head, "accept-encoding"), Some("identity"));
    assert_eq!(mirror.files("blobs"), [format!("sha256/{}/{digest}", &digest.to_string()[..2])]);
    assert_eq!(mirror.files("partials"), [""; 0]);
    let by_digest = mirror.get(&format!("blobs/sha256/{digest}")).await;
    assert_eq!(text(&by_digest, "cache-control"), "public, max-age=31536000, immutable");
    assert!(by_digest.bytes().await.unwrap() == root);
    let not_held = Digest::of(b"metadata");
    assert_eq!(mirror.get(&format!("blobs/sha256/{not_held}")).await.status(), 404);
}

#[tokio::test]
async fn files_travel_over_plain_http_and_documents_do_not() {
    let (_origin, mirror) = origin_and_mirror(b"root").await;
    let plain = |path: &str| mirror.client().get(format!("http://{}/{path}", mirror.address())).send();
    assert_eq!(plain(&format!("ubuntu/{ROOT}")).await.unwrap().bytes().await.unwrap(), "root");
    let response = plain("streams/v1/index.json").await.unwrap();
    assert_eq!(response.status(), 308);
    assert_eq!(text(&response, "location"), format!("https://{}/streams/v1/index.json", mirror.address()));
    assert_eq!(plain("ubuntu/nothing").await.unwrap().status(), 404);
}

#[tokio::test]
async fn an_operator_decides_on_plain_http() {
    let origin = Origin::start().await;
    origin.put(noble(b"root").tree());
    for (setting, document, file) in [("all", 200, 200), ("off", 403, 403)] {
        let mirror = Builder::default().server(&format!("plain_http = \"{setting}\"")).remote("ubuntu", &[origin.url()], "").start().await;
        let status =
            async |path: &str| mirror.client().get(format!("http://{}/{path}", mirror.address())).send().await.unwrap().status().as_u16();
        assert_eq!(status("streams/v1/index.json").await, document, "{setting}");
        assert_eq!(status(&format!("ubuntu/{ROOT}")).await, file, "{setting}");
    }
}

#[tokio::test]
async fn ranges_and_conditions_are_answered_held_or_not() {
    let root = noise(PLENTY, 2);
    let (origin, mirror) = origin_and_mirror(&root).await;
    let etag = format!("\"{}\"", Digest::of(&root));
    let url = format!("{}/ubuntu/{ROOT}", mirror.url());
    for state in ["cold", "warm"] {
        let ask = async |headers: &[(&str, &str)]| {
            let request = headers.iter().fold(mirror.client().get(&url), |request, (name, value)| request.header(*name, *value));
            request.send().await.unwrap()
        };
        assert_eq!(ask(&[("if-none-match", &etag)]).await.status(), 304, "{state}");
        assert_eq!(ask(&[("if-match", "\"other\"")]).await.status(), 412, "{state}");
        let response = ask(&[("range", "bytes=9999999-")]).await;
        assert_eq!((response.status().as_u16(), text(&response, "content-range")), (416, format!("bytes */{PLENTY}").as_str()), "{state}");
        let head = mirror.client().head(&url).send().await.unwrap();
        assert_eq!((head.status().as_u16(), text(&head, "content-length")), (200, PLENTY.to_string().as_str()), "{state}");
        assert_eq!(origin.requests(ROOT).len(), usize::from(state == "warm"), "none of these starts a fetch");
        for (field, range) in [("bytes=1000-2000", 1000..2001), ("bytes=-5", PLENTY - 5..PLENTY), ("bytes=599999-", PLENTY - 1..PLENTY)] {
            let response = ask(&[("range", field), ("if-range", &etag)]).await;
            assert_eq!(response.status(), 206, "{state} {field}");
            assert_eq!(text(&response, "content-range"), format!("bytes {}-{}/{PLENTY}", range.start, range.end - 1));
            assert!(response.bytes().await.unwrap() == root[range], "{state} {field}");
        }
        let response = ask(&[("range", "bytes=0-1"), ("if-range", "\"other\"")]).await;
        assert_eq!(response.status(), 200);
        assert!(response.bytes().await.unwrap() == root);
    }
    assert_eq!(origin.requests(ROOT).len(), 1);
}

#[tokio::test]
async fn what_is_not_in_a_document_is_not_served() {
    let (origin, mirror) = origin_and_mirror(b"root").await;
    origin.put([("secret".to_owned(), b"x".to_vec())]);
    let before = origin.total();
    for (path, status) in [
        ("ubuntu/secret", 404),
        ("nobody/images/noble/squashfs", 404),
        ("blobs/sha256/0000000000000000000000000000000000000000000000000000000000000000", 404),
        ("blobs/sha256/xyz", 404),
        ("ubuntu/images%2Fnoble%2Fsquashfs", 400),
        ("ubuntu/images/noble/%2e%2e/noble/squashfs", 400),
        ("ubuntu/images//noble/squashfs", 400),
        ("ubuntu/%00", 400),
        ("ubuntu/%ff", 400),
        ("streams/v1/mirrors.json", 404),
    ] {
        let response = raw(&mirror, &format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {response}");
    }
    let long = "a/".repeat(3000);
    assert!(raw(&mirror, &format!("GET /{long} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await.starts_with("HTTP/1.1 400 "));
    assert_eq!(origin.total(), before, "nothing of this reaches upstream");
}

#[tokio::test]
async fn malformed_and_oversized_requests_are_ended() {
    let (_origin, mirror) = origin_and_mirror(b"root").await;
    assert!(raw(&mirror, "NONSENSE\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    let told = raw(&mirror, "GET / HTTP/1.1\r\nHost: me:secret@x\r\nConnection: close\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 400 ") && !told.contains("secret"), "{told}");
    for hosts in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: a:b\r\n",
        "Host: a:99999\r\n",
        "Host: :80\r\n",
        "Host: []\r\n",
    ] {
        for path in ["", ROOT, "blobs/sha256/x"] {
            let answer = raw(&mirror, &format!("GET /{path} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{hosts:?} {path:?}: {answer}");
        }
    }
    for head in
        ["HTTP/1.0\r\n\r\n", "HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", "HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n"]
    {
        let answer = raw(&mirror, &format!("GET /ubuntu/{ROOT} {head}")).await;
        assert!(answer.contains(" 200 OK"), "{head}: {answer}");
    }
    let oversized = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "y".repeat(200_000));
    assert!(raw(&mirror, &oversized).await.starts_with("HTTP/1.1 431 "));
    let response =
        raw(&mirror, &format!("POST /ubuntu/{ROOT} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")).await;
    assert!(response.starts_with("HTTP/1.1 405 ") && response.contains("allow: GET, HEAD"), "{response}");
}

#[tokio::test]
async fn a_host_that_sends_its_request_too_slowly_is_cut_off() {
    let origin = Origin::start().await;
    origin.put(noble(b"root").tree());
    let mirror = Builder::default().section("[limits]\nheader_timeout = \"300ms\"").remote("ubuntu", &[origin.url()], "").start().await;
    for beginning in ["", "G", "GET / HTTP/1.1\r\nHost:", "\u{16}"] {
        let started = std::time::Instant::now();
        raw_without_end(&mirror, beginning).await;
        assert!(
            started.elapsed() >= Duration::from_millis(250) && started.elapsed() < Duration::from_secs(3),
            "{beginning:?}: {:?}",
            started.elapsed()
        );
    }
}

async fn raw(mirror: &Mirror, request: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(mirror.address()).await.unwrap();
    // The server may end the conversation before it has heard everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    String::from_utf8_lossy(&response).into_owned()
}

async fn raw_without_end(mirror: &Mirror, beginning: &str) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(mirror.address()).await.unwrap();
    stream.write_all(beginning.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
}

#[tokio::test]
async fn documents_go_out_as_they_came_unless_something_requires_another() {
    let origin = Origin::start().await;
    origin.put(noble(b"root").tree());
    let mirror = Builder::default().remote("plain", &[origin.url()], "twins = false").remote("twinned", &[origin.url()], "").start().await;
    for (path, bytes) in noble(b"root").documents() {
        assert!(mirror.body(&format!("plain/{path}")).await == bytes, "{path}");
    }
    let images = mirror.json("twinned/streams/v1/images.json").await;
    let items = &images["products"]["ubuntu:noble:amd64"]["versions"]["20260101"]["items"];
    assert_eq!(items["incus.tar.xz"]["combined_squashfs_sha256"], items["lxd.tar.xz"]["combined_squashfs_sha256"]);
    assert_eq!(items["incus.tar.xz"]["ftype"], "incus.tar.xz");
    let root = mirror.json("streams/v1/plain.images.json").await;
    assert_eq!(root["products"]["ubuntu:noble:amd64"]["versions"]["20260101"]["items"]["squashfs"]["path"], format!("plain/{ROOT}"));
}

#[tokio::test]
async fn documents_are_gzipped_and_revalidated() {
    let (_origin, mirror) = origin_and_mirror(b"root").await;
    let url = format!("{}/ubuntu/streams/v1/images.json", mirror.url());
    let plain = mirror.get("ubuntu/streams/v1/images.json").await;
    assert_eq!(
        (text(&plain, "content-type"), text(&plain, "content-encoding"), text(&plain, "cache-control")),
        ("application/json", "", "no-cache")
    );
    let zipped = mirror.client().get(&url).header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!((text(&zipped, "content-encoding"), text(&zipped, "vary")), ("gzip", "Accept-Encoding"));
    assert_ne!(text(&plain, "etag"), text(&zipped, "etag"));
    let again = mirror.client().get(&url).header("if-none-match", text(&plain, "etag")).send().await.unwrap();
    assert_eq!((again.status().as_u16(), text(&again, "content-length")), (304, ""));
    let since = mirror.client().get(&url).header("if-modified-since", text(&plain, "last-modified")).send().await.unwrap();
    assert_eq!(since.status(), 304);
    let head = mirror.client().head(&url).send().await.unwrap();
    assert_eq!(text(&head, "content-length"), text(&plain, "content-length"));
}

/// T31
#[tokio::test]
async fn a_superseded_file_is_served_until_its_grace_is_over_also_after_a_restart() {
    let (origin, mirror) = origin_and_mirror(b"old root").await;
    let version = Version::new("images/newer").file("squashfs", b"new root").metadata("lxd.tar.xz", b"metadata");
    origin.put(Stream::default().add("ubuntu:noble:amd64", "24.04,noble", "20260201", version).tree());
    assert_eq!(mirror.refresh("ubuntu", false).await.result.label(), "changed");
    let listed = mirror.json("ubuntu/streams/v1/images.json").await;
    assert_eq!(listed["products"]["ubuntu:noble:amd64"]["versions"].as_object().unwrap().keys().collect::<Vec<_>>(), ["20260201"]);
    assert_eq!(mirror.body(&format!("ubuntu/{ROOT}")).await, b"old root");
    let mirror = mirror.restart().await;
    assert_eq!(mirror.body("ubuntu/images/noble/metadata.tar.xz").await, b"metadata");
    assert_eq!(mirror.body("ubuntu/images/newer/squashfs").await, b"new root");
}

#[tokio::test]
async fn what_is_held_is_served_without_upstream_also_after_a_restart() {
    let (mut origin, mirror) = origin_and_mirror(b"root").await;
    mirror.body(&format!("ubuntu/{ROOT}")).await;
    origin.stop().await;
    for path in ["streams/v1/index.json", "ubuntu/streams/v1/images.json", &format!("ubuntu/{ROOT}")] {
        mirror.body(path).await;
    }
    assert_eq!(mirror.get("ubuntu/images/noble/metadata.tar.xz").await.status(), 502, "trouble is not absence");
    mirror.refresh("ubuntu", false).await;
    for path in ["streams/v1/index.json", "ubuntu/streams/v1/images.json"] {
        assert_eq!(text(&mirror.get(path).await, "cache-status"), "cistern; fwd=stale", "{path}");
    }
    let started = std::time::Instant::now();
    let mirror = mirror.restart().await;
    for path in ["streams/v1/index.json", "ubuntu/streams/v1/images.json", &format!("ubuntu/{ROOT}")] {
        mirror.body(path).await;
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_file_without_sha256_is_verified_by_the_strongest_hash_it_has() {
    let origin = Origin::start().await;
    let md5 = |bytes: &[u8]| {
        use md5::Digest as _;
        md5::Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let sizeless = |version: Version, name: &str, hash: String| {
        version.with(|items| items[name] = json!({"ftype": name, "path": format!("images/noble/{name}"), "md5": hash}))
    };
    let version = Version::new("images/noble").file("a.img", b"right").file("b.img", b"wrong");
    let version = sizeless(sizeless(version, "a.img", md5(b"right")), "b.img", md5(b"other"));
    origin.put(Stream::default().add("x:1:amd64", "", "20260101", version).tree());
    let mirror = Builder::default().remote("old", &[origin.url()], "").start().await;
    assert_eq!(mirror.body("old/images/noble/a.img").await, b"right");
    let digest = Digest::of(b"right");
    wait_for(async || text(&mirror.get("old/images/noble/a.img").await, "etag") == format!("\"{digest}\"")).await;
    assert_eq!(mirror.body(&format!("blobs/sha256/{digest}")).await, b"right", "also by the digest that was learnt");
    assert_eq!(origin.requests("images/noble/a.img").len(), 1);
    let response = mirror.get("old/images/noble/b.img").await;
    assert!(response.status() == 502 || response.bytes().await.is_err(), "wrong bytes are never whole");
    let mirror = mirror.restart().await;
    assert_eq!(text(&mirror.get("old/images/noble/a.img").await, "cache-status"), "cistern; hit", "what was learnt is kept");
}

#[tokio::test]
async fn an_image_whose_files_have_another_fingerprint_is_hidden() {
    let origin = Origin::start().await;
    let version = Version::new("images/noble").file("squashfs", b"root").metadata("lxd.tar.xz", b"metadata");
    let lying = version.clone().with(|items| items["lxd.tar.xz"]["combined_squashfs_sha256"] = json!(fingerprint(b"another", b"one")));
    let honest = Version::new("images/older").file("squashfs", b"old root").metadata("lxd.tar.xz", b"metadata");
    origin.put(
        Stream::default()
            .add("ubuntu:noble:amd64", "24.04", "20260101", honest)
            .add("ubuntu:noble:amd64", "24.04", "20260201", lying)
            .tree(),
    );
    let mirror = Builder::default().remote("ubuntu", &[origin.url()], "").start().await;
    mirror.body("ubuntu/images/noble/metadata.tar.xz").await;
    mirror.body(&format!("ubuntu/{ROOT}")).await;
    let fingerprints = async || {
        let images = mirror.json("streams/v1/ubuntu.images.json").await;
        let versions = images["products"]["ubuntu:noble:amd64"]["versions"].as_object().unwrap().clone();
        versions.keys().cloned().collect::<Vec<_>>()
    };
    wait_for(async || fingerprints().await == ["20260101"]).await;
    let mirror = mirror.restart().await;
    let images = mirror.json("ubuntu/streams/v1/images.json").await;
    assert!(images["products"]["ubuntu:noble:amd64"]["versions"]["20260201"].is_null(), "what was found out is kept: {images}");
}

#[tokio::test]
async fn an_item_that_would_break_clients_does_not_reach_them() {
    let origin = Origin::start().await;
    let version = Version::new("images/noble").file("squashfs", b"root").metadata("lxd.tar.xz", b"metadata");
    let version = version.with(|items| {
        items["squashfs"]["size"] = json!("4");
        items.insert("nameless".to_owned(), json!({"ftype": "x", "path": "images/x"}));
        items.insert("outside".to_owned(), item("x", "../../etc/passwd", b""));
    });
    origin.put(Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", version).tree());
    let mirror = Builder::default().remote("ubuntu", &[origin.url()], "twins = false").start().await;
    let images = mirror.json("ubuntu/streams/v1/images.json").await;
    let items = images["products"]["ubuntu:noble:amd64"]["versions"]["20260101"]["items"].as_object().unwrap();
    assert_eq!(items.keys().collect::<Vec<_>>(), ["lxd.tar.xz", "squashfs"]);
    assert_eq!(items["squashfs"]["size"], 4);
    assert_eq!(mirror.body(&format!("ubuntu/{ROOT}")).await, b"root");
}

#[tokio::test]
async fn a_stop_lets_answers_under_way_finish() {
    let root = noise(PLENTY, 3);
    let (origin, mirror) = origin_and_mirror(&root).await;
    origin.act(ROOT, [Act::StallAt(1000, Duration::from_millis(500))]);
    let response = mirror.get(&format!("ubuntu/{ROOT}")).await;
    mirror.begin_to_stop();
    assert!(response.bytes().await.unwrap() == root);
    assert!(tokio::net::TcpStream::connect(mirror.address()).await.is_err(), "nothing new is accepted");
}

#[tokio::test]
async fn while_nobody_knows_what_a_remote_has_nothing_is_called_missing() {
    let (good, silent) = (Origin::start().await, Origin::start().await);
    good.put(noble(b"root").tree());
    silent.act("streams/v1/index.json", [Act::Silence(Duration::from_millis(700))]);
    let builder = Builder::default().remote("silent", &[silent.url()], "").remote("good", &[good.url()], "");
    let mirror = builder.start_without_waiting().await;
    wait_for(async || mirror.get("good/streams/v1/index.json").await.status() == 200).await;
    for path in ["streams/v1/index.json", "silent/streams/v1/index.json", "silent/images/x"] {
        let response = mirror.get(path).await;
        assert_eq!((response.status().as_u16(), response.headers().contains_key("retry-after")), (503, true), "{path}");
    }
    wait_for(async || mirror.get("streams/v1/index.json").await.status() == 200).await;
    assert_eq!(mirror.get("silent/streams/v1/index.json").await.status(), 503, "it was asked in vain, and still nobody knows");
    assert_eq!(mirror.get("nobody/streams/v1/index.json").await.status(), 404);
}
