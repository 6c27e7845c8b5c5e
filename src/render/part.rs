//! What the root takes from a remote.
//!
//! A remote's products are made ready for the root when the remote is rendered: together they are merged anew whenever
//! any remote changes, and then there should be little left to do.

use bytes::Bytes;
use jiff::Timestamp;
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

use crate::http::path::StreamPath;
use crate::render::twins;
use crate::render::view::View;
use crate::simplestreams::index::Entry;
use crate::simplestreams::object::Object;
use crate::simplestreams::products::{Product, Products};
use crate::simplestreams::snapshot::Role;

/// A document that may go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Its path below the remote's name, or below the root.
    pub path: StreamPath,
    /// Its bytes.
    pub bytes: Bytes,
    /// When what it was made of was taken from upstream.
    pub last_modified: Timestamp,
}

/// A products document of a remote, in pieces, with what the index says of it.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its path below the remote's name.
    pub path: StreamPath,
    /// When it was taken from upstream.
    pub last_modified: Timestamp,
    /// Its key in the index.
    pub content_id: String,
    /// Its entry in the index, as JSON.
    pub entry: String,
    /// Its products.
    pub sheet: Sheet,
}

/// A products document in pieces.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// Its fields but for `products`, as JSON.
    pub fields: String,
    /// Where `products` stands among them.
    pub place: usize,
    /// Its products.
    pub pieces: Vec<Piece>,
}

/// A product as it stands at the root, if it keeps all its images and aliases.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its key.
    pub name: String,
    /// The product as JSON.
    pub text: String,
    /// What clients see of it; `None` if they see nothing.
    pub view: Option<View>,
}

impl Part {
    /// A document of which the index has this entry.
    pub fn new(path: StreamPath, last_modified: Timestamp, entry: &Entry<'_>, sheet: Sheet) -> Self {
        Self { path, last_modified, content_id: entry.content_id.to_string(), entry: entry.fields.to_json(), sheet }
    }
}

impl Sheet {
    /// Makes a document of a remote ready for the root.
    pub fn new(document: Products<'_>, role: Role, remote: &str) -> Self {
        let (fields, place) = (document.fields.to_json(), document.place().unwrap_or(document.fields.len()));
        let pieces = document.products.into_par_iter().map(|product| Piece::new(product, role, remote)).collect();
        Self { fields, place, pieces }
    }
}

impl Piece {
    /// Makes a product of a remote ready for the root: paths begin with the remote's name, and requirements are given
    /// under both keys.
    pub fn new(mut product: Product<'_>, role: Role, remote: &str) -> Self {
        let view = if role == Role::Images { View::of(&product) } else { None };
        if role == Role::Images {
            twins::add_requirements(&mut product);
        }
        let items = product.versions.iter_mut().flat_map(|version| &mut version.items);
        items.for_each(|item| prefix_path(&mut item.fields, remote));
        Self { name: product.name.to_string(), text: product.to_json(), view }
    }
}

fn prefix_path(item: &mut Object<'_>, remote: &str) {
    let path = item.text_or_none("path").and_then(|path| StreamPath::from_document(&path).ok());
    if let Some(path) = path {
        item.set("path", path.below(remote).as_str());
    }
}
