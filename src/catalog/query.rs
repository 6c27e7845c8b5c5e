//! Finds images as LXD's and Incus' clients do: by remote, alias, fingerprint and property.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use regex::Regex;

use crate::catalog::Catalog;
use crate::catalog::images::Image;
use crate::image::architecture::Architecture;
use crate::image::ftype::ImageType;

/// Fewer digits of a fingerprint mean nothing.
pub const LEAST_DIGITS: usize = 12;

/// An image with the remote that lists it, and the aliases that mean it there.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// The remote.
    pub remote: &'a Arc<str>,
    /// The image.
    pub image: &'a Image,
    /// Its aliases: clients take the newest image of a product and a type.
    pub aliases: &'a [String],
}

/// Why a name means no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoImage {
    /// There is no remote of that name.
    #[error("there is no remote '{0}'; cistern remote list shows them")]
    Remote(String),
    /// Nothing is called that.
    #[error("no image is called '{0}'; cistern image list shows what there is")]
    Name(String),
    /// Nothing for this machine's architecture is.
    #[error("'{name}' is there for {there}, and not for this machine ({here}); write {name}/{there}")]
    Architecture {
        /// The alias.
        name: String,
        /// An architecture that has it.
        there: String,
        /// Ours.
        here: String,
    },
    /// Several fingerprints begin so.
    #[error("{count} images have fingerprints that begin with '{prefix}'; give more digits")]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// How many there are.
        count: usize,
    },
}

/// One condition of `image list`.
#[derive(Clone, Debug)]
pub enum Filter {
    /// A part of an alias or of the fingerprint.
    Part(String),
    /// A property, or a field, and what its value must be; the whole value must match.
    Property(String, Value),
}

/// What a value must be: a regular expression, or this text where it is none.
#[derive(Clone, Debug)]
pub enum Value {
    /// It must match.
    Matching(Regex),
    /// It must be equal.
    Equal(String),
}

impl From<&str> for Filter {
    fn from(text: &str) -> Self {
        let Some((key, value)) = text.split_once('=') else { return Self::Part(text.to_owned()) };
        let is_anchored = value.contains(['^', '$']);
        let pattern = if is_anchored { value.to_owned() } else { format!("^(?:{value})$") };
        let value = Regex::new(&pattern).map_or_else(|_| Value::Equal(value.to_owned()), Value::Matching);
        Self::Property(key.to_owned(), value)
    }
}

impl Value {
    fn holds(&self, actual: &str) -> bool {
        match self {
            Self::Matching(regex) => regex.is_match(actual),
            Self::Equal(value) => value == actual,
        }
    }
}

impl Found<'_> {
    /// Whether an image passes every filter.
    pub fn passes(&self, filters: &[Filter]) -> bool {
        filters.is_empty() || {
            let fields = self.fields();
            filters.iter().all(|filter| self.passes_one(filter, &fields))
        }
    }

    fn passes_one(&self, filter: &Filter, fields: &BTreeMap<String, String>) -> bool {
        match filter {
            Filter::Part(part) => {
                self.aliases.iter().any(|alias| alias.contains(part))
                    || self.image.fingerprint.to_string().contains(&part.to_ascii_lowercase())
            }
            Filter::Property(key, value) => fields.get(key).is_some_and(|actual| value.holds(actual)),
        }
    }

    /// Properties, and over them the fields that have a name of their own: LXD's canonical architecture, what it runs as.
    fn fields(&self) -> BTreeMap<String, String> {
        let mut fields = self.image.properties();
        let own = [
            ("type", self.image.image_type.to_string()),
            ("architecture", self.image.version.product.architecture.to_string()),
            ("remote", self.remote.to_string()),
            ("product", self.image.version.product.name.clone()),
            ("fingerprint", self.image.fingerprint.to_string()),
        ];
        fields.extend(own.map(|(name, value)| (name.to_owned(), value)));
        fields
    }
}

/// All images of a remote, or of every remote in the order of `server.root` and then of those that there are no more: by
/// product, the newest first.
pub fn images<'a>(catalog: &'a Catalog, remote: Option<&str>) -> Result<Vec<Found<'a>>, NoImage> {
    let names = || catalog.order.iter().chain(catalog.former.keys());
    if let Some(name) = remote.filter(|name| !names().any(|other| **other == **name)) {
        return Err(NoImage::Remote(name.to_owned()));
    }
    let wanted = names().filter(|name| remote.is_none_or(|remote| *remote == ***name));
    Ok(wanted.flat_map(|name| of_remote(catalog, name)).collect())
}

fn of_remote<'a>(catalog: &'a Catalog, remote: &'a Arc<str>) -> Vec<Found<'a>> {
    let listed = catalog.remotes.get(remote).into_iter().flat_map(|remote| remote.listing.images().iter().chain(&remote.private));
    let mut images: Vec<&Image> = listed.chain(catalog.former.get(remote).into_iter().flatten()).collect();
    images.sort_by_key(|image| (&image.version.product.name, image.image_type, Reverse((&image.version.serial, Reverse(image.root)))));
    // Two documents of a remote may have products of one name, as at the root of another Cistern; to clients these are two.
    let slot = |image: &'a Image| (image.version.product.name.as_str(), image.version.product.aliases.as_slice(), image.image_type);
    let mut newest: HashMap<_, &Image> = HashMap::new();
    for image in &images {
        newest.entry(slot(image)).or_insert(image);
    }
    let is_newest = |image: &'a Image| std::ptr::eq(newest[&slot(image)], image);
    let aliases = |image: &'a Image| if is_newest(image) { &*image.version.product.aliases } else { &[] };
    images.into_iter().map(|image| Found { remote, image, aliases: aliases(image) }).collect()
}

/// The image that `[REMOTE:]ALIAS` or a fingerprint means: for an alias a container unless only virtual machines are
/// wanted or there, of `here`'s architecture unless the alias names another.
pub fn find<'a>(catalog: &'a Catalog, name: &str, virtual_machine: bool, here: Option<Architecture>) -> Result<Found<'a>, NoImage> {
    let (remote, name) = match name.split_once(':') {
        Some((remote, rest)) => (Some(remote), rest),
        None => (None, name),
    };
    let images = images(catalog, remote)?;
    if let Some(found) = by_fingerprint(&images, name)? {
        return Ok(found);
    }
    let types: &[ImageType] = if virtual_machine { &[ImageType::VirtualMachine] } else { &ImageType::ALL };
    let of_type = |wanted: ImageType| images.iter().filter(move |found| found.image.image_type == wanted);
    let is_meant = |found: &&Found<'_>| is_meant(found, name, here);
    // The first remote owns the alias; of several products of its with one alias clients take the newest image.
    let newest = |wanted| {
        let first = of_type(wanted).find(is_meant)?.remote;
        let meant = of_type(wanted).filter(|found| found.remote == first).filter(is_meant).rev();
        meant.max_by_key(|found| &found.image.version.serial)
    };
    let meant = types.iter().find_map(|wanted| newest(*wanted));
    meant.cloned().ok_or_else(|| missing(&images, name, here))
}

fn by_fingerprint<'a>(images: &[Found<'a>], prefix: &str) -> Result<Option<Found<'a>>, NoImage> {
    if prefix.len() < LEAST_DIGITS || !prefix.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let prefix = prefix.to_ascii_lowercase();
    let mut found: Vec<&Found<'a>> = Vec::new();
    for image in images.iter().filter(|found| found.image.fingerprint.to_string().starts_with(&prefix)) {
        if !found.iter().any(|other| other.image.fingerprint == image.image.fingerprint) {
            found.push(image);
        }
    }
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        several => Err(NoImage::Ambiguous { prefix, count: several.len() }),
    }
}

fn is_meant(found: &Found<'_>, name: &str, here: Option<Architecture>) -> bool {
    let product = &found.image.version.product;
    let with_architecture = |alias: &str| {
        let architecture = name.strip_prefix(alias).and_then(|rest| rest.strip_prefix('/'));
        architecture.is_some_and(|named| Architecture::parse(named) == Some(product.architecture))
    };
    found.aliases.iter().any(|alias| (alias == name && Some(product.architecture) == here) || with_architecture(alias))
}

fn missing(images: &[Found<'_>], name: &str, here: Option<Architecture>) -> NoImage {
    let elsewhere = images.iter().find(|found| found.aliases.iter().any(|alias| alias == name));
    match (elsewhere, here) {
        (Some(found), Some(here)) if found.image.version.product.architecture != here => {
            let there = found.image.version.product.architecture.to_string();
            NoImage::Architecture { name: name.to_owned(), there, here: here.to_string() }
        }
        _ => NoImage::Name(name.to_owned()),
    }
}
