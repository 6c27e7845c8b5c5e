//! Takes out of a document what clients cannot digest.
//!
//! Go clients refuse a whole document for one field of the wrong type, so such a part must not reach them.

use crate::simplestreams::digestible::{self, ITEM_TEXTS, PRODUCT_TEXTS, VERSION_TEXTS};
use crate::simplestreams::fault::{Fault, Reason};
use crate::simplestreams::file;
use crate::simplestreams::index::Index;
use crate::simplestreams::object::Object;
use crate::simplestreams::products::{Item, Product, Version};

const DOCUMENT_TEXTS: &[&str] = &["content_id", "datatype", "format", "license", "updated"];
const ENTRY_TEXTS: &[&str] = &["datatype", "format", "path", "updated"];

/// Makes the fields of a products document sound for every client. Returns what was wrong; if it is not empty, they were
/// changed.
pub fn make_sound(document: &mut Object<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    drop_misspelt(document, &["document"], &mut faults);
    drop_fields(document, &["document"], DOCUMENT_TEXTS, &mut faults);
    faults
}

/// Makes a product sound for every client: parts that would break one are dropped, and `size` becomes a number. Adds what
/// was wrong; whether the product can stay.
pub fn make_product_sound(product: &mut Product<'_>, faults: &mut Vec<Fault>) -> bool {
    let name = &product.name;
    drop_misspelt(&mut product.fields, &[name], faults);
    if !keep(&[name], digestible::product(&product.fields), faults) {
        return false;
    }
    product.versions.retain_mut(|version| {
        drop_misspelt(&mut version.fields, &[name, &version.name], faults);
        keep(&[name, &version.name], digestible::version(&version.fields), faults)
    });
    for Version { name: version, items, .. } in &mut product.versions {
        items.retain_mut(|Item { name: item, fields, .. }| {
            let at = [&**name, &**version, &**item];
            drop_misspelt(fields, &at, faults);
            let checked = check_item(fields, &at, faults);
            keep(&at, checked, faults)
        });
    }
    true
}

/// Makes an index sound for every client. Returns what was wrong; if it is not empty, the index was changed.
pub fn make_index_sound(index: &mut Index<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    drop_misspelt(&mut index.fields, &["index"], &mut faults);
    index.entries.iter_mut().for_each(|entry| drop_misspelt(&mut entry.fields, &[&entry.content_id], &mut faults));
    drop_fields(&mut index.fields, &["index"], &["format", "updated"], &mut faults);
    for entry in &mut index.entries {
        // The document says itself which products it has.
        if let Err(reason) = entry.fields.read::<Vec<String>>("products", "a list of strings") {
            entry.fields.remove("products");
            faults.push(Fault::new(&[&entry.content_id], reason));
        }
    }
    index.entries.retain(|entry| {
        let path = || entry.path().map(|_| ());
        keep(&[&entry.content_id], digestible::texts(&entry.fields, ENTRY_TEXTS).and_then(|()| path()), &mut faults)
    });
    faults
}

fn keep(at: &[&str], checked: Result<(), Reason>, faults: &mut Vec<Fault>) -> bool {
    let kept = checked.is_ok();
    faults.extend(checked.err().map(|reason| Fault::new(at, reason)));
    kept
}

/// Drops fields that Go clients would take for another one: they do not mind capitals, the last of two wins, and both must
/// have the right type.
fn drop_misspelt(fields: &mut Object<'_>, at: &[&str], faults: &mut Vec<Fault>) {
    faults.extend(fields.drop_repeated().into_iter().map(|field| Fault::new(&[at, &[&field]].concat(), Reason::Repeated)));
    const OTHERS: &[&str] = &["index", "items", "lxd_requirements", "products", "requirements", "size", "supported", "versions"];
    let known = [DOCUMENT_TEXTS, PRODUCT_TEXTS, VERSION_TEXTS, ITEM_TEXTS, ENTRY_TEXTS, OTHERS];
    let has_capitals = |name: &str| name.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii());
    let is_known = |name: &str| known.iter().any(|names| names.contains(&&*folded(name)));
    let misspelt: Vec<String> =
        fields.iter().map(|(name, _)| &**name).filter(|name| has_capitals(name) && is_known(name)).map(ToOwned::to_owned).collect();
    for name in misspelt {
        fields.remove(&name);
        faults.push(Fault::new(at, Reason::WrongType { field: name, wanted: "written in small letters" }));
    }
}

/// A field's name as Go compares it: beside capitals, two characters outside of ASCII are letters of ours to it.
fn folded(name: &str) -> String {
    name.replace('\u{17f}', "s").replace('\u{212a}', "k").to_ascii_lowercase()
}

fn drop_fields(fields: &mut Object<'_>, at: &[&str], names: &[&str], faults: &mut Vec<Fault>) {
    for name in names {
        if let Err(reason) = fields.text(name) {
            fields.remove(name);
            faults.push(Fault::new(at, reason));
        }
    }
}

fn check_item(fields: &mut Object<'_>, at: &[&str], faults: &mut Vec<Fault>) -> Result<(), Reason> {
    digestible::item(fields)?;
    if let Some(size) = file::size(fields)?
        && let Err(reason) = fields.read::<u64>("size", "a number")
    {
        fields.set("size", &size);
        faults.push(Fault::new(at, reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::render::sound::{make_index_sound, make_product_sound, make_sound};
    use crate::simplestreams::index::Index;
    use crate::simplestreams::products::Products;

    const HASH: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn sound(text: &str) -> (String, Vec<String>) {
        let (mut document, _) = Products::parse(text).unwrap();
        let mut faults = make_sound(&mut document.fields);
        document.products.retain_mut(|product| make_product_sound(product, &mut faults));
        let faults = faults.iter().map(ToString::to_string).collect();
        (String::from_utf8(document.to_json()).unwrap(), faults)
    }

    fn items(items: &str) -> String {
        format!(r#"{{"products":{{"p":{{"versions":{{"20260101":{{"items":{{{items}}}}}}}}}}}}}"#)
    }

    #[test]
    fn a_sound_document_is_left_alone() {
        let text = items(&format!(r#""a":{{"path":"a","sha256":"{HASH}","size":1,"extra":[1]}},"b":{{"id":"ami-1"}}"#));
        assert_eq!(sound(&text), (text, vec![]));
    }

    #[test]
    fn a_size_in_quotes_becomes_a_number() {
        let (json, faults) = sound(&items(&format!(r#""a":{{"size":"12","path":"a","sha256":"{HASH}"}}"#)));
        assert_eq!(json, items(&format!(r#""a":{{"size":12,"path":"a","sha256":"{HASH}"}}"#)));
        assert_eq!(faults, ["p / 20260101 / a: size is not a number, and clients would refuse the whole document"]);
    }

    #[test]
    fn only_the_smallest_part_that_would_break_a_client_is_dropped() {
        let good = format!(r#""good":{{"path":"a","sha256":"{HASH}"}}"#);
        for bad in [r#""bad":{"size":"many"}"#, r#""bad":{"size":1.5}"#, r#""bad":{"ftype":7}"#] {
            let (json, faults) = sound(&items(&format!("{bad},{good}")));
            assert_eq!(json, items(&good), "{bad}");
            assert_eq!(faults.len(), 1, "{faults:?}");
        }
        for product in [r#"{"aliases":["a"]}"#, r#"{"supported":"yes"}"#, r#"{"requirements":{"secureboot":false}}"#, r#"{"os":1}"#] {
            let (json, faults) = sound(&format!(r#"{{"products":{{"bad":{product},"good":{{}}}}}}"#));
            assert_eq!(json, r#"{"products":{"good":{}}}"#, "{product}");
            assert_eq!(faults.len(), 1, "{faults:?}");
        }
        let (json, _) = sound(r#"{"license":7,"products":{"p":{"versions":{"v":{"label":7},"w":{"items":{}}}}}}"#);
        assert_eq!(json, r#"{"products":{"p":{"versions":{"w":{"items":{}}}}}}"#);
    }

    #[test]
    fn a_field_that_differs_in_capitals_alone_is_dropped() {
        let good = format!(r#""a":{{"path":"a","sha256":"{HASH}","size":1}}"#);
        let (json, faults) = sound(&items(&format!(r#""a":{{"path":"a","sha256":"{HASH}","size":1,"SHA256":5,"Size":"x"}}"#)));
        assert_eq!((json, faults.len()), (items(&good), 2));
        let (json, _) = sound(&items(&format!(r#""a":{{"path":"a","ſha256":5,"sha256":"{HASH}"}}"#)));
        assert_eq!(json, items(&format!(r#""a":{{"path":"a","sha256":"{HASH}"}}"#)), "Go folds more than capitals");
        let (json, _) = sound(r#"{"Products":5,"products":{"p":{"ARCH":1,"Versions":5,"Extra":1}}}"#);
        assert_eq!(json, r#"{"products":{"p":{"Extra":1}}}"#);
    }

    #[test]
    fn of_a_field_that_is_there_twice_the_last_is_left() {
        let (json, faults) = sound(&items(&format!(r#""a":{{"sha256":5,"path":"a","sha256":"{HASH}"}}"#)));
        assert_eq!((json, faults.len()), (items(&format!(r#""a":{{"path":"a","sha256":"{HASH}"}}"#)), 1));
    }

    #[test]
    fn a_size_that_go_cannot_count_is_no_size() {
        for size in ["9223372036854775808", "18446744073709551615", "18446744073709551616", "\"9223372036854775808\""] {
            let (json, faults) = sound(&items(&format!(r#""a":{{"path":"a","sha256":"{HASH}","size":{size}}}"#)));
            assert_eq!((json, faults.len()), (items(""), 1), "{size}");
        }
    }

    #[test]
    fn an_index_entry_that_would_break_a_client_is_dropped() {
        let text = r#"{"index":{"a":{"products":["x"],"path":"a"},"b":{"path":"../b"},"c":{"path":7}}}"#;
        let (mut index, _) = Index::parse(text).unwrap();
        assert_eq!(make_index_sound(&mut index).len(), 2);
        assert_eq!(String::from_utf8(index.to_json()).unwrap(), r#"{"index":{"a":{"products":["x"],"path":"a"}}}"#);
    }
}
