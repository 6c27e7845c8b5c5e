//! `index:1.0`: which products documents an image server has.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::http::path::StreamPath;
use crate::simplestreams::fault::{Fault, Reason};
use crate::simplestreams::object::{Object, write_children, write_name};
use crate::simplestreams::tree::{self, Level, Node};

/// The path of the index that every client asks for first.
pub const INDEX_PATH: &str = "streams/v1/index.json";
/// The same, signed.
pub const SIGNED_INDEX_PATH: &str = "streams/v1/index.sjson";
/// The `format` of an index.
pub const FORMAT: &str = "index:1.0";
/// The `datatype` of what LXD and Incus read.
pub const IMAGE_DOWNLOADS: &str = "image-downloads";

/// An index document.
#[derive(Debug)]
pub struct Index<'a> {
    /// Its fields but for `index`.
    pub fields: Object<'a>,
    /// Its entries, in their order.
    pub entries: Vec<Entry<'a>>,
    place: Option<usize>,
}

/// An entry of an index.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Its key: the content id of the document that it names.
    pub content_id: Cow<'a, str>,
    /// Its fields.
    pub fields: Object<'a>,
}

/// What an entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A products document of images for LXD and Incus.
    Images,
    /// Another index.
    Nested,
    /// A document for others, mirrored as it is.
    Other,
}

impl<'a> Index<'a> {
    /// Reads an index. Entries that make no sense are left out, with the reason.
    pub fn parse(text: &'a str) -> serde_json::Result<(Self, Vec<Fault>)> {
        let (Node { fields, children, place }, faults) = tree::read(text, "index")?;
        Ok((Self { fields, entries: children, place }, faults))
    }

    /// An index of ours with nothing in it.
    pub fn empty() -> Self {
        let mut fields = Object::default();
        fields.set("format", FORMAT);
        Self { fields, entries: Vec::new(), place: Some(1) }
    }

    /// Whether it has a list of entries at all, be it an empty one.
    pub fn has_entries(&self) -> bool {
        self.place.is_some()
    }

    /// The index as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.fields.write(&mut out, self.place, |out| {
            write_children(out, "index", &self.entries, |out, entry| {
                write_name(out, &entry.content_id);
                entry.fields.write(out, None, |_| {});
            });
        });
        out
    }
}

impl<'a> Level<'a> for Entry<'a> {
    const CHILDREN: Option<&'static str> = None;
    type Child = Self;

    fn new(content_id: Cow<'a, str>, node: Node<'a, Self>) -> Self {
        Self { content_id, fields: node.fields }
    }

    fn name(&self) -> &str {
        &self.content_id
    }
}

impl Entry<'_> {
    /// The path of the document that it names.
    pub fn path(&self) -> Result<Option<StreamPath>, Reason> {
        let path = self.fields.text("path")?;
        path.map(|path| StreamPath::from_document(&path).map_err(Reason::Path)).transpose()
    }

    /// Whether it lists products: clients skip an entry that lists none, and never ask for its document.
    fn has_products(&self) -> bool {
        let listed = |products: &RawValue| !products.get().trim_matches(['[', ']', ' ', '\n', '\t', '\r']).is_empty();
        self.fields.get("products").is_some_and(listed)
    }

    /// What it names. LXD goes by `datatype` alone and never by `format`.
    pub fn kind(&self) -> Kind {
        let field = |name| self.fields.text_or_none(name).unwrap_or_default();
        if field("format") == FORMAT {
            Kind::Nested
        } else if field("datatype") == IMAGE_DOWNLOADS && self.has_products() {
            Kind::Images
        } else {
            Kind::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::simplestreams::fault::Reason;
    use crate::simplestreams::index::{Index, Kind};

    const TEXT: &str = r#"{"index":{"a":{"datatype":"image-downloads","path":"streams/v1/a.json","products":["p"],"x":[1]},"b":{"datatype":"image-ids"},"c":{"format":"index:1.0","path":"streams/v1/c.json"}},"format":"index:1.0","y":0}"#;

    #[test]
    fn entries_are_read_by_their_kind_and_written_as_they_came() {
        let (index, faults) = Index::parse(TEXT).unwrap();
        assert_eq!(faults, []);
        let kinds: Vec<_> = index.entries.iter().map(|entry| (entry.kind(), entry.path().unwrap().map(|path| path.to_string()))).collect();
        assert_eq!(
            kinds,
            [
                (Kind::Images, Some("streams/v1/a.json".to_owned())),
                (Kind::Other, None),
                (Kind::Nested, Some("streams/v1/c.json".to_owned()))
            ]
        );
        assert_eq!(String::from_utf8(index.to_json()).unwrap(), TEXT);
    }

    #[test]
    fn an_entry_that_makes_no_sense_is_left_out_alone() {
        let (index, faults) = Index::parse(r#"{"index":{"a":7,"b":{"path":"../x"}}}"#).unwrap();
        assert_eq!(faults.len(), 1);
        assert_eq!(index.entries.len(), 1);
        assert!(matches!(index.entries[0].path(), Err(Reason::Path(_))));
        assert!(Index::parse("<html>").is_err());
        assert!(Index::parse("[]").is_err());
        assert_eq!(Index::parse(r#"{"index":[]}"#).unwrap().1.len(), 1);
    }
}
