//! Reads one document, as far as is needed to say whether it is one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::http::path::StreamPath;
use crate::revalidation::refusal::Refusal;
use crate::signature;
use crate::simplestreams::images;
use crate::simplestreams::index::{self, Index, Kind};
use crate::simplestreams::object::Object;
use crate::simplestreams::products::{self, Product, Products};
use crate::simplestreams::updated;

/// What an index says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFacts {
    /// When it was made.
    pub updated: Option<Timestamp>,
    /// The documents that it names.
    pub wanted: Vec<Wanted>,
}

/// A document that an index names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is.
    pub path: StreamPath,
    /// What it is.
    pub kind: Kind,
    /// What it should call itself.
    pub content_id: String,
}

/// What a products document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductsFacts {
    /// When it was made.
    pub updated: Option<Timestamp>,
    /// How many images each product has; with `image-ids` and the like, how many items.
    pub census: BTreeMap<String, usize>,
}

/// Reads an index, or says why it is none.
pub fn read_index(path: &StreamPath, bytes: &[u8]) -> Result<IndexFacts, Refusal> {
    let text = text(path, bytes)?;
    let (index, _faults) = Index::parse(&text).map_err(|error| not_json(path, &error))?;
    check_format(path, &index.fields, index::FORMAT, ("index", index.has_entries()))?;
    let wanted = index.entries.iter().filter_map(|entry| {
        let path = entry.path().ok().flatten()?;
        Some(Wanted { path, kind: entry.kind(), content_id: entry.content_id.to_string() })
    });
    Ok(IndexFacts { updated: updated_of(&index.fields), wanted: wanted.collect() })
}

/// Reads a products document, or says why it is not the one that the index names.
pub fn read_products(wanted: &Wanted, bytes: &[u8]) -> Result<ProductsFacts, Refusal> {
    let path = &wanted.path;
    let text = text(path, bytes)?;
    let (document, _faults) = Products::parse(&text).map_err(|error| not_json(path, &error))?;
    check_format(path, &document.fields, products::FORMAT, ("products", document.has_products()))?;
    let content_id = document.fields.text_or_none("content_id").map(String::from);
    if let Some(actual) = content_id.filter(|actual| *actual != wanted.content_id) {
        return Err(Refusal::WrongContentId { path: path.clone(), expected: wanted.content_id.clone(), actual });
    }
    let census = document.products.iter().map(|product| (product.name.to_string(), count(product, wanted.kind)));
    Ok(ProductsFacts { updated: updated_of(&document.fields), census: census.collect() })
}

fn count(product: &Product<'_>, kind: Kind) -> usize {
    let versions = product.versions.iter();
    match kind {
        Kind::Images => versions.map(|version| images::of_version(&product.name, version).0.len()).sum(),
        Kind::Nested | Kind::Other => versions.map(|version| version.items.len()).sum(),
    }
}

fn text<'a>(path: &StreamPath, bytes: &'a [u8]) -> Result<Cow<'a, str>, Refusal> {
    signature::text(bytes).map_err(|error| Refusal::NotJson { path: path.clone(), reason: error.to_string() })
}

fn not_json(path: &StreamPath, error: &serde_json::Error) -> Refusal {
    Refusal::NotJson { path: path.clone(), reason: error.to_string() }
}

/// LXD checks no format, and some servers leave it out; so an absent one is taken if the content is there.
fn check_format(path: &StreamPath, fields: &Object<'_>, expected: &'static str, content: (&'static str, bool)) -> Result<(), Refusal> {
    let actual = fields.text_or_none("format").map(String::from);
    match (actual, content) {
        (Some(actual), _) if actual != expected => Err(Refusal::WrongFormat { path: path.clone(), expected, actual }),
        (None, (_, false)) => Err(Refusal::WrongFormat { path: path.clone(), expected, actual: String::new() }),
        (Some(_), (field, false)) => Err(Refusal::NoContent { path: path.clone(), field }),
        (_, (_, true)) => Ok(()),
    }
}

fn updated_of(fields: &Object<'_>) -> Option<Timestamp> {
    updated::parse(&fields.text_or_none("updated")?)
}

#[cfg(test)]
mod tests {
    use crate::http::path::StreamPath;
    use crate::revalidation::document::{Wanted, read_index, read_products};
    use crate::revalidation::refusal::Refusal;
    use crate::simplestreams::index::Kind;

    fn path() -> StreamPath {
        StreamPath::from_document("streams/v1/x.json").unwrap()
    }

    fn wanted() -> Wanted {
        Wanted { path: path(), kind: Kind::Images, content_id: "x".to_owned() }
    }

    /// T32
    #[test]
    fn what_is_no_index_is_refused() {
        for bytes in ["", "<html>captive portal</html>", "[]", "{\"index\":{", "\u{feff}{}"] {
            assert!(matches!(read_index(&path(), bytes.as_bytes()), Err(Refusal::NotJson { .. })), "{bytes}");
        }
        for bytes in ["{}", r#"{"format":"products:1.0","products":{}}"#, r#"{"format":"index:2.0","index":{}}"#] {
            assert!(matches!(read_index(&path(), bytes.as_bytes()), Err(Refusal::WrongFormat { .. })), "{bytes}");
        }
        for bytes in [r#"{"format":"index:1.0"}"#, r#"{"format":"index:1.0","index":null}"#, r#"{"format":"index:1.0","index":1}"#] {
            assert!(matches!(read_index(&path(), bytes.as_bytes()), Err(Refusal::NoContent { .. })), "{bytes}");
        }
        let deep = format!(r#"{{"index":{{}},"x":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
        assert!(read_index(&path(), deep.as_bytes()).is_ok(), "only the field is left out");
        assert!(read_index(&path(), br#"{"index":{},"x":"[[\"[["}"#).is_ok(), "a format may be left out");
    }

    /// T32
    #[test]
    fn what_is_not_the_document_that_the_index_names_is_refused() {
        assert!(matches!(read_products(&wanted(), b"<html>"), Err(Refusal::NotJson { .. })));
        assert!(matches!(read_products(&wanted(), &[0xff, 0xfe]), Err(Refusal::NotJson { .. })));
        assert!(matches!(read_products(&wanted(), br#"{"index":{},"format":"index:1.0"}"#), Err(Refusal::WrongFormat { .. })));
        assert!(matches!(read_products(&wanted(), br#"{"products":{},"content_id":"y"}"#), Err(Refusal::WrongContentId { .. })));
        assert!(read_products(&wanted(), br#"{"products":{},"content_id":"x"}"#).is_ok());
    }

    #[test]
    fn images_are_counted_by_product() {
        let bytes = br#"{"products":{"p":{"versions":{"20260101":{"items":{"u":{"ftype":"lxd_combined.tar.gz","sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"m":{"ftype":"manifest"}}}}},"q":{}}}"#;
        let facts = read_products(&wanted(), bytes).unwrap();
        assert_eq!(facts.census, [("p".to_owned(), 1), ("q".to_owned(), 0)].into());
        let ids = Wanted { kind: Kind::Other, ..wanted() };
        assert_eq!(read_products(&ids, bytes).unwrap().census["p"], 2);
    }
}
