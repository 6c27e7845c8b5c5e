//! Attributes that an item inherits: from its version, its product, and the top of its document.
//!
//! LXD and Incus do not inherit; sstream-mirror's filters and MAAS do. So this is for selection, and not for images.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::simplestreams::object::Object;
use crate::simplestreams::products::{Item, Product, Version};

/// An item with all that is above it.
#[derive(Clone, Copy)]
pub struct Pedigree<'a> {
    /// The fields of the document.
    pub document: &'a Object<'a>,
    /// The product.
    pub product: &'a Product<'a>,
    /// The version.
    pub version: &'a Version<'a>,
    /// The item.
    pub item: &'a Item<'a>,
}

impl<'a> Pedigree<'a> {
    /// The value that the item has or inherits; the nearest one wins. Only strings and numbers are inherited
    /// (`products_exdata` of simplestreams), and the three names can be asked for as well.
    pub fn attribute(&self, name: &str) -> Option<Cow<'a, str>> {
        match name {
            "product_name" => return Some(Cow::Borrowed(&self.product.name)),
            "version_name" => return Some(Cow::Borrowed(&self.version.name)),
            "item_name" => return Some(Cow::Borrowed(&self.item.name)),
            _ => {}
        }
        let nearest_first: [&'a Object<'a>; 4] = [&self.item.fields, &self.version.fields, &self.product.fields, self.document];
        nearest_first.into_iter().find_map(|fields| fields.get(name).and_then(scalar))
    }
}

fn scalar(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    match text.as_bytes().first()? {
        b'"' => serde_json::from_str(text).ok().map(Cow::Owned),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(text)),
        _ => None,
    }
}
