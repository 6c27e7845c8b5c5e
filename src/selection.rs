//! Which part of a remote is mirrored: filters in the form of sstream-mirror, and the newest N versions.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use regex::Regex;

use crate::simplestreams::inherited::Pedigree;
use crate::simplestreams::object::Object;
use crate::simplestreams::products::Product;

/// The part of a remote's images that is listed.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// An item is listed if it passes all of them.
    pub filters: Vec<Filter>,
    /// The newest so many versions of each product are listed; 0 means all.
    pub versions: usize,
}

/// One condition on an attribute that an item has or inherits. An absent attribute is an empty one.
#[derive(Clone, Debug)]
pub struct Filter {
    key: String,
    negated: bool,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Equal(String),
    Matching(Regex),
}

/// Why a filter cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadFilter {
    /// It has none of the four operators, or nothing before it.
    #[error("'{0}' is no filter: write key=value, key!=value, key~regex or key!~regex")]
    Form(String),
    /// Its regular expression cannot be read.
    #[error("'{0}' has a regular expression that cannot be read: {1}")]
    Regex(String, #[source] regex::Error),
}

impl FromStr for Filter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        let form = || BadFilter::Form(text.to_owned());
        let operator = text.find(['=', '~', '!']).filter(|at| *at > 0).ok_or_else(form)?;
        let (key, rest) = text.split_at(operator);
        let (negated, rest) = rest.strip_prefix('!').map_or((false, rest), |rest| (true, rest));
        let value = if let Some(value) = rest.strip_prefix('=') {
            Value::Equal(value.to_owned())
        } else {
            let pattern = rest.strip_prefix('~').ok_or_else(form)?;
            Value::Matching(Regex::new(pattern).map_err(|error| BadFilter::Regex(text.to_owned(), error))?)
        };
        Ok(Self { key: key.trim().to_owned(), negated, value })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let negation = if self.negated { "!" } else { "" };
        match &self.value {
            Value::Equal(value) => write!(f, "{}{negation}={value}", self.key),
            Value::Matching(regex) => write!(f, "{}{negation}~{regex}", self.key),
        }
    }
}

impl Filter {
    fn passes(&self, item: &Pedigree<'_>) -> bool {
        let actual = item.attribute(&self.key).unwrap_or(Cow::Borrowed(""));
        let holds = match &self.value {
            Value::Equal(value) => *value == *actual,
            Value::Matching(regex) => regex.is_match(&actual),
        };
        holds != self.negated
    }
}

impl Selection {
    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.filters.is_empty() && self.versions == 0
    }

    /// Removes from a product what is not selected, and versions that are empty then; whether anything was. `document` has
    /// the fields that it inherits.
    pub fn select(&self, product: &mut Product<'_>, document: &Object<'_>) -> bool {
        if self.is_everything() {
            return false;
        }
        let before = count_items(product);
        let mut passed = self.passed(product, document).into_iter();
        product.versions.iter_mut().for_each(|version| version.items.retain(|_| passed.next().unwrap_or_default()));
        product.versions.retain(|version| !version.items.is_empty());
        keep_newest(product, self.versions);
        count_items(product) != before
    }

    /// Whether each item passes, in their order.
    fn passed(&self, product: &Product<'_>, document: &Object<'_>) -> Vec<bool> {
        let items = product.versions.iter().flat_map(|version| version.items.iter().map(move |item| (version, item)));
        let passes = |(version, item)| self.filters.iter().all(|filter| filter.passes(&Pedigree { document, product, version, item }));
        items.map(passes).collect()
    }
}

/// Version names sort by their bytes (`LANG=C sort`), as simplestreams says.
fn keep_newest(product: &mut Product<'_>, count: usize) {
    if count == 0 || product.versions.len() <= count {
        return;
    }
    let mut names: Vec<String> = product.versions.iter().map(|version| version.name.to_string()).collect();
    names.sort_unstable_by(|one, other| other.cmp(one));
    let oldest = names.swap_remove(count - 1);
    product.versions.retain(|version| *version.name >= *oldest);
}

fn count_items(product: &Product<'_>) -> usize {
    product.versions.iter().map(|version| version.items.len()).sum()
}

#[cfg(test)]
mod tests {
    use crate::selection::{Filter, Selection};
    use crate::simplestreams::products::Products;

    const TEXT: &str = r#"{"products":{
        "a":{"arch":"amd64","release":"noble","versions":{
            "20260102":{"items":{"x":{"ftype":"squashfs","size":7},"y":{"ftype":"disk1.img"}}},
            "20260103":{"items":{"x":{"ftype":"squashfs"}}},
            "20260101":{"items":{"x":{"ftype":"squashfs"}}}}},
        "b":{"arch":"arm64","release":"jammy","versions":{"20260101":{"arch":"riscv64","items":{"x":{"ftype":"squashfs"}}}}}}}"#;

    fn selected(filters: &[&str], versions: usize) -> Vec<String> {
        let (mut document, _) = Products::parse(TEXT).unwrap();
        let filters = filters.iter().map(|filter| filter.parse().unwrap()).collect();
        let selection = Selection { filters, versions };
        let Products { fields, products, .. } = &mut document;
        let changed = products.iter_mut().fold(false, |changed, product| changed | selection.select(product, fields));
        let items = document.products.iter().flat_map(|product| {
            let versions = product.versions.iter();
            versions.flat_map(|version| version.items.iter().map(|item| format!("{}/{}/{}", product.name, version.name, item.name)))
        });
        let items: Vec<String> = items.collect();
        assert_eq!(changed, items.len() != 5);
        items
    }

    #[test]
    fn an_item_passes_by_what_it_has_or_inherits() {
        assert_eq!(selected(&[], 0).len(), 5);
        assert_eq!(selected(&["arch=amd64"], 0).len(), 4);
        assert_eq!(selected(&["arch=arm64"], 0), [""; 0], "the version's own arch is nearer");
        assert_eq!(selected(&["arch=riscv64"], 0), ["b/20260101/x"]);
        assert_eq!(selected(&["ftype!=squashfs"], 0), ["a/20260102/y"]);
        assert_eq!(selected(&["release~(noble|focal)", "ftype~^disk"], 0), ["a/20260102/y"]);
        assert_eq!(selected(&["release!~^n"], 0), ["b/20260101/x"]);
        assert_eq!(selected(&["nothing="], 0).len(), 5);
        assert_eq!(selected(&["size=7"], 0), ["a/20260102/x"]);
        assert_eq!(selected(&["version_name~03$"], 0), ["a/20260103/x"]);
    }

    #[test]
    fn the_newest_versions_of_what_is_selected_are_kept() {
        assert_eq!(selected(&["arch=amd64"], 2), ["a/20260102/x", "a/20260102/y", "a/20260103/x"]);
        assert_eq!(selected(&["ftype=disk1.img"], 1), ["a/20260102/y"]);
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_refused() {
        for text in ["", "arch", "=amd64", "arch!amd64", "arch~("] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
        for text in ["arch=amd64", "a!=b=c", "a~b|c", "a!~^x$"] {
            assert_eq!(text.parse::<Filter>().unwrap().to_string(), text);
        }
    }
}
