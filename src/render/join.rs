//! Joins what several bundles list of one remote into one set of documents.
//!
//! Each bundle lists what its own selection has. Where two of them list the same product, its versions stand side by side, and
//! the newest bundle says everything else of it. An alias is where the newest bundle has it: an older one may still give it to
//! what was the newest release then.

use bytes::Bytes;
use foldhash::{HashMap, HashSet};

use crate::digest::Claim;
use crate::http::path::StreamPath;
use crate::render::retain::merge;
use crate::simplestreams::file::ListedFile;
use crate::simplestreams::index::{Entry, INDEX_PATH, Index};
use crate::simplestreams::products::{Item, Product, Products, Version};
use crate::simplestreams::snapshot::{Role, Source};

/// An alias, with the architecture of the images that it means.
type Meaning = (String, String);

/// What is made of documents that the index calls the same.
struct Joined<'a> {
    entry: Entry<'a>,
    path: StreamPath,
    role: Role,
    document: Products<'a>,
}

/// Bundles, joined so far.
#[derive(Default)]
struct Work<'a> {
    joined: Vec<Joined<'a>>,
    /// The aliases of all bundles that are newer than the one that is added.
    taken: HashSet<Meaning>,
    /// What newer bundles have at each path.
    paths: HashMap<StreamPath, Claim>,
}

/// The documents of each bundle, the newest first, as one set. Those of a single one stay as they are.
pub fn join(bundles: &[Vec<Source>]) -> Vec<Source> {
    match bundles {
        [] => return nothing(),
        [only] => return only.clone(),
        _ => {}
    }
    let mut work = Work::default();
    bundles.iter().for_each(|bundle| work.add(bundle));
    work.finish()
}

impl<'a> Work<'a> {
    fn add(&mut self, bundle: &'a [Source]) {
        // What a bundle itself has twice is its own business.
        let (mut meanings, mut files) = (Vec::new(), Vec::new());
        for (entry, source) in entries(bundle) {
            let Some((mut document, _)) = text(source).and_then(|text| Products::parse(text).ok()) else { continue };
            for product in &mut document.products {
                product.versions.retain(|version| self.has_room(version));
                files.extend(product.versions.iter().flat_map(files_of));
                let arch = product.fields.text_or_none("arch").unwrap_or_default().into_owned();
                meanings.extend(product.aliases().into_iter().map(|alias| (alias, arch.clone())));
                keep_aliases(product, |alias| !self.taken.contains(&(alias.to_owned(), arch.clone())));
            }
            self.add_document(entry, source, document);
        }
        self.taken.extend(meanings);
        for file in files {
            self.paths.entry(file.path).or_insert(file.expected.claim);
        }
    }

    /// Whether nothing newer has something else at the paths of a version: there can be one file at each.
    fn has_room(&self, version: &Version<'_>) -> bool {
        files_of(version).iter().all(|file| self.paths.get(&file.path).is_none_or(|claim| *claim == file.expected.claim))
    }

    /// Adds a document of a bundle to what newer ones have.
    fn add_document(&mut self, entry: Entry<'a>, source: &Source, document: Products<'a>) {
        let Some(newer) = self.joined.iter_mut().find(|newer| newer.entry.content_id == entry.content_id) else {
            let path = self.free_path(&source.path);
            let mut entry = entry;
            entry.fields.set("path", path.as_str());
            self.joined.push(Joined { entry, path, role: source.role, document });
            return;
        };
        for product in document.products {
            match newer.document.products.iter_mut().find(|other| other.name == product.name) {
                Some(known) => add_versions(known, product),
                None => newer.document.products.push(product),
            }
        }
    }

    /// The path itself, or one beside it if another document is there.
    fn free_path(&self, path: &StreamPath) -> StreamPath {
        let is_taken = |path: &StreamPath| self.joined.iter().any(|other| other.path == *path);
        let stem = path.as_str().strip_suffix(".json").unwrap_or(path.as_str());
        let others = (2..).map_while(|number| StreamPath::from_document(&format!("{stem}.{number}.json")).ok());
        std::iter::once(path.clone()).chain(others).find(|path| !is_taken(path)).unwrap_or_else(|| path.clone())
    }

    fn finish(self) -> Vec<Source> {
        let mut index = Index::empty();
        let mut sources = Vec::new();
        for Joined { mut entry, path, role, document } in self.joined {
            let names: Vec<&str> = document.products.iter().map(|product| &*product.name).collect();
            entry.fields.set("products", &names);
            index.entries.push(entry);
            sources.push(Source::new(path, role, Bytes::from(document.to_json())));
        }
        let path = StreamPath::from_document(INDEX_PATH).expect("the path of the index is a path");
        sources.insert(0, Source::new(path, Role::Index, Bytes::from(index.to_json())));
        sources
    }
}

/// A set that lists nothing, with a document for what a person keeps all the same.
fn nothing() -> Vec<Source> {
    let document = r#"{"format":"products:1.0","content_id":"images","datatype":"image-downloads","products":{}}"#;
    let entry = r#"{"format":"products:1.0","datatype":"image-downloads","path":"streams/v1/images.json","products":[]}"#;
    let index = format!(r#"{{"format":"index:1.0","index":{{"images":{entry}}}}}"#);
    let source = |path: &str, role, text: String| Some(Source::new(StreamPath::from_document(path).ok()?, role, text.into()));
    let sources = [source(INDEX_PATH, Role::Index, index), source("streams/v1/images.json", Role::Images, document.to_owned())];
    sources.into_iter().flatten().collect()
}

/// What the indexes of a bundle name, and is there.
fn entries(bundle: &[Source]) -> Vec<(Entry<'_>, &Source)> {
    let indexes = bundle.iter().filter(|source| source.role == Role::Index).filter_map(text);
    let entries = indexes.filter_map(|text| Index::parse(text).ok()).flat_map(|(index, _)| index.entries);
    entries.filter_map(|entry| Some((document_of(bundle, &entry)?, entry))).map(|(source, entry)| (entry, source)).collect()
}

fn document_of<'a>(bundle: &'a [Source], entry: &Entry<'_>) -> Option<&'a Source> {
    let path = StreamPath::from_document(&entry.fields.text_or_none("path")?).ok()?;
    bundle.iter().find(|source| source.path == path && matches!(source.role, Role::Images | Role::Other))
}

fn text(source: &Source) -> Option<&str> {
    std::str::from_utf8(&source.bytes).ok()
}

fn keep_aliases(product: &mut Product<'_>, is_kept: impl Fn(&str) -> bool) {
    let aliases = product.aliases();
    let kept: Vec<&str> = aliases.iter().map(String::as_str).filter(|alias| is_kept(alias)).collect();
    if kept.len() == aliases.len() {
        return;
    }
    if kept.is_empty() {
        product.fields.remove("aliases");
    } else {
        product.fields.set("aliases", &kept.join(","));
    }
}

/// Adds the versions of an older bundle's product. Of a version that was made anew under its old name there is the newer one.
fn add_versions<'a>(known: &mut Product<'a>, older: Product<'a>) {
    for version in older.versions {
        match known.versions.iter_mut().find(|other| other.name == version.name) {
            Some(other) if differs(other, &version) => {}
            Some(other) => merge(other, &version.items),
            None => known.versions.push(version),
        }
    }
}

fn files_of(version: &Version<'_>) -> Vec<ListedFile> {
    version.items.iter().filter_map(|item| ListedFile::of_item(&item.fields).ok().flatten()).collect()
}

/// Whether two versions of one name have other files under the same names.
fn differs(one: &Version<'_>, other: &Version<'_>) -> bool {
    let claim = |item: &Item<'_>| ListedFile::of_item(&item.fields).ok().flatten().map(|file| file.expected.claim);
    let same = |item: &&Item<'_>| one.items.iter().any(|there| there.name == item.name && claim(there) != claim(item));
    other.items.iter().any(|item| same(&item))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::digest::Digest;
    use crate::http::path::StreamPath;
    use crate::render::join::join;
    use crate::revalidation::census::Census;
    use crate::simplestreams::snapshot::{Role, Snapshot, Source};

    fn source(path: &str, role: Role, value: &Value) -> Source {
        Source::new(StreamPath::from_document(path).unwrap(), role, value.to_string().into())
    }

    fn index(products: &[&str]) -> Source {
        let entry = json!({"datatype": "image-downloads", "path": "streams/v1/images.json", "products": products});
        source("streams/v1/index.json", Role::Index, &json!({"format": "index:1.0", "index": {"images": entry}}))
    }

    fn version(name: &str, root: &str) -> Value {
        let digest = Digest::of(name.as_bytes()).to_string();
        json!({"items": {
            "m": {"ftype": "lxd.tar.xz", "path": format!("{name}/meta"), "sha256": digest, "size": 1, "combined_squashfs_sha256": digest, "combined_disk-kvm-img_sha256": digest},
            root: {"ftype": root, "path": format!("{name}/{root}"), "sha256": digest, "size": 2},
        }})
    }

    fn product(aliases: &str, versions: &[(&str, &str)]) -> Value {
        let versions: serde_json::Map<String, Value> =
            versions.iter().map(|(name, root)| ((*name).to_owned(), version(name, root))).collect();
        json!({"aliases": aliases, "arch": "amd64", "versions": versions})
    }

    fn bundle(products: &[(&str, Value)]) -> Vec<Source> {
        let names: Vec<&str> = products.iter().map(|(name, _)| *name).collect();
        let products: serde_json::Map<String, Value> = products.iter().map(|(name, of)| ((*name).to_owned(), of.clone())).collect();
        let document = json!({"format": "products:1.0", "content_id": "images", "products": products});
        vec![index(&names), source("streams/v1/images.json", Role::Images, &document)]
    }

    fn joined(bundles: &[Vec<Source>]) -> (Value, Value) {
        let sources = join(bundles);
        let snapshot = Snapshot { url: String::new(), accepted_at: jiff::Timestamp::UNIX_EPOCH, documents: sources.clone() };
        Census::of(&snapshot).unwrap();
        let read = |place: usize| sources.get(place).map_or(Value::Null, |source: &Source| serde_json::from_slice(&source.bytes).unwrap());
        (read(0), read(1)["products"].clone())
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn one_bundle_stays_as_it_is_and_none_lists_nothing() {
        let only = bundle(&[("a", product("x", &[("20260101", "squashfs")]))]);
        assert_eq!(join(std::slice::from_ref(&only)), only);
        let (index, products) = joined(&[]);
        assert_eq!((index["index"]["images"]["products"].clone(), products), (json!([]), json!({})));
    }

    #[test]
    fn products_and_versions_stand_side_by_side_and_the_newest_bundle_says_the_rest() {
        let newer = bundle(&[("a", product("x,new", &[("20260102", "squashfs")]))]);
        let older = bundle(&[("a", product("x", &[("20260101", "squashfs")])), ("b", product("y", &[("20260101", "squashfs")]))]);
        let (index, products) = joined(&[newer.clone(), older.clone()]);
        assert_eq!(index["index"]["images"]["products"], json!(["a", "b"]));
        assert_eq!((keys(&products["a"]["versions"]), &products["a"]["aliases"]), (vec!["20260101", "20260102"], &json!("x,new")));
        assert_eq!(products["b"]["aliases"], json!("y"));
        assert_eq!(join(&[newer.clone(), older.clone()]), join(&[newer, older]), "the same bundles give the same bytes");
    }

    #[test]
    fn types_of_one_version_come_together_again() {
        let containers = bundle(&[("a", product("x", &[("20260101", "squashfs")]))]);
        let machines = bundle(&[("a", product("x", &[("20260101", "disk-kvm.img")]))]);
        let (_, products) = joined(&[containers, machines]);
        assert_eq!(keys(&products["a"]["versions"]["20260101"]["items"]), ["disk-kvm.img", "m", "squashfs"]);
    }

    #[test]
    fn an_alias_is_where_the_newest_bundle_has_it() {
        let newer = bundle(&[("noble", product("lts,24.04", &[("20260102", "squashfs")]))]);
        let older =
            bundle(&[("jammy", product("lts,22.04", &[("20260101", "squashfs")])), ("old", product("lts", &[("20260101", "squashfs")]))]);
        let (_, products) = joined(&[newer.clone(), older]);
        let aliases = |name: &str| products[name]["aliases"].clone();
        assert_eq!([aliases("noble"), aliases("jammy"), aliases("old")], [json!("lts,24.04"), json!("22.04"), Value::Null]);
        let mut far = bundle(&[("jammy:arm64", product("lts", &[("20260101", "squashfs")]))]);
        let text = String::from_utf8(far[1].bytes.to_vec()).unwrap().replace("amd64\"", "arm64\"");
        far[1] = Source::new(far[1].path.clone(), Role::Images, text.into());
        let (_, products) = joined(&[newer, far]);
        assert_eq!(products["jammy:arm64"]["aliases"], "lts", "for another machine it means another image");
    }

    #[test]
    fn what_newer_bundles_have_something_else_at_the_path_of_is_listed_no_more() {
        let at = |product: &str, serial: &str| {
            let text = json!({"format": "products:1.0", "products": {product: {"arch": "amd64", "versions": {serial: version(serial, "squashfs")}}}});
            let text = text.to_string().replace(&format!("{serial}/"), "cur/");
            vec![index(&[product]), Source::new(StreamPath::from_document("streams/v1/images.json").unwrap(), Role::Images, text.into())]
        };
        let (_, products) = joined(&[at("a", "20260102"), at("a", "20260101"), at("b", "20260103")]);
        assert_eq!(keys(&products["a"]["versions"]), ["20260102"]);
        assert_eq!(products["b"]["versions"], json!({}));
    }

    #[test]
    fn two_documents_of_one_path_stand_beside_each_other() {
        let one = bundle(&[("a", product("x", &[("20260101", "squashfs")]))]);
        let mut other = bundle(&[("b", product("y", &[("20260102", "squashfs")]))]);
        let renamed = |source: &Source| {
            let text = String::from_utf8(source.bytes.to_vec()).unwrap();
            Source::new(source.path.clone(), source.role, text.replace("\"images\"", "\"others\"").into())
        };
        other = other.iter().map(renamed).collect();
        let sources = join(&[one, other]);
        let paths: Vec<&str> = sources.iter().map(|source| source.path.as_str()).collect();
        assert_eq!(paths, ["streams/v1/index.json", "streams/v1/images.json", "streams/v1/images.2.json"]);
        let snapshot = Snapshot { url: String::new(), accepted_at: jiff::Timestamp::UNIX_EPOCH, documents: sources };
        assert_eq!(Census::of(&snapshot).unwrap().total(), 2);
    }

    #[test]
    fn of_a_version_that_was_made_anew_there_is_the_newer_one() {
        let [newer, older] = ["squashfs", "disk-kvm.img"].map(|root| bundle(&[("a", product("x", &[("20260101", root)]))]));
        let text = String::from_utf8(older[1].bytes.to_vec())
            .unwrap()
            .replace(&Digest::of(b"20260101").to_string(), &Digest::of(b"x").to_string());
        let anew = vec![older[0].clone(), Source::new(older[1].path.clone(), Role::Images, text.into())];
        let (_, products) = joined(&[newer.clone(), anew]);
        let (_, alone) = joined(&[newer]);
        assert_eq!(products["a"]["versions"], alone["a"]["versions"]);
    }
}
