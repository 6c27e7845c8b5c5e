//! `products:1.0`: products, their versions, and the items of each.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::simplestreams::fault::{Fault, Reason};
use crate::simplestreams::object::{Object, separate, take_entries, write_name};

/// The `format` of a products document.
pub const FORMAT: &str = "products:1.0";

/// A products document.
#[derive(Clone, Debug)]
pub struct Products<'a> {
    /// Its fields but for `products`.
    pub fields: Object<'a>,
    /// Its products, in their order.
    pub products: Vec<Product<'a>>,
    place: Option<usize>,
}

/// A product: what is built again and again under one name.
#[derive(Clone, Debug)]
pub struct Product<'a> {
    /// Its key.
    pub name: Cow<'a, str>,
    /// Its fields but for `versions`.
    pub fields: Object<'a>,
    /// Its versions, in their order.
    pub versions: Vec<Version<'a>>,
    place: Option<usize>,
}

/// One build of a product.
#[derive(Clone, Debug)]
pub struct Version<'a> {
    /// Its key: a serial.
    pub name: Cow<'a, str>,
    /// Its fields but for `items`.
    pub fields: Object<'a>,
    /// Its items, in their order.
    pub items: Vec<Item<'a>>,
    place: Option<usize>,
}

/// A file of a version, or with `image-ids` a name in some cloud.
#[derive(Clone, Debug)]
pub struct Item<'a> {
    /// Its key; clients ignore it.
    pub name: Cow<'a, str>,
    /// Its fields.
    pub fields: Object<'a>,
}

impl<'a> Products<'a> {
    /// Reads a products document. Parts that are no objects are left out, with the reason.
    pub fn parse(text: &'a str) -> serde_json::Result<(Self, Vec<Fault>)> {
        let mut faults = Vec::new();
        let mut fields = Object::parse(text)?;
        let (place, children) = children(&mut fields, "products", &[], &mut faults);
        let products = children.into_iter().filter_map(|(name, value)| Product::parse(name, value, &mut faults)).collect();
        Ok((Self { fields, products, place }, faults))
    }

    /// Whether it has products at all, be it an empty list of them.
    pub fn has_products(&self) -> bool {
        self.place.is_some()
    }

    /// The document as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.fields.write(&mut out, self.place, |out| {
            write_children(out, "products", &self.products, |out, product| {
                write_name(out, &product.name);
                product.write(out);
            });
        });
        out
    }
}

impl<'a> Product<'a> {
    fn parse(name: Cow<'a, str>, value: &'a RawValue, faults: &mut Vec<Fault>) -> Option<Self> {
        let mut fields = object(value, &[&name], faults)?;
        let (place, children) = children(&mut fields, "versions", &[&name], faults);
        let versions = children.into_iter().filter_map(|(version, value)| Version::parse(version, value, &name, faults)).collect();
        Some(Self { name, fields, versions, place })
    }

    /// The names by which clients find its newest image.
    pub fn aliases(&self) -> Vec<String> {
        let aliases = self.fields.text_or_none("aliases").unwrap_or_default();
        aliases.split(',').filter(|alias| !alias.is_empty()).map(ToOwned::to_owned).collect()
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.fields.write(out, self.place, |out| {
            write_children(out, "versions", &self.versions, |out, version| {
                write_name(out, &version.name);
                version.write(out);
            });
        });
    }
}

impl<'a> Version<'a> {
    fn parse(name: Cow<'a, str>, value: &'a RawValue, product: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        let mut fields = object(value, &[product, &name], faults)?;
        let (place, children) = children(&mut fields, "items", &[product, &name], faults);
        let items = children.into_iter().filter_map(|(item, value)| {
            let fields = object(value, &[product, &name, &item], faults)?;
            Some(Item { name: item, fields })
        });
        let items = items.collect();
        Some(Self { name, fields, items, place })
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.fields.write(out, self.place, |out| {
            write_children(out, "items", &self.items, |out, item| {
                write_name(out, &item.name);
                item.fields.write(out, None, |_| {});
            });
        });
    }
}

fn object<'a>(value: &'a RawValue, at: &[&str], faults: &mut Vec<Fault>) -> Option<Object<'a>> {
    let object = Object::parse(value.get());
    if object.is_err() {
        let field = at.last().copied().unwrap_or_default().to_owned();
        faults.push(Fault::new(at, Reason::WrongType { field, wanted: "an object" }));
    }
    object.ok()
}

/// The entries of the object `name`, which go on to be a list of their own; none if it is absent or no object.
fn children<'a>(
    fields: &mut Object<'a>,
    name: &str,
    at: &[&str],
    faults: &mut Vec<Fault>,
) -> (Option<usize>, Vec<(Cow<'a, str>, &'a RawValue)>) {
    match take_entries(fields, name) {
        Ok(Some((place, children))) => (Some(place), children),
        Ok(None) => (None, Vec::new()),
        Err(reason) => {
            faults.push(Fault::new(at, reason));
            (None, Vec::new())
        }
    }
}

fn write_children<T>(out: &mut Vec<u8>, name: &str, children: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    write_name(out, name);
    out.push(b'{');
    for child in children {
        separate(out);
        write(out, child);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use crate::simplestreams::products::Products;

    const TEXT: &str = r#"{"content_id":"x","products":{"p":{"aliases":"a,,b","versions":{"20260101":{"items":{"i":{"size":1,"new":{"deep":[]}}},"label":"release"}},"os":"o"}},"format":"products:1.0"}"#;

    #[test]
    fn a_document_is_written_as_it_came() {
        let (products, faults) = Products::parse(TEXT).unwrap();
        assert_eq!(faults, []);
        assert_eq!(products.products[0].aliases(), ["a", "b"]);
        assert_eq!(String::from_utf8(products.to_json()).unwrap(), TEXT);
    }

    #[test]
    fn a_part_that_makes_no_sense_leaves_the_rest() {
        let text = r#"{"products":{"a":1,"b":{"versions":[]},"c":{"versions":{"v":"x","w":{"items":{"i":null,"j":{}}}}}}}"#;
        let (products, faults) = Products::parse(text).unwrap();
        let said: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 4, "{said:?}");
        assert!(said[0].starts_with("a: a is not an object"), "{said:?}");
        assert_eq!(products.products.len(), 2);
        assert_eq!(products.products[1].versions[0].items.len(), 1);
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for text in ["", "<html></html>", "[]", r#"{"products":{"#] {
            assert!(Products::parse(text).is_err(), "{text}");
        }
    }
}
