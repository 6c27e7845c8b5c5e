//! What a site lists of a remote: what the newest bundle of each selection says of it, joined.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::bundle::rendering::documents_of;
use crate::library::entry::LOCAL;
use crate::manifest::{BundlePath, Manifest};
use crate::render::join::join;
use crate::simplestreams::snapshot::Source;
use crate::store::imports::Imported;

/// An exporter's own images are of its remote `local`. Every site has one of its own, so that here they are of this one.
const CARRIED: &str = "carried";

/// The remotes that a bundle brings, by their names here.
pub fn remotes(manifest: &Manifest) -> BTreeSet<String> {
    exporters(manifest).into_iter().map(|remote| name_here(remote).to_owned()).collect()
}

/// What is listed of a remote.
pub fn listed(bundles: &[Imported], remote: &str) -> Vec<Source> {
    let mut newest_first: Vec<&Imported> = bundles.iter().collect();
    newest_first.sort_by_key(|bundle| std::cmp::Reverse((made_at(&bundle.manifest), bundle.manifest.generation, bundle.place)));
    let sets: Vec<Vec<Source>> = newest_first.into_iter().flat_map(|bundle| sets(bundle, remote)).collect();
    join(&sets)
}

/// What one bundle lists of a remote. That an exporter has one of its own that is called as ours are called is rare.
pub fn sets(bundle: &Imported, remote: &str) -> Vec<Vec<Source>> {
    let exporters = exporters(&bundle.manifest).into_iter().filter(|name| name_here(name) == remote);
    exporters.map(|name| documents_of(&|path| bundle.rendered.get(&BundlePath::Rendered(name.to_owned(), path.clone())).cloned())).collect()
}

fn exporters(manifest: &Manifest) -> BTreeSet<&str> {
    let remotes = manifest.documents.iter().filter_map(|document| match &document.path {
        BundlePath::Rendered(remote, _) => Some(remote.as_str()),
        BundlePath::Blob(_) | BundlePath::Document(..) => None,
    });
    remotes.collect()
}

fn name_here(remote: &str) -> &str {
    if remote == LOCAL { CARRIED } else { remote }
}

/// When a bundle was made.
pub fn made_at(manifest: &Manifest) -> Timestamp {
    manifest.created_at.parse().unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use serde_json::{Value, json};

    use crate::bundle::joining::{listed, remotes};
    use crate::digest::Digest;
    use crate::manifest::{BundlePath, File, Manifest};
    use crate::store::imports::Imported;

    fn bundle(name: &str, generation: u64, made_at: &str, remote: &str, product: &str) -> Imported {
        let index = json!({"format": "index:1.0", "index": {"images": {"datatype": "image-downloads", "path": "streams/v1/images.json"}}});
        let images = json!({"format": "products:1.0", "products": {product: {"title": name}}});
        let document = |path: &str, value: &Value| {
            (BundlePath::parse(&format!("rendered/{remote}/streams/v1/{path}")).unwrap(), Bytes::from(value.to_string()))
        };
        let rendered: BTreeMap<_, _> = [document("index.json", &index), document("images.json", &images)].into();
        let file = |(path, bytes): (&BundlePath, &Bytes)| File { path: path.clone(), size: 0, sha256: Digest::of(bytes) };
        let manifest =
            Manifest { generation, created_at: made_at.to_owned(), documents: rendered.iter().map(file).collect(), ..Manifest::default() };
        Imported { place: Digest::of(name.as_bytes()), manifest, text: Bytes::new(), signature: Bytes::new(), rendered }
    }

    fn titles(bundles: &[Imported], remote: &str) -> Value {
        let sources = listed(bundles, remote);
        let images = sources.get(1).map(|source| serde_json::from_slice::<Value>(&source.bytes).unwrap());
        let products = images.map(|images| images["products"].as_object().unwrap().clone()).unwrap_or_default();
        products.into_iter().map(|(name, product)| (name, product["title"].clone())).collect()
    }

    #[test]
    fn what_was_made_last_says_what_a_product_is() {
        let older = bundle("older", 9, "2026-11-01T00:00:00Z", "lab", "p");
        let newer = bundle("newer", 2, "2026-11-02T00:00:00Z", "lab", "p");
        let other = bundle("other", 1, "2026-11-01T00:00:00Z", "lab", "q");
        assert_eq!(titles(&[older, newer, other], "lab"), json!({"p": "newer", "q": "other"}));
        assert_eq!(titles(&[], "lab"), json!({}), "nothing is listed of a remote that no bundle has any more");
    }

    #[test]
    fn the_exporters_own_images_are_of_a_remote_that_no_site_has() {
        let own = bundle("own", 1, "2026-11-01T00:00:00Z", "local", "p");
        assert_eq!(remotes(&own.manifest), ["carried".to_owned()].into());
        assert_eq!(titles(&[own], "carried"), json!({"p": "own"}));
    }
}
