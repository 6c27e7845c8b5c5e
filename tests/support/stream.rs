//! Makes simplestreams trees: documents and the files that they list.

#![allow(dead_code, reason = "each test target uses another part")]

use cistern::digest::{Digest, FingerprintHasher};
use serde_json::{Map, Value, json};

/// A tree that is being put together.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    products: Map<String, Value>,
    files: Vec<(String, Vec<u8>)>,
    updated: Option<String>,
}

/// A version that is being put together.
#[derive(Clone, Debug)]
pub struct Version {
    folder: String,
    items: Map<String, Value>,
    files: Vec<(String, Vec<u8>)>,
}

/// The fingerprint of a split image.
pub fn fingerprint(metadata: &[u8], root: &[u8]) -> String {
    let mut hasher = FingerprintHasher::default();
    hasher.update(metadata);
    hasher.update(root);
    hasher.finish().to_string()
}

/// An item of a file.
pub fn item(ftype: &str, path: &str, bytes: &[u8]) -> Value {
    json!({"ftype": ftype, "path": path, "sha256": Digest::of(bytes).to_string(), "size": bytes.len()})
}

impl Version {
    /// A version whose files lie in `folder`.
    pub fn new(folder: &str) -> Self {
        Self { folder: folder.to_owned(), items: Map::new(), files: Vec::new() }
    }

    /// Adds a file of this `ftype`, under that name.
    pub fn file(mut self, ftype: &str, bytes: &[u8]) -> Self {
        let path = format!("{}/{ftype}", self.folder);
        self.items.insert(ftype.to_owned(), item(ftype, &path, bytes));
        self.files.push((path, bytes.to_vec()));
        self
    }

    /// Adds a delta to a root, against the version `base`.
    pub fn delta(mut self, ftype: &str, base: &str, bytes: &[u8]) -> Self {
        self = self.file(ftype, bytes);
        self.items[ftype]["delta_base"] = json!(base);
        self
    }

    /// Adds a metadata file with the fingerprints of the images that it makes with all roots that were added before.
    pub fn metadata(mut self, ftype: &str, bytes: &[u8]) -> Self {
        let roots = [
            ("squashfs", "combined_squashfs_sha256"),
            ("root.tar.xz", "combined_rootxz_sha256"),
            ("disk-kvm.img", "combined_disk-kvm-img_sha256"),
        ];
        let path = format!("{}/metadata.tar.xz", self.folder);
        let mut metadata = item(ftype, &path, bytes);
        for (root, field) in roots {
            if let Some((_, root)) = self.files.iter().find(|(path, _)| *path == format!("{}/{root}", self.folder)) {
                metadata[field] = json!(fingerprint(bytes, root));
            }
        }
        self.items.insert(ftype.to_owned(), metadata);
        self.files.push((path, bytes.to_vec()));
        self
    }

    /// Changes the items by hand.
    pub fn with(mut self, change: impl FnOnce(&mut Map<String, Value>)) -> Self {
        change(&mut self.items);
        self
    }
}

impl Stream {
    /// Adds a version to a product, which is made if it is not there. The product's name is `os:release:arch`.
    pub fn add(mut self, product: &str, aliases: &str, serial: &str, version: Version) -> Self {
        let parts: Vec<&str> = product.split(':').collect();
        let (os, release, arch) = (parts[0], parts[1], parts[2]);
        let fresh = json!({"aliases": aliases, "os": os, "release": release, "release_title": release, "arch": arch, "versions": {}});
        let entry = self.products.entry(product).or_insert(fresh);
        entry["versions"][serial] = json!({"items": version.items});
        self.files.extend(version.files);
        self
    }

    /// Changes a product by hand.
    pub fn with(mut self, product: &str, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.products[product]);
        self
    }

    /// Dates the documents.
    pub fn updated(mut self, updated: &str) -> Self {
        self.updated = Some(updated.to_owned());
        self
    }

    /// The documents alone.
    pub fn documents(&self) -> Vec<(String, Vec<u8>)> {
        let names: Vec<&String> = self.products.keys().collect();
        let entry = json!({"datatype": "image-downloads", "path": "streams/v1/images.json", "format": "products:1.0", "products": names});
        let mut index = json!({"format": "index:1.0", "index": {"images": entry}});
        let mut products =
            json!({"format": "products:1.0", "content_id": "images", "datatype": "image-downloads", "products": self.products});
        if let Some(updated) = &self.updated {
            index["updated"] = json!(updated);
            products["updated"] = json!(updated);
        }
        vec![("streams/v1/index.json".to_owned(), bytes(&index)), ("streams/v1/images.json".to_owned(), bytes(&products))]
    }

    /// Documents and files.
    pub fn tree(&self) -> Vec<(String, Vec<u8>)> {
        self.documents().into_iter().chain(self.files.iter().cloned()).collect()
    }
}

fn bytes(document: &Value) -> Vec<u8> {
    document.to_string().into_bytes()
}

/// Bytes that look like nothing else.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}
