//! The documents of images of our own, and of images that people gave a name.
//!
//! Each image is a product of its own, so that each has just the aliases that people gave it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::http::path::StreamPath;
use crate::image::ftype::{Client, Root};
use crate::ledger::publication::Publication;
use crate::ledger::record::Record;
use crate::simplestreams::snapshot::{Role, Snapshot, Source};

/// So many digits of a fingerprint tell images apart.
const DIGITS: usize = 12;

/// One image, with the names that people gave it.
#[derive(Clone, Debug)]
pub enum Own<'a> {
    /// It was published here.
    Published(&'a Publication, Vec<String>),
    /// It is a remote's, and has a name here.
    Named(&'a Record, Vec<String>),
}

/// The documents that list these images; `None` if there are none.
pub fn documents(images: &[Own<'_>], now: Timestamp) -> Option<Snapshot> {
    let products: Map<String, Value> = images.iter().filter_map(product).collect();
    if products.is_empty() {
        return None;
    }
    let path = |path: &str| StreamPath::from_document(path).expect("these are paths");
    let names: Vec<&String> = products.keys().collect();
    let entry = json!({"datatype": "image-downloads", "format": "products:1.0", "path": "streams/v1/images.json", "products": names});
    let index = json!({"format": "index:1.0", "index": {"images": entry}});
    let document = json!({"content_id": "images", "datatype": "image-downloads", "format": "products:1.0", "products": products});
    let source = |name, role, value: &Value| Source::new(path(name), role, value.to_string().into());
    let documents = vec![source("streams/v1/index.json", Role::Index, &index), source("streams/v1/images.json", Role::Images, &document)];
    Some(Snapshot { url: "local".to_owned(), accepted_at: now, documents })
}

/// A product's name and its JSON.
fn product(own: &Own<'_>) -> Option<(String, Value)> {
    match own {
        Own::Published(publication, aliases) => Some(published(publication, aliases)),
        Own::Named(record, aliases) => named(record, aliases),
    }
}

fn published(publication: &Publication, aliases: &[String]) -> (String, Value) {
    let mut items = Map::new();
    for file in &publication.files {
        let path = format!("images/{}/{}", publication.fingerprint, file.name);
        items.insert(file.name.clone(), json!({"ftype": file.ftype, "path": path, "sha256": file.sha256, "size": file.size}));
    }
    let unified = publication.files.len() == 1;
    if let Some(item) = items.values_mut().next().filter(|_| unified && publication.image_type == "virtual-machine") {
        item["combined_type"] = json!("virtual-machine");
    }
    if let [metadata, root] = publication.files.as_slice() {
        let field = Root::of_ftype(&root.ftype).map(|root| root.fingerprint_fields()[0]);
        field.into_iter().for_each(|field| items[&metadata.name][field] = json!(publication.fingerprint));
    }
    let mut fields = facts(&publication.properties, &publication.architecture, aliases);
    if let Some(end) = publication.ends_at() {
        fields["support_eol"] = json!(end.strftime("%Y-%m-%d").to_string());
    }
    fields["versions"] = json!({publication.serial(): {"items": items}});
    (publication.product(), fields)
}

/// An image of a remote lists its files where the remote's are, so that whoever has it there need not have it again.
fn named(record: &Record, aliases: &[String]) -> Option<(String, Value)> {
    let fingerprint = record.fingerprint.to_string();
    let ftypes = match record.root {
        Some(root) => vec![Client::Lxd.metadata_ftype(), root.ftype()],
        None => vec![Client::Lxd.unified_ftype()],
    };
    let mut items = Map::new();
    for (piece, ftype) in record.pieces.iter().zip(&ftypes) {
        let path = piece.path.below(&record.remote).to_string();
        items.insert((*ftype).to_owned(), json!({"ftype": ftype, "path": path, "sha256": piece.digest.to_string(), "size": piece.size}));
    }
    if let Some(root) = record.root {
        items[ftypes[0]][root.fingerprint_fields()[0]] = json!(fingerprint);
    }
    let product = &record.version.product;
    let mut fields = facts(&product.properties, &product.architecture.to_string(), aliases);
    fields["release_title"] = json!(product.title);
    let version: BTreeMap<&str, Value> = BTreeMap::from([("label", json!(&*record.version.label)), ("items", Value::Object(items))]);
    fields["versions"] = json!({record.version.serial.to_string(): version});
    (record.pieces.len() == ftypes.len()).then(|| (format!("named:{}", &fingerprint[..DIGITS]), fields))
}

/// What simplestreams says of a product, out of the properties that LXD would make of it.
fn facts(properties: &BTreeMap<String, String>, architecture: &str, aliases: &[String]) -> Value {
    let property = |name: &str| properties.get(name).filter(|value| !value.is_empty());
    let description = property("description").or_else(|| property("name"));
    let mut fields = json!({"aliases": aliases.join(","), "arch": architecture});
    for (field, value) in [
        ("os", property("os").or(description)),
        ("release", property("release")),
        ("release_title", property("release_title").or_else(|| property("release"))),
        ("version", property("version")),
        ("variant", property("variant")),
    ] {
        value.into_iter().for_each(|value| fields[field] = json!(value));
    }
    let requirements: BTreeMap<&str, &String> =
        properties.iter().filter_map(|(name, value)| Some((name.strip_prefix("requirements.")?, value))).collect();
    if !requirements.is_empty() {
        fields["requirements"] = json!(requirements);
        fields["lxd_requirements"] = json!(requirements);
    }
    fields
}
