//! What is served under a remote's own name.
//!
//! A document goes out exactly as it came, unless the selection, twins, a wrong fingerprint or an item that clients
//! cannot digest require another one.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use bytes::Bytes;
use jiff::Timestamp;

use crate::catalog::listing::{Image, Listing, midnight};
use crate::digest::{Digest, Expected};
use crate::http::path::StreamPath;
use crate::render::prune::{Rest, prune};
use crate::render::{sound, twins};
use crate::selection::Selection;
use crate::signature;
use crate::simplestreams::fault::Fault;
use crate::simplestreams::file::ListedFile;
use crate::simplestreams::images;
use crate::simplestreams::index::{Entry, Index};
use crate::simplestreams::products::{Products, Version};
use crate::simplestreams::snapshot::{Role, Snapshot, Source};

/// How a remote's documents are to be changed.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// What of them is listed.
    pub selection: Selection,
    /// Whether LXD's images are listed for Incus, and the other way round.
    pub twins: bool,
    /// Keys of images whose bytes turned out to have another fingerprint. No client would take them.
    pub wrong: HashSet<Digest>,
}

/// What is served of a remote.
#[derive(Debug, Default)]
pub struct Rendered {
    /// The documents below its name.
    pub documents: Vec<Ready>,
    /// What the root takes from it: every products document, with its entry in the index.
    pub parts: Vec<Part>,
    /// Its files and images.
    pub listing: Listing,
    /// What was left out of it, and why.
    pub faults: Vec<(StreamPath, Fault)>,
}

/// A document that may go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Its path below the remote's name, or below the root.
    pub path: StreamPath,
    /// Its bytes.
    pub bytes: Bytes,
    /// When what it was made of was taken from upstream.
    pub last_modified: Timestamp,
}

/// A products document and what the index says of it.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its key in the index.
    pub content_id: String,
    /// Its entry in the index, as JSON.
    pub entry: String,
    /// What it is.
    pub role: Role,
    /// The document.
    pub document: Ready,
}

/// The files that one document names, each with the time of its version.
type Files = Vec<(ListedFile, Option<SystemTime>)>;

/// Everything that the documents of a snapshot name: what is still served of it when newer ones have taken its place.
pub fn files_of(snapshot: &Snapshot) -> Listing {
    let mut listing = Listing::default();
    for source in snapshot.documents.iter().filter(|source| source.role != Role::Index) {
        files_of_document(source).iter().for_each(|(file, modified)| listing.add_file(&file.path, file.expected, *modified));
    }
    listing
}

fn files_of_document(source: &Source) -> Files {
    let Some(text) = text(&source.bytes) else { return Files::new() };
    let Ok((document, _)) = Products::parse(&text) else { return Files::new() };
    let mut files = Files::new();
    for version in document.products.iter().flat_map(|product| &product.versions) {
        let listed = version.items.iter().filter_map(|item| ListedFile::of_item(&item.fields).ok().flatten());
        files.extend(listed.map(|file| (file, modified(version))));
    }
    files
}

/// Renders the newest snapshot of a remote.
pub fn render(newest: &Snapshot, policy: &Policy) -> Rendered {
    let mut work = Work::new(newest, policy);
    let with = |wanted: fn(Role) -> bool| newest.documents.iter().filter(move |source| wanted(source.role));
    with(|role| matches!(role, Role::Images | Role::Other)).for_each(|source| work.products(source));
    with(|role| role == Role::Index).for_each(|source| work.index(source));
    with(|role| role == Role::Signed).for_each(|source| work.signed(source));
    work.outcome
}

/// The text of a document, out of its signature if it has one.
pub fn text(bytes: &[u8]) -> Option<Cow<'_, str>> {
    match signature::payload(bytes).ok()? {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

struct Work<'a> {
    newest: &'a Snapshot,
    policy: &'a Policy,
    last_modified: Timestamp,
    outcome: Rendered,
    /// The names of the products that each rendered document has left.
    products_left: HashMap<StreamPath, Vec<String>>,
    /// Whether upstream's documents name a file that is not served.
    incomplete: bool,
}

impl<'a> Work<'a> {
    fn new(newest: &'a Snapshot, policy: &'a Policy) -> Self {
        let last_modified = newest.accepted_at;
        let outcome = Rendered::default();
        Self { newest, policy, last_modified, outcome, products_left: HashMap::new(), incomplete: false }
    }

    fn products(&mut self, source: &Source) {
        let Some(text) = text(&source.bytes) else { return };
        let Ok((mut document, faults)) = Products::parse(&text) else { return };
        let is_changed = self.edit(source, &mut document, faults);
        let bytes = if is_changed { document.to_json().into() } else { source.bytes.clone() };
        if is_changed {
            let names = document.products.iter().map(|product| product.name.to_string()).collect();
            self.products_left.insert(source.path.clone(), names);
        }
        let ready = self.ready(&source.path, bytes);
        self.outcome.documents.push(ready);
    }

    /// Makes of a document what hosts get, and lists what is in it; whether it was changed.
    fn edit(&mut self, source: &Source, document: &mut Products<'_>, mut faults: Vec<Fault>) -> bool {
        let for_images = source.role == Role::Images;
        faults.retain(|_| for_images);
        if for_images {
            faults.extend(sound::make_sound(document));
        }
        let mut is_changed = !faults.is_empty();
        self.note(source, faults);
        if for_images {
            let is_selected_from = self.policy.selection.apply(document);
            self.incomplete |= is_selected_from;
            is_changed |= is_selected_from | self.drop_wrong_images(document);
        }
        is_changed |= self.list(source, document, for_images);
        is_changed |= for_images && self.policy.twins && twins::add_twins(document);
        if is_changed && for_images {
            twins::add_requirements(document);
        }
        is_changed
    }

    /// Takes out the images that turned out wrong, and what has nothing left then; whether there were any.
    fn drop_wrong_images(&self, document: &mut Products<'_>) -> bool {
        let wrong = &self.policy.wrong;
        if wrong.is_empty() {
            return false;
        }
        let mut is_changed = false;
        for product in &mut document.products {
            let name = &product.name;
            product.versions.retain_mut(|version| {
                let (images, _) = images::of_version(name, version);
                let files: Vec<_> = version.items.iter().map(|item| ListedFile::of_item(&item.fields).ok().flatten()).collect();
                let is_wrong = |image: &images::Image| listed(image, &files).is_some_and(|image| wrong.contains(&image.key()));
                let has_wrong = images.iter().any(is_wrong);
                if has_wrong {
                    prune(version, &images, |image| !is_wrong(image), Rest::Keep);
                }
                is_changed |= has_wrong;
                !has_wrong || !version.items.is_empty()
            });
        }
        document.products.retain(|product| !is_changed || !product.versions.is_empty());
        is_changed
    }

    /// Lists the files and images of a document, and takes out of it what cannot be offered; whether there was any.
    fn list(&mut self, source: &Source, document: &mut Products<'_>, for_images: bool) -> bool {
        let (mut unservable, mut invisible) = (Vec::new(), Vec::new());
        for product in &mut document.products {
            let architecture = images::architecture(product);
            for version in &mut product.versions {
                let files = self.list_files(&product.name, version, &mut unservable);
                if for_images {
                    invisible.extend(self.list_images(&product.name, version, &files, architecture.is_ok()));
                }
            }
            invisible.extend(architecture.err().filter(|_| for_images).map(|reason| Fault::new(&[&product.name], reason)));
        }
        let is_changed = !unservable.is_empty();
        self.incomplete |= is_changed;
        self.note(source, unservable);
        self.note(source, invisible);
        is_changed
    }

    /// Lists the files of a version; what each of the items that stay names.
    fn list_files(&mut self, product: &str, version: &mut Version<'_>, faults: &mut Vec<Fault>) -> Vec<Option<ListedFile>> {
        let mut files = Vec::with_capacity(version.items.len());
        let modified = modified(version);
        version.items.retain(|item| match ListedFile::of_item(&item.fields) {
            Ok(file) => {
                files.push(file);
                true
            }
            Err(reason) => {
                faults.push(Fault::new(&[product, &version.name, &item.name], reason));
                false
            }
        });
        files.iter().flatten().for_each(|file| self.list_file(file, modified));
        files
    }

    fn list_file(&mut self, file: &ListedFile, modified: Option<SystemTime>) {
        self.outcome.listing.add_file(&file.path, file.expected, modified);
    }

    fn list_images(&mut self, product: &str, version: &Version<'_>, files: &[Option<ListedFile>], is_known: bool) -> Vec<Fault> {
        let (images, mut faults) = images::of_version(product, version);
        let serial = images::serial_date(&version.name);
        if is_known && serial.is_ok() {
            images.iter().filter_map(|image| listed(image, files)).for_each(|image| self.outcome.listing.add_image(image));
        } else if !images.is_empty() {
            faults.extend(serial.err().map(|reason| Fault::new(&[product, &version.name], reason)));
        }
        faults
    }

    fn index(&mut self, source: &Source) {
        let Some(text) = text(&source.bytes) else { return };
        let Ok((mut index, mut faults)) = Index::parse(&text) else { return };
        faults.extend(sound::make_index_sound(&mut index));
        let mut is_changed = !faults.is_empty();
        self.note(source, faults);
        index.entries.retain_mut(|entry| match self.settle_entry(entry) {
            Settled::AsItCame => true,
            Settled::Changed => {
                is_changed = true;
                true
            }
            Settled::Dropped => {
                is_changed = true;
                false
            }
        });
        index.entries.iter().for_each(|entry| self.take_part(entry));
        let bytes = if is_changed { index.to_json().into() } else { source.bytes.clone() };
        let ready = self.ready(&source.path, bytes);
        self.outcome.documents.push(ready);
    }

    /// Makes an entry of an index true of the document that it names.
    fn settle_entry(&self, entry: &mut Entry<'_>) -> Settled {
        let Ok(Some(path)) = entry.path() else { return Settled::AsItCame };
        if self.newest.document(&path).is_none() {
            return Settled::Dropped;
        }
        match self.products_left.get(&path) {
            Some(names) if names.is_empty() => Settled::Dropped,
            Some(names) if entry.fields.read::<Vec<String>>("products", "").ok().flatten().as_ref() != Some(names) => {
                entry.fields.set("products", names);
                Settled::Changed
            }
            _ => Settled::AsItCame,
        }
    }

    fn take_part(&mut self, entry: &Entry<'_>) {
        let Ok(Some(path)) = entry.path() else { return };
        let Some(role) = self.newest.document(&path).map(|source| source.role) else { return };
        if self.outcome.parts.iter().any(|part| part.document.path == path) {
            return;
        }
        if let Some(document) = self.outcome.documents.iter().find(|ready| ready.path == path && role != Role::Index).cloned() {
            let mut json = Vec::new();
            entry.fields.write(&mut json, None, |_| {});
            let entry_json = String::from_utf8_lossy(&json).into_owned();
            self.outcome.parts.push(Part { content_id: entry.content_id.to_string(), entry: entry_json, role, document });
        }
    }

    /// A signed document names the files that upstream has; it goes out only while each of them can be had here.
    fn signed(&mut self, source: &Source) {
        if self.incomplete {
            return;
        }
        files_of_document(source).iter().for_each(|(file, modified)| self.list_file(file, *modified));
        let ready = self.ready(&source.path, source.bytes.clone());
        self.outcome.documents.push(ready);
    }

    fn ready(&self, path: &StreamPath, bytes: Bytes) -> Ready {
        Ready { path: path.clone(), bytes, last_modified: self.last_modified }
    }

    fn note(&mut self, source: &Source, faults: Vec<Fault>) {
        self.outcome.faults.extend(faults.into_iter().map(|fault| (source.path.clone(), fault)));
    }
}

/// The time of a version's files: when the day of its serial began.
fn modified(version: &Version<'_>) -> Option<SystemTime> {
    images::serial_date(&version.name).ok().and_then(midnight)
}

/// An image with what is claimed of its files; `None` if one of them cannot be had.
fn listed(image: &images::Image, files: &[Option<ListedFile>]) -> Option<Image> {
    let expected = |place: usize| files.get(place)?.as_ref().map(|file| file.expected);
    let needed = [Some(image.metadata), image.root.map(|(_, place)| place)];
    let files: Option<Vec<Expected>> = needed.into_iter().flatten().map(expected).collect();
    Some(Image { fingerprint: image.fingerprint, files: files? })
}

enum Settled {
    AsItCame,
    Changed,
    Dropped,
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use crate::http::path::StreamPath;
    use crate::render::remote::{Policy, render};
    use crate::simplestreams::snapshot::{Role, Snapshot, Source};

    /// A document of three files, two of which cannot be offered, beside its signed twin.
    fn snapshot(role: Role) -> Snapshot {
        let path = |path: &str| StreamPath::from_document(path).unwrap();
        let items = r#"{"good":{"path":"a","md5":"900150983cd24fb0d6963f7d28e17f72"},"unverifiable":{"path":"b"},"outside":{"path":"../c","md5":"900150983cd24fb0d6963f7d28e17f72"}}"#;
        let text = format!(r#"{{"products":{{"p":{{"arch":"amd64","versions":{{"20260101":{{"items":{items}}}}}}}}}}}"#);
        let source = |name: &str, role| Source { path: path(name), role, bytes: text.clone().into() };
        let documents = vec![source("streams/v1/x.json", role), source("streams/v1/x.sjson", Role::Signed)];
        Snapshot { url: String::new(), accepted_at: Timestamp::UNIX_EPOCH, documents }
    }

    #[test]
    fn a_file_that_cannot_be_offered_leaves_its_document_and_takes_the_signed_one_along() {
        for role in [Role::Images, Role::Other] {
            let rendered = render(&snapshot(role), &Policy::default());
            let [document] = &*rendered.documents else { panic!("the signed document must not go out: {:?}", rendered.documents) };
            assert!(document.bytes.ends_with(br#"{"good":{"path":"a","md5":"900150983cd24fb0d6963f7d28e17f72"}}}}}}}"#), "{role:?}");
            let faults: Vec<String> = rendered.faults.iter().map(|(_, fault)| fault.at.join(" / ")).collect();
            assert_eq!(faults, ["p / 20260101 / unverifiable", "p / 20260101 / outside"], "{role:?}");
        }
    }
}
