//! The documents of a bundle: those of now, and those that list what it has and nothing else.

use bytes::Bytes;
use foldhash::HashMap;
use jiff::Timestamp;

use crate::catalog::Remote;
use crate::digest::{Claim, Digest, Fingerprint};
use crate::http::path::StreamPath;
use crate::ledger::holdings::Holdings;
use crate::render::policy::Policy;
use crate::render::remote::{Rendered, render};
use crate::revalidation::document::read_index;
use crate::selection::Selection;
use crate::simplestreams::file::ListedFile;
use crate::simplestreams::index::INDEX_PATH;
use crate::simplestreams::products::Products;
use crate::simplestreams::snapshot::{Role, Snapshot, Source};

/// What hosts get of a remote now, as if it had just come from upstream; `None` if there is nothing.
pub fn served(remote: &Remote) -> Option<Snapshot> {
    let documents = documents_of(&|path| remote.documents.get(path).map(|document| document.plain.clone()));
    let accepted_at =
        |document: &Source| remote.documents.get(&document.path).and_then(|ready| Timestamp::try_from(ready.last_modified).ok());
    let accepted_at = documents.first().and_then(accepted_at)?;
    Some(Snapshot { url: String::new(), accepted_at, documents })
}

/// The index, and every document that it names and that is there, with what each is.
pub fn documents_of(find: &dyn Fn(&StreamPath) -> Option<Bytes>) -> Vec<Source> {
    let mut documents: Vec<Source> = Vec::new();
    let index = StreamPath::from_document(INDEX_PATH).expect("the path of the index is a path");
    let mut wanted = vec![(index, Role::Index)];
    while let Some((path, role)) = wanted.pop() {
        let Some(bytes) = find(&path).filter(|_| documents.iter().all(|source| source.path != path)) else { continue };
        if role == Role::Index
            && let Ok(facts) = read_index(&path, &bytes)
        {
            wanted.extend(facts.wanted.into_iter().rev().map(|wanted| (wanted.path, Role::from(wanted.kind))));
        }
        documents.push(Source::new(path, role, bytes));
    }
    documents
}

/// The images that pass filters.
pub fn selected(name: &str, snapshot: &Snapshot, filters: &Selection) -> Vec<Fingerprint> {
    let policy = Policy { selection: filters.clone(), ..Policy::default() };
    render(name, snapshot, &policy).listing.images().iter().map(|image| image.fingerprint).collect()
}

/// Documents that list, for LXD and Incus alike, the images that are made of these files: what is claimed of each, its digest
/// and its size.
pub fn listing_only(name: &str, snapshot: &Snapshot, held: &[(ListedFile, Digest, u64)]) -> Rendered {
    let digests: HashMap<Claim, Digest> = held.iter().map(|(file, digest, _)| (file.expected.claim, *digest)).collect();
    let learnt = digests.iter().map(|(claim, digest)| (*claim, *digest));
    let holdings = Holdings::new(held.iter().map(|(_, digest, size)| (*digest, *size)), learnt);
    let mut rendered = render(name, snapshot, &Policy { twins: true, held: Some(holdings.into()), ..Policy::default() });
    for ready in &mut rendered.documents {
        if let Some(named) = by_digest(&ready.bytes, &digests) {
            ready.bytes = named;
        }
    }
    rendered
}

/// A document with the SHA-256 of every file, so that whoever has but that knows which one is meant; `None` if it has them.
fn by_digest(document: &[u8], digests: &HashMap<Claim, Digest>) -> Option<Bytes> {
    let (mut products, _) = Products::parse(std::str::from_utf8(document).ok()?).ok()?;
    let mut is_changed = false;
    let versions = products.products.iter_mut().flat_map(|product| &mut product.versions);
    for item in versions.flat_map(|version| &mut version.items) {
        let Ok(Some(file)) = ListedFile::of_item(&item.fields) else { continue };
        if file.expected.digest().is_none()
            && let Some(digest) = digests.get(&file.expected.claim)
        {
            item.fields.set("sha256", &digest.to_string());
            is_changed = true;
        }
    }
    is_changed.then(|| products.to_json().into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::bundle::rendering::by_digest;
    use crate::digest::{Claim, Digest};

    #[test]
    fn a_file_that_upstream_names_by_another_hash_is_named_by_its_digest_too() {
        let (digest, md5) = (Digest::of(b"a"), "0123456789abcdef0123456789abcdef");
        let digests = [(Claim::strongest(None, None, Some(md5)).unwrap(), digest)].into_iter().collect();
        let document = |item: Value| json!({"products": {"p": {"versions": {"1": {"items": {"i": item}}}}}}).to_string();
        let named = by_digest(document(json!({"path": "a", "md5": md5})).as_bytes(), &digests).unwrap();
        let item = &serde_json::from_slice::<Value>(&named).unwrap()["products"]["p"]["versions"]["1"]["items"]["i"];
        assert_eq!(*item, json!({"path": "a", "md5": md5, "sha256": digest.to_string()}));
        let is_named = |item: Value| by_digest(document(item).as_bytes(), &digests).is_some();
        assert!(!is_named(json!({"path": "a", "sha256": digest.to_string()})));
        assert!(!is_named(json!({"region": "x"})));
        assert!(by_digest(b"{\"index\": {}}", &digests).is_none());
    }
}
