//! What is served under a remote's own name.
//!
//! A document goes out exactly as it came, unless the selection, twins, a wrong fingerprint or an item that clients
//! cannot digest require another one.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::catalog::files::File;
use crate::catalog::listing::Listing;
use crate::http::path::StreamPath;
use crate::render::assembly::Assembly;
use crate::render::batch::Press;
use crate::render::part::{Part, Ready, Sheet};
use crate::render::policy::{Policy, Retained};
use crate::render::product::{Awaited, Whence, modified};
use crate::render::{retain, sound};
use crate::simplestreams::fault::Fault;
use crate::simplestreams::file::ListedFile;
use crate::simplestreams::index::{Entry, Index};
use crate::simplestreams::object::Object;
use crate::simplestreams::outline::Outline;
use crate::simplestreams::products::Product;
use crate::simplestreams::snapshot::{Role, Snapshot, Source};

/// What is served of a remote.
#[derive(Debug, Default)]
pub struct Rendered {
    /// The documents below its name.
    pub documents: Vec<Ready>,
    /// What the root takes from it: every products document, with its entry in the index.
    pub parts: Vec<Part>,
    /// Its files and images.
    pub listing: Listing,
    /// Images that are listed when they are held.
    pub awaited: Vec<Awaited>,
    /// What was left out of it, and why.
    pub faults: Vec<(StreamPath, Fault)>,
}

/// Everything that the documents of a snapshot name: what is still served of it when newer ones have taken its place, and
/// what hosts may still take for the newest.
pub fn listing_of(snapshot: &Snapshot, policy: &Policy) -> Listing {
    let mut work = Work::new("", snapshot, policy);
    snapshot.documents.iter().filter(|source| matches!(source.role, Role::Images | Role::Other)).for_each(|source| work.list_only(source));
    for source in snapshot.documents.iter().filter(|source| source.role == Role::Signed) {
        let there = files_of_document(source).into_iter().filter(|file| policy.held.as_ref().is_none_or(|held| held.has(file.expected)));
        there.for_each(|file| work.outcome.listing.add_file(file));
    }
    work.outcome.listing
}

/// The files that one document names.
fn files_of_document(source: &Source) -> Vec<File> {
    let Ok(text) = source.text() else { return Vec::new() };
    let Ok((document, _)) = source.outline(&text) else { return Vec::new() };
    let mut files = Vec::new();
    for product in document.products.iter().filter_map(|unread| unread.read::<Product<'_>>().0) {
        for version in &product.versions {
            let listed = version.items.iter().filter_map(|item| ListedFile::of_item(&item.fields).ok().flatten());
            files.extend(listed.map(|file| File::new(file, modified(version))));
        }
    }
    files
}

/// Renders the newest snapshot of the remote `name`.
pub fn render(name: &str, newest: &Snapshot, policy: &Policy) -> Rendered {
    let mut work = Work::new(name, newest, policy);
    let with = |wanted: fn(Role) -> bool| newest.documents.iter().filter(move |source| wanted(source.role));
    with(|role| matches!(role, Role::Images | Role::Other)).for_each(|source| work.products(source));
    with(|role| role == Role::Index).for_each(|source| work.index(source));
    with(|role| role == Role::Signed).for_each(|source| work.signed(source));
    work.outcome
}

struct Work<'a> {
    name: &'a str,
    newest: &'a Snapshot,
    policy: &'a Policy,
    outcome: Rendered,
    /// The names of the products that each rendered document has left.
    products_left: HashMap<StreamPath, Vec<String>>,
    /// What the root takes, until the index says what it is called.
    sheets: HashMap<StreamPath, Sheet>,
    /// The documents that go out otherwise than they came.
    changed: HashSet<StreamPath>,
    /// Whether upstream's documents name a file that is not served.
    incomplete: bool,
}

impl<'a> Work<'a> {
    fn new(name: &'a str, newest: &'a Snapshot, policy: &'a Policy) -> Self {
        let outcome = Rendered::default();
        Self {
            name,
            newest,
            policy,
            outcome,
            products_left: HashMap::new(),
            sheets: HashMap::new(),
            changed: HashSet::new(),
            incomplete: false,
        }
    }

    fn products(&mut self, source: &Source) {
        let Ok(text) = source.text() else { return };
        let Some(document) = self.outline(source, &text) else { return };
        let assembly = self.rendered(source, &document, Some(self.name));
        let is_changed = self.changed.contains(&source.path);
        if is_changed {
            self.products_left.insert(source.path.clone(), assembly.names.iter().map(ToString::to_string).collect());
        }
        let (own, sheet) = assembly.finish(is_changed);
        let bytes = own.map_or_else(|| source.bytes.clone(), Bytes::from);
        let ready = self.ready(&source.path, bytes);
        self.outcome.documents.push(ready);
        self.sheets.insert(source.path.clone(), sheet);
    }

    /// A document whose products are not read yet, and whose fields are sound.
    fn outline<'t>(&mut self, source: &'t Source, text: &'t str) -> Option<Outline<'t>> {
        let (mut document, mut faults) = source.outline(text).ok()?;
        if source.role == Role::Images {
            faults.extend(sound::make_sound(&mut document.fields));
        } else {
            // What others make of their documents is their business.
            faults.clear();
        }
        if !faults.is_empty() {
            self.changed.insert(source.path.clone());
        }
        self.note(source, faults);
        Some(document)
    }

    /// Makes of the products of a document what hosts get, and notes how it went.
    fn rendered<'d, 't>(&mut self, source: &Source, document: &'d Outline<'t>, remote: Option<&str>) -> Assembly<'d, 't>
    where
        'a: 't,
    {
        let policy: &'t Policy = self.policy;
        let retained = if source.role == Role::Images { self.retained(source, &document.fields) } else { Vec::new() };
        let whence = Whence { path: &source.path, fields: &document.fields };
        let press = Press { role: source.role, policy, retained: &retained, whence, remote };
        let mut assembly = Assembly::of(document, &press, &mut self.outcome.listing);
        self.incomplete |= assembly.found.is_incomplete;
        self.outcome.awaited.append(&mut assembly.found.awaited);
        self.note(source, std::mem::take(&mut assembly.found.faults));
        if assembly.found.is_changed {
            self.changed.insert(source.path.clone());
        }
        assembly
    }

    /// The images that this document listed and may have to list for longer than upstream does.
    fn retained<'t>(&self, source: &Source, document: &Object<'t>) -> Vec<(&'t Retained, Product<'t>)>
    where
        'a: 't,
    {
        let first = self.newest.documents.iter().find(|other| other.role == Role::Images);
        let is_first = first.is_some_and(|first| first.path == source.path);
        let is_here =
            |retained: &Retained| retained.document == source.path || (is_first && self.newest.document(&retained.document).is_none());
        let excerpts = retain::excerpts(&self.policy.stock, &self.policy.selection, document);
        excerpts.into_iter().filter(|(retained, _)| is_here(retained)).collect()
    }

    /// Lists a document that is not served any more.
    fn list_only(&mut self, source: &Source) {
        let Ok(text) = source.text() else { return };
        let Some(document) = self.outline(source, &text) else { return };
        self.rendered(source, &document, None);
    }

    fn index(&mut self, source: &Source) {
        let Ok(text) = source.text() else { return };
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
        if is_changed {
            self.changed.insert(source.path.clone());
        }
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
        let listed = entry.fields.read::<Vec<String>>("products", "").ok().flatten();
        match self.products_of(&path, listed.is_some()) {
            Some(names) if names.is_empty() => Settled::Dropped,
            Some(names) if listed.as_ref() != Some(&names) => {
                entry.fields.set("products", &names);
                Settled::Changed
            }
            _ => Settled::AsItCame,
        }
    }

    /// The products that a document has, where the index cannot say so: of one that was changed, or if it has no list.
    fn products_of(&self, path: &StreamPath, is_listed: bool) -> Option<Vec<String>> {
        let own = || Some(self.sheets.get(path)?.pieces.iter().map(|piece| piece.name.clone()).collect());
        self.products_left.get(path).cloned().or_else(|| own().filter(|_| !is_listed))
    }

    fn take_part(&mut self, entry: &Entry<'_>) {
        if let Ok(Some(path)) = entry.path()
            && let Some(sheet) = self.sheets.remove(&path)
        {
            self.outcome.parts.push(Part::new(path, self.newest.accepted_at, entry, sheet));
        }
    }

    /// A signed document names the files that upstream has; it goes out only while each of them can be had here. A
    /// signature beside a document goes out only if the document is the one that was signed.
    fn signed(&mut self, source: &Source) {
        let signed = source.path.as_str().strip_suffix(".gpg").and_then(|path| StreamPath::from_document(path).ok());
        if self.incomplete || signed.is_some_and(|signed| self.changed.contains(&signed)) {
            return;
        }
        files_of_document(source).into_iter().for_each(|file| self.outcome.listing.add_file(file));
        let ready = self.ready(&source.path, source.bytes.clone());
        self.outcome.documents.push(ready);
    }

    fn ready(&self, path: &StreamPath, bytes: Bytes) -> Ready {
        Ready { path: path.clone(), bytes, last_modified: self.newest.accepted_at }
    }

    fn note(&mut self, source: &Source, faults: Vec<Fault>) {
        self.outcome.faults.extend(faults.into_iter().map(|fault| (source.path.clone(), fault)));
    }
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
    use crate::render::policy::Policy;
    use crate::render::remote::{Rendered, render};
    use crate::selection::Selection;
    use crate::simplestreams::snapshot::{Role, Snapshot, Source};

    /// A document of three files, two of which cannot be offered, beside its signed twin.
    fn snapshot(role: Role) -> Snapshot {
        let path = |path: &str| StreamPath::from_document(path).unwrap();
        let items = r#"{"good":{"path":"a","md5":"900150983cd24fb0d6963f7d28e17f72"},"unverifiable":{"path":"b"},"outside":{"path":"../c","md5":"900150983cd24fb0d6963f7d28e17f72"}}"#;
        let text = format!(r#"{{"products":{{"p":{{"arch":"amd64","versions":{{"20260101":{{"items":{items}}}}}}}}}}}"#);
        let source = |name: &str, role| Source::new(path(name), role, text.clone().into());
        let documents = vec![source("streams/v1/x.json", role), source("streams/v1/x.sjson", Role::Signed)];
        Snapshot { url: String::new(), accepted_at: Timestamp::UNIX_EPOCH, documents }
    }

    fn rendered(text: &str, policy: &Policy) -> Rendered {
        let path = |path: &str| StreamPath::from_document(path).unwrap();
        let source = |name: &str, role| Source::new(path(name), role, text.to_owned().into());
        let documents = vec![source("streams/v1/x.json", Role::Images), source("streams/v1/x.json.gpg", Role::Signed)];
        render("ubuntu", &Snapshot { url: String::new(), accepted_at: Timestamp::UNIX_EPOCH, documents }, policy)
    }

    #[test]
    fn the_newest_version_is_the_newest_of_which_something_is_left() {
        let good = r#"{"items":{"a":{"path":"a","md5":"900150983cd24fb0d6963f7d28e17f72"}}}"#;
        let text = format!(
            r#"{{"products":{{"p":{{"arch":"amd64","versions":{{"20260102":{{"items":{{"a":{{"path":"b"}}}}}},"20260101":{good}}}}}}}}}"#
        );
        let policy = Policy { selection: Selection { versions: 1, ..Selection::default() }, ..Policy::default() };
        let documents = rendered(&text, &policy).documents;
        assert_eq!(documents[0].bytes, format!(r#"{{"products":{{"p":{{"arch":"amd64","versions":{{"20260101":{good}}}}}}}}}"#));
    }

    /// More products than there are batches, and some of each batch go out as they came.
    #[test]
    fn a_document_of_many_products_is_what_each_of_them_is() {
        // Many are not as they came; only one of the last; none.
        for is_bad in [|number: usize| number.is_multiple_of(3), |number| number == 290, |_| false] {
            let many = |bad: &str, prefix: &str| {
                let product = |number: usize| {
                    let bad = if is_bad(number) { bad } else { "" };
                    let good = format!(r#""good":{{"path":"{prefix}f{number}","md5":"900150983cd24fb0d6963f7d28e17f72"}}"#);
                    format!(r#""p{number}":{{"arch":"amd64","versions":{{"20260101":{{"items":{{{good}{bad}}}}}}}}}"#)
                };
                format!(r#"{{"products":{{{}}}}}"#, (0..300).map(product).collect::<Vec<_>>().join(","))
            };
            let path = |path: &str| StreamPath::from_document(path).unwrap();
            let source = |name: &str, role, text: String| Source::new(path(name), role, text.into());
            let index = r#"{"index":{"x":{"datatype":"image-downloads","path":"streams/v1/x.json"}}}"#;
            let documents = vec![
                source("streams/v1/index.json", Role::Index, index.to_owned()),
                source("streams/v1/x.json", Role::Images, many(r#","bad":{"path":"b"}"#, "")),
            ];
            let snapshot = Snapshot { url: String::new(), accepted_at: Timestamp::UNIX_EPOCH, documents };
            let rendered = render("far", &snapshot, &Policy::default());
            assert_eq!(rendered.documents[0].bytes, many("", ""));
            let sheet = &rendered.parts[0].sheet;
            assert_eq!(sheet.text, many("", "far/"));
            assert!(sheet.pieces.iter().all(|piece| sheet.json(piece).starts_with(r#"{"arch""#) && sheet.json(piece).ends_with("}}}}}")));
            let faulty: Vec<String> = rendered.faults.iter().map(|(_, fault)| fault.at[0].clone()).collect();
            assert_eq!(faulty, (0..300).filter(|number| is_bad(*number)).map(|number| format!("p{number}")).collect::<Vec<_>>());
            let files: Vec<String> = rendered.listing.files().iter().map(|file| file.path.to_string()).collect();
            assert_eq!(files, (0..300).map(|number| format!("f{number}")).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_index_that_lists_products_wrongly_is_mended_by_its_documents() {
        let text = r#"{"products":{"p":{},"q":{}}}"#;
        let path = |path: &str| StreamPath::from_document(path).unwrap();
        for products in [r#"[5,"p"]"#, r#""x""#, "{}"] {
            let index =
                format!(r#"{{"index":{{"images":{{"datatype":"image-downloads","path":"streams/v1/x.json","products":{products}}}}}}}"#);
            let documents = vec![
                Source::new(path("streams/v1/index.json"), Role::Index, index.into()),
                Source::new(path("streams/v1/x.json"), Role::Images, text.into()),
            ];
            let snapshot = Snapshot { url: String::new(), accepted_at: Timestamp::UNIX_EPOCH, documents };
            let rendered = render("ubuntu", &snapshot, &Policy::default());
            let index = rendered.documents.iter().find(|ready| ready.path == path("streams/v1/index.json")).unwrap();
            let index: serde_json::Value = serde_json::from_slice(&index.bytes).unwrap();
            assert_eq!(index["index"]["images"]["products"], serde_json::json!(["p", "q"]), "{products}");
            assert_eq!(rendered.parts.len(), 1);
        }
    }

    #[test]
    fn a_signature_goes_out_with_the_document_that_was_signed_and_with_no_other() {
        let items = r#"{"m":{"ftype":"lxd.tar.xz","path":"m","md5":"900150983cd24fb0d6963f7d28e17f72"}}"#;
        let text = format!(r#"{{"products":{{"p":{{"arch":"amd64","versions":{{"20260101":{{"items":{items}}}}}}}}}}}"#);
        for twins in [false, true] {
            let names: Vec<String> =
                rendered(&text, &Policy { twins, ..Policy::default() }).documents.iter().map(|ready| ready.path.to_string()).collect();
            let expected = if twins { &["streams/v1/x.json"][..] } else { &["streams/v1/x.json", "streams/v1/x.json.gpg"] };
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn a_file_that_cannot_be_offered_leaves_its_document_and_takes_the_signed_one_along() {
        for role in [Role::Images, Role::Other] {
            let rendered = render("ubuntu", &snapshot(role), &Policy::default());
            let [document] = &*rendered.documents else { panic!("the signed document must not go out: {:?}", rendered.documents) };
            assert!(document.bytes.ends_with(br#"{"good":{"path":"a","md5":"900150983cd24fb0d6963f7d28e17f72"}}}}}}}"#), "{role:?}");
            let faults: Vec<String> = rendered.faults.iter().map(|(_, fault)| fault.at.join(" / ")).collect();
            assert_eq!(faults, ["p / 20260101 / unverifiable", "p / 20260101 / outside"], "{role:?}");
        }
    }
}
