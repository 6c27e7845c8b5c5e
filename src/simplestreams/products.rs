//! `products:1.0`: products, their versions, and the items of each.

use std::borrow::Cow;

use crate::simplestreams::fault::{Fault, Reason};
use crate::simplestreams::file::ListedFile;
use crate::simplestreams::object::{Object, write_children, write_name, write_text};
use crate::simplestreams::tree::{self, Level, Node};

/// The `format` of a products document.
pub const FORMAT: &str = "products:1.0";

/// Where documents are, and nothing else: a file there could not be asked for.
const DOCUMENTS: &str = "streams/v1/";

/// A products document.
#[derive(Clone, Debug)]
pub struct Products<'a> {
    /// Its fields but for `products`.
    pub fields: Object<'a>,
    /// Its products, in their order.
    pub products: Vec<Product<'a>>,
    place: Option<usize>,
    /// The length of the text that it was read from.
    len: usize,
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
    /// The file that it names, once that was read. In a box, for there are very many items that nobody reads it of.
    pub file: Option<Box<ListedFile>>,
}

impl<'a> Products<'a> {
    /// Reads a products document. Parts that are no objects are left out, with the reason.
    pub fn parse(text: &'a str) -> serde_json::Result<(Self, Vec<Fault>)> {
        let (Node { fields, children, place }, faults) = tree::read(text, "products")?;
        Ok((Self { fields, products: children, place, len: text.len() }, faults))
    }

    /// Whether it has products at all, be it an empty list of them.
    pub fn has_products(&self) -> bool {
        self.place.is_some()
    }

    /// Where `products` stands among its fields, if it has them.
    pub fn place(&self) -> Option<usize> {
        self.place
    }

    /// The document as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // Memory that grows step by step costs more than the writing.
        let mut out = Vec::with_capacity(self.len + self.len / 8);
        self.fields.write(&mut out, self.place, |out| {
            write_children(out, "products", &self.products, |out, product| {
                write_name(out, &product.name);
                product.write(out, &Item::write);
            });
        });
        out
    }
}

impl<'a> Product<'a> {
    /// Reads one product, without its document.
    pub fn parse(name: &'a str, text: &'a str) -> serde_json::Result<Self> {
        let (node, _) = tree::read(text, "versions")?;
        Ok(Self::new(Cow::Borrowed(name), node))
    }

    /// The product as JSON, without its name.
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out, &Item::write);
        String::from_utf8(out).expect("JSON is written as UTF-8")
    }

    /// The names by which clients find its newest image.
    pub fn aliases(&self) -> Vec<String> {
        let aliases = self.fields.text_or_none("aliases").unwrap_or_default();
        aliases.split(',').filter(|alias| !alias.is_empty()).map(ToOwned::to_owned).collect()
    }

    /// Appends the product as JSON, without its name, each item as `write_item` has it.
    pub fn write(&self, out: &mut Vec<u8>, write_item: &impl Fn(&Item<'a>, &mut Vec<u8>)) {
        self.fields.write(out, self.place, |out| {
            write_children(out, "versions", &self.versions, |out, version| {
                write_name(out, &version.name);
                version.write(out, write_item);
            });
        });
    }
}

impl<'a> Version<'a> {
    fn write(&self, out: &mut Vec<u8>, write_item: &impl Fn(&Item<'a>, &mut Vec<u8>)) {
        self.fields.write(out, self.place, |out| {
            write_children(out, "items", &self.items, |out, item| {
                write_name(out, &item.name);
                write_item(item, out);
            });
        });
    }
}

impl Item<'_> {
    /// Appends the item as JSON, without its name.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.fields.write(out, None, |_| {});
    }

    /// The same with the path of its file, as far as that was read, below the folder `first`.
    pub fn write_below(&self, out: &mut Vec<u8>, first: &str) {
        let Some(file) = &self.file else { return self.write(out) };
        self.fields.write_with(out, |out, name, value| {
            let written = value.get().trim_matches('"');
            if name != "path" {
                out.extend_from_slice(value.get().as_bytes());
            } else if written == file.path.as_str() {
                // Nearly always it is written as it is read, and there are very many.
                [b"\"", first.as_bytes(), b"/", written.as_bytes(), b"\""].into_iter().for_each(|part| out.extend_from_slice(part));
            } else {
                write_text(out, file.path.below(first).as_str());
            }
        });
    }

    /// Reads which file it names, and keeps that.
    pub fn read_file(&mut self) -> Result<(), Reason> {
        self.file = self.listed_file()?.map(Box::new);
        Ok(())
    }

    /// Which file it names, if it names one, or why that cannot be offered.
    pub fn listed_file(&self) -> Result<Option<ListedFile>, Reason> {
        let file = ListedFile::of_item(&self.fields)?;
        let is_document = file.as_ref().is_some_and(|file| file.path.as_str().starts_with(DOCUMENTS));
        if is_document { Err(Reason::Document) } else { Ok(file) }
    }
}

impl<'a> Level<'a> for Product<'a> {
    const CHILDREN: Option<&'static str> = Some("versions");
    type Child = Version<'a>;

    fn new(name: Cow<'a, str>, node: Node<'a, Version<'a>>) -> Self {
        Self { name, fields: node.fields, versions: node.children, place: node.place }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl<'a> Level<'a> for Version<'a> {
    const CHILDREN: Option<&'static str> = Some("items");
    type Child = Item<'a>;

    fn new(name: Cow<'a, str>, node: Node<'a, Item<'a>>) -> Self {
        Self { name, fields: node.fields, items: node.children, place: node.place }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl<'a> Level<'a> for Item<'a> {
    const CHILDREN: Option<&'static str> = None;
    type Child = Self;

    fn new(name: Cow<'a, str>, node: Node<'a, Self>) -> Self {
        Self { name, fields: node.fields, file: None }
    }

    fn name(&self) -> &str {
        &self.name
    }
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
    fn children_are_written_where_they_stood() {
        for (text, expected) in [
            (r#"{"products":{"x":{}},"a":1}"#, r#"{"products":{"x":{}},"a":1}"#),
            (r#"{"a":1,"products":{}}"#, r#"{"a":1,"products":{}}"#),
            (r#"{"products":{}}"#, r#"{"products":{}}"#),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            (r#"{"products":{"x":{}},"a":1,"products":{"y":{}}}"#, r#"{"products":{"x":{},"y":{}},"a":1}"#),
        ] {
            let (products, _) = Products::parse(text).unwrap();
            assert_eq!(String::from_utf8(products.to_json()).unwrap(), expected);
        }
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
    fn of_two_parts_with_one_name_the_last_counts() {
        let text = r#"{"products":{"a":{"x":1},"b":{},"a":{"x":2}}}"#;
        let (products, faults) = Products::parse(text).unwrap();
        assert_eq!(String::from_utf8(products.to_json()).unwrap(), r#"{"products":{"b":{},"a":{"x":2}}}"#);
        assert_eq!(faults.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a: it is there twice; clients know the last one"]);
    }

    #[test]
    fn a_field_that_is_too_deep_is_left_out_alone() {
        let text = format!(r#"{{"products":{{"a":{{"x":{}{},"y":1}}}}}}"#, "[".repeat(200), "]".repeat(200));
        let (products, faults) = Products::parse(&text).unwrap();
        assert_eq!(String::from_utf8(products.to_json()).unwrap(), r#"{"products":{"a":{"y":1}}}"#);
        assert_eq!(faults.len(), 1);
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for text in ["", "<html></html>", "[]", "7", "null", r#"{"products":{"#, r#"{"products":{}} x"#] {
            assert!(Products::parse(text).is_err(), "{text}");
        }
    }
}
