//! What the root takes from a remote.
//!
//! A remote's products are made ready for the root when the remote is rendered: together they are merged anew whenever
//! any remote changes, and then there should be little left to do.

use std::ops::Range;

use bytes::Bytes;
use jiff::Timestamp;

use crate::http::path::StreamPath;
use crate::render::view::View;
use crate::simplestreams::index::Entry;
use crate::simplestreams::object::{Object, separate, write_name};
use crate::simplestreams::outline::Unfinished;
use crate::simplestreams::products::Product;
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

/// A products document as it stands at the root, if every product keeps all its images and aliases.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// The whole of it.
    pub text: Bytes,
    /// Its fields but for `products`, as JSON.
    pub fields: String,
    /// Where `products` stands among them.
    pub place: usize,
    /// Its products.
    pub pieces: Vec<Piece>,
}

/// A sheet that gets its products some at a time.
#[derive(Debug)]
pub struct UnfinishedSheet {
    text: Unfinished,
    fields: String,
    place: usize,
    pieces: Vec<Piece>,
}

/// A product of a sheet.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its key.
    pub name: String,
    /// What clients see of it; `None` if they see nothing.
    pub view: Option<View>,
    /// Where its JSON is in the text.
    span: Range<usize>,
}

/// Some products of a sheet, one after the other.
#[derive(Debug, Default)]
pub struct Strip {
    text: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Part {
    /// A document of which the index has this entry.
    pub fn new(path: StreamPath, last_modified: Timestamp, entry: &Entry<'_>, sheet: Sheet) -> Self {
        Self { path, last_modified, content_id: entry.content_id.to_string(), entry: entry.fields.to_json(), sheet }
    }
}

impl UnfinishedSheet {
    /// A document whose fields these are; `products` stands at this place among them. What it gets has room for so many bytes.
    pub fn new(document: &Object<'_>, place: Option<usize>, room: usize) -> Self {
        let text = Unfinished::new(document, place, room);
        Self { text, fields: document.to_json(), place: place.unwrap_or(document.len()), pieces: Vec::new() }
    }

    /// Adds products.
    pub fn add(&mut self, strip: Strip) {
        if !strip.pieces.is_empty() {
            let start = self.text.add_written(&strip.text);
            self.pieces.extend(strip.pieces.into_iter().map(|piece| piece.moved_by(start)));
        }
    }

    /// The whole sheet.
    pub fn finish(self) -> Sheet {
        Sheet { text: self.text.finish().into(), fields: self.fields, place: self.place, pieces: self.pieces }
    }
}

impl Sheet {
    /// A product as JSON.
    pub fn json(&self, piece: &Piece) -> &str {
        std::str::from_utf8(&self.text[piece.span.clone()]).expect("JSON is written as UTF-8")
    }
}

impl Strip {
    /// Makes room for so many bytes more.
    pub fn reserve(&mut self, len: usize) {
        self.text.reserve(len);
    }

    /// Makes a product ready for the root: its paths begin with the remote's name.
    pub fn add(&mut self, product: &Product<'_>, role: Role, remote: &str) {
        let view = if role == Role::Images { View::of(product) } else { None };
        if !self.pieces.is_empty() {
            separate(&mut self.text);
        }
        write_name(&mut self.text, &product.name);
        let start = self.text.len();
        product.write(&mut self.text, &|item, out| item.write_below(out, remote));
        self.pieces.push(Piece { name: product.name.to_string(), view, span: start..self.text.len() });
    }
}

impl Piece {
    fn moved_by(self, start: usize) -> Self {
        Self { span: self.span.start + start..self.span.end + start, ..self }
    }
}

#[cfg(test)]
mod tests {
    use crate::render::part::{Sheet, Strip, UnfinishedSheet};
    use crate::simplestreams::products::Products;
    use crate::simplestreams::snapshot::Role;

    const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";

    fn sheet(text: &str) -> Sheet {
        let (mut document, faults) = Products::parse(text).unwrap();
        assert_eq!(faults, []);
        for item in document.products.iter_mut().flat_map(|product| &mut product.versions).flat_map(|version| &mut version.items) {
            item.read_file().unwrap();
        }
        // Two strips, as if they had been made side by side.
        let (first, last) = document.products.split_at(document.products.len() / 2);
        let mut sheet = UnfinishedSheet::new(&document.fields, document.place(), 0);
        for products in [first, last] {
            let mut strip = Strip::default();
            products.iter().for_each(|product| strip.add(product, Role::Images, "far"));
            sheet.add(strip);
        }
        sheet.finish()
    }

    fn document(path: &str) -> String {
        format!(r#"{{"a":1,"products":{{"p\"q":{{"versions":{{"1":{{"items":{{"i":{{"path":{path},"md5":"{MD5}"}}}}}}}}}}}},"b":[2]}}"#)
    }

    #[test]
    fn paths_begin_with_the_remotes_name_however_they_are_written() {
        for (path, expected) in [
            (r#""x/y""#, r#""far/x/y""#),
            (r#""x\/y""#, r#""far/x/y""#),
            (r#""/x//./y""#, r#""far/x/y""#),
            (r#""x\u0020y""#, r#""far/x y""#),
            (r#""\u00e9""#, r#""far/é""#),
            (r#""x\"y""#, r#""far/x\"y""#),
            (r#""x","path":"y""#, r#""far/y","path":"far/y""#),
        ] {
            assert_eq!(std::str::from_utf8(&sheet(&document(path)).text).unwrap(), document(expected));
        }
    }

    #[test]
    fn each_piece_is_where_its_product_is() {
        let products: Vec<String> = (0..300).map(|number| format!(r#""p{number}":{{"x":{number}}}"#)).collect();
        let text = format!(r#"{{"products":{{{}}},"last":true}}"#, products.join(","));
        let sheet = sheet(&text);
        assert_eq!(sheet.text, text);
        for (number, piece) in sheet.pieces.iter().enumerate() {
            assert_eq!((piece.name.clone(), sheet.json(piece)), (format!("p{number}"), &*format!(r#"{{"x":{number}}}"#)));
        }
        assert_eq!(self::sheet(r#"{"products":{},"x":1}"#).text, r#"{"products":{},"x":1}"#);
    }
}
