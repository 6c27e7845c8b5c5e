//! What becomes of one product of a document.
//!
//! Products know nothing of each other, so that those of a large document can be edited side by side.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use crate::catalog::files::File;
use crate::catalog::images::Image;
use crate::catalog::listing::Listing;
use crate::digest::Digest;
use crate::http::path::StreamPath;
use crate::image::architecture::Architecture;
use crate::image::ftype::{Ftype, ImageType};
use crate::image::version;
use crate::ledger::holdings::Holdings;
use crate::render::hold_back;
use crate::render::policy::{Policy, Retained, Stock};
use crate::render::prune::{Rest, prune};
use crate::render::{retain, sound, twins};
use crate::simplestreams::fault::Fault;
use crate::simplestreams::file::ListedFile;
use crate::simplestreams::images;
use crate::simplestreams::object::Object;
use crate::simplestreams::products::{Item, Product, Version};

/// What a product became.
#[derive(Debug)]
pub struct Edited<'a> {
    /// What is left of it; `None` if nothing is.
    pub product: Option<Product<'a>>,
    /// Whether it is another than upstream's.
    pub is_changed: bool,
    /// Whether upstream names a file in it that is not listed.
    pub is_incomplete: bool,
    /// What is listed of it.
    pub content: Content,
    /// Images that are listed when they are held.
    pub awaited: Vec<Awaited>,
    /// The places of retained images that need a product of their own.
    pub apart: Vec<usize>,
    /// What was left out of it, and what is invisible in it, and why.
    pub faults: Vec<Fault>,
}

/// What is listed of a product.
#[derive(Debug, Default)]
pub struct Content {
    /// Its files.
    pub files: Vec<File>,
    /// Its images.
    pub images: Vec<Image>,
    /// Its deltas, each with the root that it makes.
    pub deltas: Vec<(StreamPath, StreamPath)>,
}

impl Content {
    /// Makes room for so many times what is in these: tables that grow step by step are written anew as often.
    pub fn reserve<'c>(contents: impl Iterator<Item = &'c Self>, times: usize, listing: &mut Listing) {
        let counts = contents.map(|content| (content.files.len(), content.images.len()));
        let (of_files, of_images) =
            counts.fold((0, 0), |(files, images), (more_files, more_images)| (files + more_files, images + more_images));
        let (files, images) = listing.parts();
        files.reserve(of_files * times);
        images.reserve(of_images * times);
    }

    /// Lists what is in these, the files beside the images: each takes as long as the other.
    pub fn list(contents: Vec<Self>, listing: &mut Listing) {
        let (of_files, of_images): (Vec<_>, Vec<_>) =
            contents.into_iter().map(|content| ((content.files, content.deltas), content.images)).unzip();
        let (files, images) = listing.parts();
        let list_files = || {
            for (listed, deltas) in of_files {
                listed.into_iter().for_each(|file| files.add(file));
                deltas.iter().for_each(|(delta, root)| files.add_delta(delta, root));
            }
        };
        rayon::join(list_files, || of_images.into_iter().flatten().for_each(|image| images.add(image)));
    }
}

/// The document that a product comes from.
#[derive(Clone, Copy, Debug)]
pub struct Whence<'d, 'a> {
    /// Its path.
    pub path: &'d StreamPath,
    /// Its fields, which products inherit.
    pub fields: &'d Object<'a>,
}

/// An image that is listed when it is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The image.
    pub image: Image,
    /// The deltas that are of use to hosts.
    pub deltas: Vec<ListedFile>,
    /// What lists it of its document: where that is, and the product with this one version, as JSON.
    pub excerpt: Option<(StreamPath, String)>,
}

impl<'a> Edited<'a> {
    /// Makes of a product of images what LXD and Incus get. `retained` are images that may have to be put back.
    pub fn of_images(product: Product<'a>, whence: &Whence<'_, 'a>, policy: &Policy, retained: &[(&'a Retained, Product<'a>)]) -> Self {
        let mut edited = Self::unchanged(product);
        edited.make_sound();
        edited.read_files();
        edited.drop_absent(policy.held.as_deref());
        edited.edit(|product| policy.selection.select(product, whence.fields), |edited| edited.is_incomplete = true);
        edited.edit(|product| drop_wrong_images(product, &policy.wrong), |_| {});
        edited.list_files();
        let there = if retained.is_empty() { Vec::new() } else { types_there(edited.product.as_ref()) };
        let is_emptied = edited.hold_back(&policy.stock, whence.path);
        edited.put_back(&there, &policy.stock, retained);
        edited.product.take_if(|product| is_emptied && product.versions.is_empty());
        edited.list_images();
        if policy.twins {
            edited.is_changed |= edited.product.as_mut().is_some_and(twins::add_twins);
        }
        edited
    }

    /// Lists an image that was kept of other documents. Its files are not upstream's any more.
    pub fn of_excerpt(product: Product<'a>) -> Self {
        let mut edited = Self::unchanged(product);
        edited.read_files();
        edited.list_images();
        edited
    }

    /// Makes of a product for others what they get: everything that can be offered.
    pub fn of_others(product: Product<'a>, policy: &Policy) -> Self {
        let mut edited = Self::unchanged(product);
        edited.read_files();
        edited.drop_absent(policy.held.as_deref());
        edited.list_files();
        edited
    }

    fn unchanged(product: Product<'a>) -> Self {
        Self {
            product: Some(product),
            is_changed: false,
            is_incomplete: false,
            content: Content::default(),
            awaited: Vec::new(),
            apart: Vec::new(),
            faults: Vec::new(),
        }
    }

    fn make_sound(&mut self) {
        let is_sound = self.product.as_mut().is_some_and(|product| sound::make_product_sound(product, &mut self.faults));
        self.is_changed |= !self.faults.is_empty();
        self.product.take_if(|_| !is_sound);
    }

    /// Takes something out of the product, and lets go of it when nothing is left.
    fn edit(&mut self, take_out: impl FnOnce(&mut Product<'a>) -> bool, and_then: impl FnOnce(&mut Self)) {
        if self.product.as_mut().is_some_and(take_out) {
            self.is_changed = true;
            self.product.take_if(|product| product.versions.is_empty());
            and_then(self);
        }
    }

    /// Reads which files there are, and takes out those that cannot be offered: before anything is selected, or the newest
    /// version could be one of which nothing is left.
    fn read_files(&mut self) {
        let Some(product) = &mut self.product else { return };
        let before = self.faults.len();
        for version in &mut product.versions {
            version.items.retain_mut(|item| {
                let read = item.read_file();
                self.faults
                    .extend(read.as_ref().err().map(|reason| Fault::new(&[&product.name, &version.name, &item.name], reason.clone())));
                read.is_ok()
            });
        }
        let is_any_gone = self.faults.len() > before;
        self.is_changed |= is_any_gone;
        self.is_incomplete |= is_any_gone;
    }

    /// Takes out the files that are not held, if there is nobody to have them from, and what has nothing left then.
    fn drop_absent(&mut self, held: Option<&Holdings>) {
        let (Some(product), Some(held)) = (&mut self.product, held) else { return };
        let is_there = |item: &Item<'_>| item.file.as_ref().is_none_or(|file| held.has(file.expected));
        let before: usize = product.versions.iter().map(|version| version.items.len()).sum();
        product.versions.iter_mut().for_each(|version| drop_halves(&product.name, version, is_there));
        let after: usize = product.versions.iter().map(|version| version.items.len()).sum();
        if after < before {
            self.is_changed = true;
            self.is_incomplete = true;
            product.versions.retain(|version| !version.items.is_empty());
            self.product.take_if(|product| product.versions.is_empty());
        }
    }

    /// Lists the files that are left.
    fn list_files(&mut self) {
        let Some(product) = &self.product else { return };
        // All products' files are there together until they are listed.
        let items = product.versions.iter().flat_map(|version| &version.items);
        self.content.files.reserve_exact(items.filter(|item| item.file.is_some()).count());
        for version in &product.versions {
            let modified = modified(version);
            self.content.files.extend(version.items.iter().filter_map(|item| Some(File::new(item.file.as_deref()?.clone(), modified))));
            self.content.deltas.extend(deltas(product, version));
        }
    }

    /// Lists the images that are left, and why others are invisible.
    fn list_images(&mut self) {
        let Some(product) = &self.product else { return };
        let architecture = images::architecture(product);
        let facts = architecture.as_ref().ok().map(|architecture| Arc::new(facts_of(product, *architecture)));
        for version in &product.versions {
            let (images, faults) = list_images(&product.name, version, facts.as_ref());
            self.content.images.extend(images);
            self.faults.extend(faults);
        }
        self.faults.extend(architecture.err().map(|reason| Fault::new(&[&product.name], reason)));
    }

    /// Hides new versions of what is held and kept up to date, until they are held too; whether nothing is left then.
    fn hold_back(&mut self, stock: &Stock, document: &StreamPath) -> bool {
        let Some(product) = &mut self.product else { return false };
        let awaited = hold_back::awaited(product, stock);
        let Some(facts) = images::architecture(product).ok().filter(|_| !awaited.is_empty()) else { return false };
        let facts = Arc::new(facts_of(product, facts));
        for hold_back::Awaited { version, image } in &awaited {
            let version = &product.versions[*version];
            let listed = facts_of_version(version, &facts).and_then(|facts| listed(image, version, &Arc::new(facts)));
            let deltas = deltas_of(product, version, image, stock);
            let excerpt = retain::excerpt(product, &version.name, image.fingerprint).map(|text| (document.clone(), text));
            self.awaited.extend(listed.map(|image| Awaited { image, deltas, excerpt }));
        }
        hold_back::hide(product, stock);
        self.is_changed = true;
        product.versions.is_empty()
    }

    /// Puts back images that upstream lists no more; the places of those that need a product of their own.
    fn put_back(&mut self, there: &[(ImageType, String)], stock: &Stock, retained: &[(&'a Retained, Product<'a>)]) {
        let Some(product) = &mut self.product else { return };
        let before = product.versions.len();
        self.apart = retain::put_back(product, there, stock, retained);
        self.is_changed |= product.versions.len() > before;
        product.versions[before..].iter_mut().flat_map(|version| &mut version.items).for_each(|item| drop(item.read_file()));
    }
}

/// The types of images that a product has, each with the serials of its versions.
fn types_there(product: Option<&Product<'_>>) -> Vec<(ImageType, String)> {
    let mut there = Vec::new();
    for version in product.iter().flat_map(|product| &product.versions).filter(|version| images::serial_date(&version.name).is_ok()) {
        let (images, _) = images::of_version("", version);
        there.extend(
            ImageType::ALL
                .into_iter()
                .filter(|wanted| images.iter().any(|image| image.image_type == *wanted))
                .map(|image_type| (image_type, version.name.to_string())),
        );
    }
    there
}

fn path_of(item: &Item<'_>) -> Option<StreamPath> {
    item.file.as_ref().map(|file| file.path.clone())
}

/// Each delta of a version with the root that it makes.
fn deltas(product: &Product<'_>, version: &Version<'_>) -> Vec<(StreamPath, StreamPath)> {
    let ftypes: Vec<Ftype> = version.items.iter().map(|item| images::ftype(&item.fields)).collect();
    let file = |wanted: Ftype| version.items.iter().zip(&ftypes).find(|(_, ftype)| **ftype == wanted).and_then(|(item, _)| path_of(item));
    let of_item = |(item, ftype): (&Item<'_>, &Ftype)| match ftype {
        Ftype::Delta(root) => Some((path_of(item)?, file(Ftype::Root(*root))?)),
        _ => None,
    };
    if ftypes.iter().any(|ftype| matches!(ftype, Ftype::Delta(_))) && !product.versions.is_empty() {
        version.items.iter().zip(&ftypes).filter_map(of_item).collect()
    } else {
        Vec::new()
    }
}

/// The deltas that make an image out of one that is held: hosts that have that one ask for them.
fn deltas_of(product: &Product<'_>, version: &Version<'_>, image: &images::Image, stock: &Stock) -> Vec<ListedFile> {
    let Some((root, _)) = image.root else { return Vec::new() };
    let is_base_held = |item: &Item<'_>| {
        let base = item.fields.text_or_none("delta_base").unwrap_or_default();
        let base = product.versions.iter().find(|version| version.name == base);
        base.is_some_and(|base| {
            images::of_version("", base)
                .0
                .iter()
                .any(|base| base.root.is_some_and(|(kind, _)| kind == root) && stock.whole.contains(&base.fingerprint))
        })
    };
    let deltas = version.items.iter().filter(|item| images::ftype(&item.fields) == Ftype::Delta(root) && is_base_held(item));
    deltas.filter_map(|item| item.file.as_deref().cloned()).collect()
}

/// The time of a version's files: when the day of its serial began.
pub fn modified(version: &Version<'_>) -> Option<SystemTime> {
    images::serial_date(&version.name).ok().and_then(|date| version::midnight(date).try_into().ok())
}

/// Takes out of a version the items that are not there, and images of which one part is not: half an image is none.
fn drop_halves(product: &str, version: &mut Version<'_>, is_there: impl Fn(&Item<'_>) -> bool) {
    let (images, _) = images::of_version(product, version);
    let is_whole = |image: &images::Image| image.places().all(|place| version.items.get(place).is_some_and(&is_there));
    let whole: Vec<images::Image> = images.iter().filter(|image| is_whole(image)).cloned().collect();
    if whole.is_empty() && !images.is_empty() {
        // A manifest alone is of no use to anybody.
        version.items.clear();
    } else if whole.len() < images.len() {
        prune(version, &images, |image| whole.contains(image), Rest::Keep);
    }
    version.items.retain(is_there);
}

/// Takes out the images that turned out wrong, and the versions that have nothing left then; whether there were any.
fn drop_wrong_images(product: &mut Product<'_>, wrong: &HashSet<Digest>) -> bool {
    let mut is_changed = false;
    let name = &product.name;
    product.versions.retain_mut(|version| {
        if wrong.is_empty() {
            return true;
        }
        let (images, _) = images::of_version(name, version);
        let is_wrong = |image: &images::Image| {
            files_of(image, version)
                .is_some_and(|files| wrong.contains(&Image::key_of(image.fingerprint, files.iter().map(|file| file.expected))))
        };
        let good: Vec<images::Image> = images.iter().filter(|image| !is_wrong(image)).cloned().collect();
        let has_wrong = good.len() != images.len();
        if has_wrong {
            prune(version, &images, |image| good.contains(image), Rest::Keep);
        }
        is_changed |= has_wrong;
        !has_wrong || !version.items.is_empty()
    });
    is_changed
}

/// The images of a version that clients see and that can be had, and why others are invisible.
fn list_images(name: &str, version: &Version<'_>, product: Option<&Arc<version::Product>>) -> (Vec<Image>, Vec<Fault>) {
    let (images, mut faults) = images::of_version(name, version);
    if let Some(facts) = product.and_then(|product| facts_of_version(version, product)) {
        let facts = Arc::new(facts);
        return (images.iter().filter_map(|image| listed(image, version, &facts)).collect(), faults);
    }
    if !images.is_empty() {
        faults.extend(images::serial_date(&version.name).err().map(|reason| Fault::new(&[name, &version.name], reason)));
    }
    (Vec::new(), faults)
}

/// An image with what is claimed of its files; `None` if one of them cannot be had.
fn listed(image: &images::Image, version: &Version<'_>, facts: &Arc<version::Version>) -> Option<Image> {
    let root = image.root.map(|(root, _)| root);
    let (fingerprint, image_type) = (image.fingerprint, image.image_type);
    Some(Image { fingerprint, files: files_of(image, version)?, image_type, root, version: Arc::clone(facts) })
}

fn files_of(image: &images::Image, version: &Version<'_>) -> Option<Vec<ListedFile>> {
    // Collected, they would have room for four, as long as they are listed.
    let mut files = Vec::with_capacity(image.places().count());
    for place in image.places() {
        files.push(version.items.get(place)?.file.as_deref()?.clone());
    }
    Some(files)
}

/// What a document says of a version; `None` if clients skip it.
fn facts_of_version(version: &Version<'_>, product: &Arc<version::Product>) -> Option<version::Version> {
    let label = version.fields.text_or_none("label").unwrap_or_default().as_ref().into();
    let date = images::serial_date(&version.name).ok()?;
    Some(version::Version { product: Arc::clone(product), serial: version.name.as_ref().into(), date, label })
}

/// What a document says of a product, under LXD's names.
fn facts_of(product: &Product<'_>, architecture: Architecture) -> version::Product {
    let text = |name| product.fields.text_or_none(name).unwrap_or_default().into_owned();
    let named = [("os", "os"), ("release", "release"), ("version", "version"), ("architecture", "arch"), ("variant", "variant")];
    let mut properties: BTreeMap<String, String> =
        named.into_iter().map(|(name, field)| (name.to_owned(), text(field))).filter(|(_, value)| !value.is_empty()).collect();
    let requirements = |key| product.fields.read::<BTreeMap<String, String>>(key, "an object of strings").ok().flatten();
    let requirements = requirements("lxd_requirements").or_else(|| requirements("requirements")).unwrap_or_default();
    properties.extend(requirements.into_iter().map(|(name, value)| (format!("requirements.{name}"), value)));
    let (title, expires) = (text("release_title"), text("support_eol").parse().ok());
    version::Product { name: product.name.to_string(), architecture, aliases: product.aliases(), properties, title, expires }
}
