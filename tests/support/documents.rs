//! Real documents of image servers (`tests/documents/ORIGIN.md` says where they come from).

#![allow(dead_code, reason = "each test target uses another part")]

use std::path::Path;

type Tree = Vec<(String, Vec<u8>)>;

/// Every tree that has an index, as it is; and single products documents with an index of ours, by name.
pub fn trees() -> Vec<(String, Tree)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents");
    let whole = [
        "eduardotp1-openstack-image-ids/images",
        "eumel8-otc-juju-image-ids",
        "kriszos-chr-incus",
        "lp-simplestreams-examples/cirros",
        "lp-simplestreams-examples/foocloud",
        "lp-simplestreams-examples/minimal",
    ];
    let mut trees: Vec<(String, Tree)> = whole.iter().map(|name| ((*name).to_owned(), below(&top.join(name)))).collect();
    for (path, content_id) in [
        ("meigma-go-simplestreams-testdata/incus-products.json", "images"),
        ("meigma-go-simplestreams-testdata/linuxcontainers-products.json", "images"),
        ("meigma-go-simplestreams-testdata/lxd-products.json", "images"),
        ("cloud-images-released-download-subset/streams/v1/com.ubuntu.cloud:released:download.json", "com.ubuntu.cloud:released:download"),
    ] {
        trees.push((path.to_owned(), with_index(std::fs::read(top.join(path)).unwrap(), content_id)));
    }
    trees
}

/// The successive states of one real server: index and products document.
pub fn successive_states() -> Vec<Tree> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents/kriszos-chr-incus");
    let read = |name: String| std::fs::read(folder.join(name)).unwrap();
    let state = |prefix: &str| {
        let named = |document: &str| (format!("streams/v1/{document}.json"), read(format!("{prefix}-{document}.json")));
        vec![named("index"), named("images")]
    };
    ["01-fb8f61a", "10-339272a", "30-d7dd005"].map(state).into()
}

fn with_index(products: Vec<u8>, content_id: &str) -> Tree {
    let names: Vec<String> =
        serde_json::from_slice::<serde_json::Value>(&products).unwrap()["products"].as_object().unwrap().keys().cloned().collect();
    let path = format!("streams/v1/{content_id}.json");
    let index = serde_json::json!({"format": "index:1.0", "index": {content_id: {
        "datatype": "image-downloads", "format": "products:1.0", "path": path, "products": names,
    }}});
    vec![("streams/v1/index.json".to_owned(), index.to_string().into_bytes()), (path, products)]
}

fn below(top: &Path) -> Tree {
    fn walk(folder: &Path, top: &Path, tree: &mut Tree) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, top, tree);
            } else {
                tree.push((path.strip_prefix(top).unwrap().display().to_string(), std::fs::read(&path).unwrap()));
            }
        }
    }
    let mut tree = Vec::new();
    walk(top, top, &mut tree);
    tree
}
