//! Reads one document, as far as is needed to say whether it is one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use crate::http::path::StreamPath;
use crate::revalidation::refusal::Refusal;
use crate::signature;
use crate::simplestreams::digestible;
use crate::simplestreams::images;
use crate::simplestreams::index::{self, Index, Kind};
use crate::simplestreams::object::Object;
use crate::simplestreams::products::{self, Item, Product, Version};
use crate::simplestreams::snapshot::Source;
use crate::simplestreams::tree::Unread;
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
    /// How many images each product has that can be listed; with `image-ids` and the like, how many items.
    pub census: BTreeMap<String, usize>,
}

/// Reads an index, or says why it is none.
pub fn read_index(path: &StreamPath, bytes: &[u8]) -> Result<IndexFacts, Refusal> {
    let text = signature::text(bytes).map_err(|error| not_json(path, &error))?;
    let (index, _faults) = Index::parse(&text).map_err(|error| not_json(path, &error))?;
    check_format(path, &index.fields, index::FORMAT, ("index", index.has_entries()))?;
    let wanted = index.entries.iter().filter_map(|entry| {
        let path = entry.path().ok().flatten()?;
        Some(Wanted { path, kind: entry.kind(), content_id: entry.content_id.to_string() })
    });
    Ok(IndexFacts { updated: updated_of(&index.fields), wanted: wanted.collect() })
}

/// Reads a products document, or says why it is not the one that the index names.
pub fn read_products(wanted: &Wanted, source: &Source) -> Result<ProductsFacts, Refusal> {
    let path = &wanted.path;
    let text = source.text().map_err(|error| not_json(path, &error))?;
    let (document, _faults) = source.outline(&text).map_err(|error| not_json(path, &error))?;
    check_format(path, &document.fields, products::FORMAT, ("products", document.place.is_some()))?;
    let content_id = document.fields.text_or_none("content_id").map(String::from);
    if let Some(actual) = content_id.filter(|actual| *actual != wanted.content_id) {
        return Err(Refusal::WrongContentId { path: path.clone(), expected: wanted.content_id.clone(), actual });
    }
    let count = |unread: &Unread<'_>| unread.read().0.map_or(0, |product| count(&product, wanted.kind));
    let census = document.products.par_iter().map(|unread| (unread.name.to_string(), count(unread)));
    Ok(ProductsFacts { updated: updated_of(&document.fields), census: census.collect() })
}

fn count(product: &Product<'_>, kind: Kind) -> usize {
    match kind {
        Kind::Images => count_images(product),
        Kind::Nested | Kind::Other => product.versions.iter().map(|version| version.items.len()).sum(),
    }
}

/// How many images of a product can be listed. What clients skip or choke on is as good as gone.
fn count_images(product: &Product<'_>) -> usize {
    if digestible::product(&product.fields).is_err() || images::architecture(product).is_err() {
        return 0;
    }
    let can_be_listed = |version: &&Version<'_>| digestible::version(&version.fields).is_ok() && images::serial_date(&version.name).is_ok();
    let in_version = |version: &Version<'_>| {
        let can_be_had = |place: usize| version.items.get(place).is_some_and(can_be_had);
        images::of_version(&product.name, version).0.iter().filter(|image| image.places().all(can_be_had)).count()
    };
    product.versions.iter().filter(can_be_listed).map(in_version).sum()
}

fn can_be_had(item: &Item<'_>) -> bool {
    digestible::item(&item.fields).is_ok() && matches!(item.listed_file(), Ok(Some(_)))
}

fn not_json(path: &StreamPath, error: &impl ToString) -> Refusal {
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
    use crate::simplestreams::snapshot::{Role, Source};

    const IMAGES: &str = r#"{"products":{"p":{"aliases":"a","arch":"amd64","versions":{"20260101":{"label":"x","items":{"u":{"ftype":"lxd_combined.tar.gz","md5":"b","path":"a","sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":1},"m":{"ftype":"manifest"}}}}},"q":{}}}"#;

    fn path() -> StreamPath {
        StreamPath::from_document("streams/v1/x.json").unwrap()
    }

    fn source(bytes: &[u8]) -> Source {
        Source::new(path(), Role::Images, bytes.to_vec().into())
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
        assert!(matches!(read_products(&wanted(), &source(b"<html>")), Err(Refusal::NotJson { .. })));
        assert!(matches!(read_products(&wanted(), &source(&[0xff, 0xfe])), Err(Refusal::NotJson { .. })));
        assert!(matches!(read_products(&wanted(), &source(br#"{"index":{},"format":"index:1.0"}"#)), Err(Refusal::WrongFormat { .. })));
        assert!(matches!(read_products(&wanted(), &source(br#"{"products":{},"content_id":"y"}"#)), Err(Refusal::WrongContentId { .. })));
        assert!(read_products(&wanted(), &source(br#"{"products":{},"content_id":"x"}"#)).is_ok());
    }

    #[test]
    fn images_are_counted_by_product() {
        let facts = read_products(&wanted(), &source(IMAGES.as_bytes())).unwrap();
        assert_eq!(facts.census, [("p".to_owned(), 1), ("q".to_owned(), 0)].into());
        let ids = Wanted { kind: Kind::Other, ..wanted() };
        assert_eq!(read_products(&ids, &source(IMAGES.as_bytes())).unwrap().census["p"], 2);
    }

    /// T32: `max_gone` compares these counts, and what nobody can see is gone.
    #[test]
    fn an_image_that_no_client_sees_is_not_counted() {
        for (good, bad) in [
            (r#""size":1"#, r#""size":-1"#),
            (r#""aliases":"a""#, r#""aliases":["a"]"#),
            (r#""aliases":"a""#, r#""aliases":"\ud800""#),
            (r#""arch":"amd64""#, r#""arch":"z80""#),
            (r#""arch":"amd64""#, r#""arch":7"#),
            ("20260101", "v1"),
            (r#""path":"a""#, r#""path":"../a""#),
            (r#""path":"a""#, r#""path":"streams/v1/a""#),
            (r#""path":"a","#, ""),
            (r#""label":"x""#, r#""label":{}"#),
            (r#""md5":"b""#, r#""md5":[]"#),
        ] {
            let text = IMAGES.replace(good, bad);
            assert_ne!(text, IMAGES, "{good}");
            assert_eq!(read_products(&wanted(), &source(text.as_bytes())).unwrap().census["p"], 0, "{bad}");
        }
    }
}
