//! What is tried with whatever bytes anybody sends: by `cargo fuzz run NAME` with ever other ones, and by `cargo test` with
//! those in `corpus/` (`tests/it/fuzzing.rs`). Each says what must hold of every input.

use bytes::Bytes;
use cistern::digest::Digest;
use cistern::disk::{Disk as _, OsDisk};
use cistern::http::condition::Validators;
use cistern::http::encoding::accepts_gzip;
use cistern::http::path::StreamPath;
use cistern::http::range::{ByteRange, ContentRange, Selected};
use cistern::library::inspect;
use cistern::manifest::Manifest;
use cistern::render::policy::Policy;
use cistern::render::remote::{Rendered, listing_of, render};
use cistern::revalidation::document::{Wanted, read_index, read_products};
use cistern::selection::Selection;
use cistern::simplestreams::index::Kind;
use cistern::simplestreams::snapshot::{Role, Snapshot, Source};
use cistern::store::blob::Blob;
use cistern::upstream::redirect;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

fn path(text: &str) -> StreamPath {
    StreamPath::from_document(text).expect("it is a good one")
}

/// An image server sends this as its index and as its products. Hosts get documents that can be read, the same ones for the
/// same bytes, and from what they get they get no other ones.
pub fn documents(data: &[u8]) {
    let (index, products) = (path("streams/v1/index.json"), path("streams/v1/images.json"));
    drop(read_index(&index, data));
    let source = Source::new(products.clone(), Role::Images, Bytes::copy_from_slice(data));
    drop(read_products(&Wanted { path: products.clone(), kind: Kind::Images, content_id: "images".to_owned() }, &source));
    let sources = |index_bytes: &[u8], products_bytes: &[u8]| {
        let source = |path: &StreamPath, role, bytes: &[u8]| Source::new(path.clone(), role, Bytes::copy_from_slice(bytes));
        let documents = vec![source(&index, Role::Index, index_bytes), source(&products, Role::Images, products_bytes)];
        Snapshot { url: "http://far".to_owned(), accepted_at: jiff::Timestamp::UNIX_EPOCH, documents }
    };
    let newest = Selection { versions: 1, ..Selection::default() };
    for (selection, twins) in [(Selection::default(), false), (Selection::default(), true), (newest, true)] {
        let policy = Policy { selection, twins, ..Policy::default() };
        let snapshot = sources(data, data);
        let rendered = render("far", &snapshot, &policy);
        assert_eq!(bytes_of(&rendered), bytes_of(&render("far", &snapshot, &policy)), "rendering is pure");
        listing_of(&snapshot, &policy);
        for (path, bytes) in bytes_of(&rendered) {
            let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
            assert!(is_json || bytes == data, "{path} cannot be read");
        }
        let again = bytes_of(&rendered);
        let document = |at: &StreamPath| again.iter().find(|(path, _)| path == at.as_str()).map(|(_, bytes)| bytes.clone());
        if let (Some(index), Some(products)) = (document(&index), document(&products)) {
            let twice = render("far", &sources(&index, &products), &policy);
            for (before, after) in again.iter().zip(bytes_of(&twice)) {
                let [before, after] = [&before.1, &after.1].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
                assert_eq!(before, after, "what was rendered needs no rendering");
            }
        }
    }
}

fn bytes_of(rendered: &Rendered) -> Vec<(String, Vec<u8>)> {
    rendered.documents.iter().map(|document| (document.path.to_string(), document.bytes.to_vec())).collect()
}

/// A host sends these lines, in the order of the names below, and so does an image server. What is answered lies within the
/// file.
pub fn headers(data: &[u8]) {
    const NAMES: [&str; 6] = ["range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];
    let mut headers = HeaderMap::new();
    for (name, value) in NAMES.iter().zip(data.split(|byte| *byte == b'\n')) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let etag = format!("\"{}\"", Digest::of(b""));
    for last_modified in [None, Some(std::time::UNIX_EPOCH)] {
        for etag in [None, Some(etag.as_str())] {
            let validators = Validators { etag, last_modified };
            validators.evaluate(&headers);
            validators.range_applies(&headers);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let first = text.lines().next().unwrap_or_default();
    if let Some(range) = ByteRange::parse(first) {
        for size in [0, 1, 1000, u64::MAX] {
            if let Selected::Part(part) = range.select(size) {
                assert!(part.start < part.end && part.end <= size, "{part:?} of {size}");
            }
        }
    }
    if let Some(range) = ContentRange::parse(first) {
        assert!(range.start <= range.end && range.total.is_none_or(|total| range.end <= total), "{range:?}");
    }
    accepts_gzip(&headers);
    let origin = reqwest::Url::parse("https://images.example/releases").expect("it is a good one");
    if let Ok(follow) = redirect::decide(&origin, &origin, Some(first), 0, redirect::Rules { most: 5, private: false }) {
        assert!(follow.url.scheme() == "https" && !redirect::is_private(&follow.url), "{}", follow.url);
        assert!(!follow.with_headers || follow.url.host_str() == origin.host_str(), "{}", follow.url);
    }
}

/// A host asks for this, or a document names it. No path leads out of where it belongs, and every path can be asked for.
pub fn paths(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for path in [StreamPath::from_request(text), StreamPath::from_document(text)].into_iter().flatten() {
        let text = path.as_str();
        assert!(!text.is_empty() && !text.starts_with('/') && !text.contains('\0'), "{text:?}");
        assert!(text.split('/').all(|segment| !matches!(segment, "." | "..")), "{text:?}");
        assert_eq!(StreamPath::from_request(&path.to_url()).as_ref(), Ok(&path), "it can be asked for");
        let url = reqwest::Url::parse(&format!("https://images.example/top/{}", path.to_url())).expect("it is a good one");
        assert!(url.host_str() == Some("images.example") && url.path().starts_with("/top/"), "{url}");
        let below = path.below("ubuntu");
        assert_eq!(below.split_first(), Some(("ubuntu", path.clone())));
    }
}

/// Somebody imports this as the one file of an image, and as its metadata.
pub fn tarballs(data: &[u8]) {
    let folder = tempfile::tempdir_in(shared_memory()).expect("there is a folder");
    let blob = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("it can be written");
        Blob::new(Digest::of(bytes), bytes.len() as u64, OsDisk.open(&path).expect("it is there")).expect("it can be looked at")
    };
    let (metadata, root) = (blob("metadata", data), blob("root", b"hsqs"));
    drop(inspect::inspect(&[("metadata", &metadata)]));
    drop(inspect::inspect(&[("metadata", &metadata), ("root", &root)]));
    drop(inspect::inspect(&[("metadata", &root), ("root", &metadata)]));
}

/// Somebody brings a bundle with this manifest. What it names lies in the bundle, each thing once, and it is read as it was
/// written.
pub fn manifests(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else { return };
    assert_eq!(Manifest::parse(&manifest.to_json()).as_ref(), Ok(&manifest), "it is read as it was written");
    let mut seen = std::collections::HashSet::new();
    for file in manifest.files() {
        let path = file.path.to_string();
        assert!(seen.insert(path.clone()), "{path}");
        let is_inside = ["blobs/sha256/", "documents/", "rendered/"].iter().any(|folder| path.starts_with(folder));
        assert!(is_inside && path.split('/').all(|segment| !matches!(segment, "" | "." | "..")), "{path:?}");
        assert!(!path.contains(['\\', '\0']), "{path:?}");
        assert!(!path.starts_with("blobs/") || path.ends_with(&file.sha256.to_string()), "{path}");
    }
}

fn shared_memory() -> std::path::PathBuf {
    let memory = std::path::PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}
