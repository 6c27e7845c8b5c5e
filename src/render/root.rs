//! What is served at the root: all remotes together, so that one `lxc remote add` gives a host everything.
//!
//! Each path is prefixed with its remote's name and products documents get distinct basenames, since daemons cache by
//! basename. Two things cannot be had from two remotes at once: an alias (clients would take whichever serial is newer)
//! and a fingerprint (clients fail on duplicates). Both belong to the first remote that has them; [`ownership`] settles
//! that and [`split`] makes the products that say so.

pub mod ownership;
pub mod split;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use jiff::Timestamp;

use crate::http::path::StreamPath;
use crate::render::part::{Part, Ready};
use crate::render::root::ownership::{Ownership, Spot};
use crate::render::view::View;
use crate::simplestreams::index::{Entry, INDEX_PATH, Index};
use crate::simplestreams::object::{Object, write_children, write_name};
use crate::simplestreams::products::Product;
use crate::simplestreams::updated;

/// A remote's name and its products documents.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The name.
    pub name: &'a str,
    /// The documents.
    pub parts: &'a [Part],
}

/// Merges the documents of all remotes, in the order of `server.root`.
pub fn merge(remotes: &[Source<'_>]) -> Vec<Ready> {
    let ownership = Ownership::settle(&views(remotes));
    let mut merged = Merged::default();
    for (at, remote) in remotes.iter().enumerate() {
        for (number, part) in remote.parts.iter().enumerate() {
            let spot = Spot { remote: at, part: number, ..Spot::default() };
            let is_touched = (0..part.sheet.pieces.len()).any(|product| ownership.touches(Spot { product, ..spot }));
            merged.add(remote.name, part, &settled(part, spot, &ownership), is_touched);
        }
    }
    merged.finish()
}

/// Everything that clients see, in the order of the remotes.
fn views<'a>(remotes: &[Source<'a>]) -> Vec<(Spot, &'a View)> {
    let mut views = Vec::new();
    for (at, remote) in remotes.iter().enumerate() {
        for (number, part) in remote.parts.iter().enumerate() {
            let spot = |product| Spot { remote: at, part: number, product, ..Spot::default() };
            let pieces = part.sheet.pieces.iter().enumerate();
            views.extend(pieces.filter_map(|(product, piece)| piece.view.as_ref().map(|view| (spot(product), view))));
        }
    }
    views
}

/// A product's name and JSON.
type Settled<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The products of a part as ownership leaves them.
fn settled<'a>(part: &'a Part, spot: Spot, ownership: &Ownership) -> Vec<Settled<'a>> {
    let mut settled: Vec<Settled<'a>> = Vec::with_capacity(part.sheet.pieces.len());
    let mut names: BTreeSet<String> = part.sheet.pieces.iter().map(|piece| piece.name.clone()).collect();
    for (number, piece) in part.sheet.pieces.iter().enumerate() {
        let spot = Spot { product: number, ..spot };
        if !ownership.touches(spot) {
            settled.push((Cow::Borrowed(&piece.name), Cow::Borrowed(part.sheet.json(piece))));
        } else if let Ok(product) = Product::parse(&piece.name, part.sheet.json(piece)) {
            let products = split::split(product, spot, ownership, &mut names);
            settled.extend(products.into_iter().map(|product| (product.name.to_string().into(), product.to_json().into())));
        }
    }
    settled
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
    fn add(&mut self, remote: &str, part: &Part, products: &[Settled<'_>], is_touched: bool) {
        self.last_modified = self.last_modified.max(Some(part.last_modified));
        if products.is_empty() {
            return;
        }
        let content_id = self.free_content_id(remote, part);
        let path = self.free_path(remote, part.path.basename());
        let names: Vec<&str> = products.iter().map(|(name, _)| &**name).collect();
        let entry = self.entry(part, &path, &names);
        let stays = !is_touched && content_id == part.content_id;
        let bytes = if stays { part.sheet.text.clone() } else { document(part, &content_id, products).into() };
        self.entries.push((content_id, entry));
        self.documents.push(Ready { path, bytes, last_modified: part.last_modified });
    }

    /// The entry of upstream's index, with what is different here.
    fn entry(&mut self, part: &Part, path: &StreamPath, products: &[&str]) -> String {
        let mut fields = Object::parse(&part.entry).unwrap_or_default();
        fields.set("path", path.as_str());
        fields.set("products", products);
        let updated = fields.text_or_none("updated").and_then(|text| Some((updated::parse(&text)?, text.into_owned())));
        self.updated = updated.max(self.updated.take());
        fields.to_json()
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

/// A part's document with these products.
fn document(part: &Part, content_id: &str, products: &[Settled<'_>]) -> Vec<u8> {
    let mut fields = Object::parse(&part.sheet.fields).unwrap_or_default();
    if content_id != part.content_id && fields.get("content_id").is_some() {
        fields.set("content_id", content_id);
    }
    let len: usize = products.iter().map(|(name, text)| name.len() + text.len() + "\"\":,".len()).sum();
    let mut out = Vec::with_capacity(part.sheet.fields.len() + len + 64);
    fields.write(&mut out, Some(part.sheet.place), |out| {
        write_children(out, "products", products, |out, (name, text)| {
            write_name(out, name);
            out.extend_from_slice(text.as_bytes());
        });
    });
    out
}
