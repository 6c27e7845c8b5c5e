//! A document as large as those of the largest image servers.

#![allow(dead_code, reason = "each test target uses another part")]

use cistern::digest::Digest;
use serde_json::{Map, Value, json};

/// An index and a products document with so many items, some 250 bytes each.
pub fn large_document(items: usize, serial: &str) -> Vec<(String, Vec<u8>)> {
    const VERSIONS: usize = 10;
    // Hashes that look like hashes: they are most of what is packed.
    let hash = |number: usize| Digest::of(&number.to_le_bytes()).to_string();
    let mut products = Map::new();
    for product in 0..items / (VERSIONS * 5) {
        let mut versions = Map::new();
        for version in 0..VERSIONS {
            let number = (product * VERSIONS + version) * 5;
            let folder = format!("images/distribution/release-{product}/amd64/default/{serial}_{version:04}");
            let mut items = Map::new();
            let metadata = json!({"ftype": "lxd.tar.xz", "path": format!("{folder}/lxd.tar.xz"), "size": 688 + number, "sha256": hash(number),
                "combined_squashfs_sha256": hash(number + 1_000_000), "combined_disk-kvm-img_sha256": hash(number + 2_000_000)});
            items.insert("lxd.tar.xz".to_owned(), metadata);
            for (at, (name, ftype)) in [
                ("rootfs.squashfs", "squashfs"),
                ("disk.qcow2", "disk-kvm.img"),
                ("rootfs.vcdiff", "squashfs.vcdiff"),
                ("root.manifest", "manifest"),
            ]
            .into_iter()
            .enumerate()
            {
                let item = json!({"ftype": ftype, "path": format!("{folder}/{name}"), "size": 123_456_789 + 7919 * number, "sha256": hash(number + at + 1)});
                items.insert(name.to_owned(), item);
            }
            versions.insert(format!("{serial}_{version:04}"), json!({"items": items}));
        }
        let name = format!("distribution:release-{product}:amd64:default");
        let fields = json!({"aliases": format!("distribution/{product},distribution/{product}/default"), "arch": "amd64", "os": "Distribution",
            "release": format!("release-{product}"), "release_title": "release", "variant": "default", "versions": Value::Object(versions)});
        products.insert(name, fields);
    }
    let names: Vec<&String> = products.keys().collect();
    let index = json!({"format": "index:1.0", "index": {"images": {"datatype": "image-downloads", "path": "streams/v1/images.json", "products": names}}});
    let document = json!({"format": "products:1.0", "content_id": "images", "products": products});
    vec![
        ("streams/v1/index.json".to_owned(), index.to_string().into_bytes()),
        ("streams/v1/images.json".to_owned(), document.to_string().into_bytes()),
    ]
}
