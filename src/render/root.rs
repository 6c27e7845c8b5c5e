//! What is served at the root: all remotes together, so that one `lxc remote add` gives a host everything.
//!
//! Each path is prefixed with its remote's name and products documents get distinct basenames, since daemons cache by
//! basename. Two things cannot be had from two remotes at once: an alias (clients would take whichever serial is newer)
//! and a fingerprint (clients fail on duplicates). Both belong to the first remote that has them; [`ownership`] settles
//! that and [`split`] makes the products that say so.

pub mod ownership;
pub mod split;

use std::collections::HashSet;

use jiff::Timestamp;

use crate::http::path::StreamPath;
use crate::render::remote::{Part, Ready, text};
use crate::render::root::ownership::{Ownership, Spot, Surveyed};
use crate::render::twins;
use crate::simplestreams::index::{Entry, INDEX_PATH, Index};
use crate::simplestreams::object::Object;
use crate::simplestreams::products::Products;
use crate::simplestreams::snapshot::Role;
use crate::simplestreams::updated;

/// A remote's name and its products documents, as they are served under that name.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The name.
    pub name: &'a str,
    /// The documents.
    pub parts: &'a [Part],
}

/// Merges the documents of all remotes, in the order of `server.root`.
pub fn merge(remotes: &[Source<'_>]) -> Vec<Ready> {
    let texts: Vec<Vec<_>> = remotes.iter().map(|remote| remote.parts.iter().map(|part| text(&part.document.bytes)).collect()).collect();
    let documents: Vec<Vec<_>> = texts.iter().map(|texts| texts.iter().map(|text| parse(text.as_deref())).collect()).collect();
    let ownership = Ownership::settle(&survey(remotes, &documents));
    let mut merged = Merged::default();
    for (at, (remote, documents)) in remotes.iter().zip(documents).enumerate() {
        for (number, (part, document)) in remote.parts.iter().zip(documents).enumerate() {
            let Some(mut document) = document else { continue };
            if part.role == Role::Images {
                split::split(&mut document, Spot { remote: at, part: number, ..Spot::default() }, &ownership);
                twins::add_requirements(&mut document);
            }
            merged.add(remote.name, part, document);
        }
    }
    merged.finish()
}

fn parse(text: Option<&str>) -> Option<Products<'_>> {
    Products::parse(text?).ok().map(|(document, _)| document)
}

/// Every product that a client can see, in the order of the remotes.
fn survey(remotes: &[Source<'_>], documents: &[Vec<Option<Products<'_>>>]) -> Vec<Surveyed> {
    let mut surveyed = Vec::new();
    for (at, (remote, documents)) in remotes.iter().zip(documents).enumerate() {
        for (number, (part, document)) in remote.parts.iter().zip(documents).enumerate() {
            if let Some(document) = document.as_ref().filter(|_| part.role == Role::Images) {
                ownership::survey(document, Spot { remote: at, part: number, ..Spot::default() }, &mut surveyed);
            }
        }
    }
    surveyed
}

#[derive(Default)]
struct Merged {
    documents: Vec<Ready>,
    /// Key, JSON of the entry, for the index.
    entries: Vec<(String, String)>,
    content_ids: HashSet<String>,
    names: HashSet<StreamPath>,
    updated: Option<(Timestamp, String)>,
    last_modified: Option<Timestamp>,
}

impl Merged {
    fn add(&mut self, remote: &str, part: &Part, mut document: Products<'_>) {
        self.last_modified = self.last_modified.max(Some(part.document.last_modified));
        if document.products.is_empty() {
            return;
        }
        prefix_paths(&mut document, remote);
        let content_id = self.free_content_id(remote, part);
        if content_id != part.content_id && document.fields.get("content_id").is_some() {
            document.fields.set("content_id", &content_id);
        }
        let path = self.free_path(remote, part.document.path.basename());
        let names: Vec<&str> = document.products.iter().map(|product| &*product.name).collect();
        let entry = self.entry(part, &path, &names);
        self.entries.push((content_id, entry));
        self.documents.push(Ready { path, bytes: document.to_json().into(), last_modified: part.document.last_modified });
    }

    /// The entry of upstream's index, with what is different here.
    fn entry(&mut self, part: &Part, path: &StreamPath, products: &[&str]) -> String {
        let mut fields = Object::parse(&part.entry).unwrap_or_default();
        fields.set("path", path.as_str());
        fields.set("products", products);
        let updated = fields.text_or_none("updated").and_then(|text| Some((updated::parse(&text)?, text.into_owned())));
        self.updated = updated.max(self.updated.take());
        let mut json = Vec::new();
        fields.write(&mut json, None, |_| {});
        String::from_utf8_lossy(&json).into_owned()
    }

    /// The content id, unless a remote before this one has it too.
    fn free_content_id(&mut self, remote: &str, part: &Part) -> String {
        let wanted = part.content_id.clone();
        let numbered = (2..).map(|number| format!("{wanted}:{remote}:{number}"));
        let mut names = [wanted.clone(), format!("{wanted}:{remote}")].into_iter().chain(numbered);
        names.find(|name| self.content_ids.insert(name.clone())).unwrap_or(wanted)
    }

    fn free_path(&mut self, remote: &str, basename: &str) -> StreamPath {
        let numbered = (2..).map(|number| format!("streams/v1/{remote}.{number}.{basename}"));
        let names = std::iter::once(format!("streams/v1/{remote}.{basename}")).chain(numbered);
        let mut paths = names.filter_map(|name| StreamPath::from_document(&name).ok());
        paths.find(|path| self.names.insert(path.clone())).expect("a numbered name is free sooner or later")
    }

    fn finish(self) -> Vec<Ready> {
        let mut index = Index::empty();
        if let Some((_, updated)) = &self.updated {
            index.fields.set("updated", updated);
        }
        index.entries = self
            .entries
            .iter()
            .map(|(content_id, entry)| Entry { content_id: content_id.into(), fields: Object::parse(entry).unwrap_or_default() })
            .collect();
        let path = StreamPath::from_document(INDEX_PATH).expect("the index's path is a path");
        let last_modified = self.last_modified.unwrap_or(Timestamp::UNIX_EPOCH);
        let mut documents = self.documents;
        documents.push(Ready { path, bytes: index.to_json().into(), last_modified });
        documents
    }
}

fn prefix_paths(document: &mut Products<'_>, remote: &str) {
    let versions = document.products.iter_mut().flat_map(|product| &mut product.versions);
    for item in versions.flat_map(|version| &mut version.items) {
        let path = item.fields.text_or_none("path").and_then(|path| StreamPath::from_document(&path).ok());
        if let Some(path) = path {
            item.fields.set("path", path.below(remote).as_str());
        }
    }
}
