//! The documents of a bundle: those of now, and those that list what it has and nothing else.

use jiff::Timestamp;

use crate::catalog::Remote;
use crate::digest::Fingerprint;
use crate::http::path::StreamPath;
use crate::ledger::holdings::Holdings;
use crate::render::policy::Policy;
use crate::render::remote::{Rendered, render};
use crate::revalidation::document::read_index;
use crate::selection::Selection;
use crate::simplestreams::index::{INDEX_PATH, Kind};
use crate::simplestreams::snapshot::{Role, Snapshot, Source};

/// What hosts get of a remote now, as if it had just come from upstream; `None` if there is nothing.
pub fn served(remote: &Remote) -> Option<Snapshot> {
    let index = StreamPath::from_document(INDEX_PATH).ok()?;
    let mut documents = Vec::new();
    let mut wanted = vec![(index, Role::Index)];
    while let Some((path, role)) = wanted.pop() {
        let Some(document) = remote.documents.get(&path).filter(|_| documents.iter().all(|source: &Source| source.path != path)) else {
            continue;
        };
        if role == Role::Index
            && let Ok(facts) = read_index(&path, &document.plain)
        {
            wanted.extend(facts.wanted.into_iter().rev().map(|wanted| (wanted.path, role_of(wanted.kind))));
        }
        documents.push(Source::new(path, role, document.plain.clone()));
    }
    let accepted_at =
        |document: &Source| remote.documents.get(&document.path).and_then(|ready| Timestamp::try_from(ready.last_modified).ok());
    let accepted_at = documents.first().and_then(accepted_at)?;
    Some(Snapshot { url: String::new(), accepted_at, documents })
}

fn role_of(kind: Kind) -> Role {
    match kind {
        Kind::Nested => Role::Index,
        Kind::Images => Role::Images,
        Kind::Other => Role::Other,
    }
}

/// The images that pass filters.
pub fn selected(name: &str, snapshot: &Snapshot, filters: &Selection) -> Vec<Fingerprint> {
    let policy = Policy { selection: filters.clone(), ..Policy::default() };
    render(name, snapshot, &policy).listing.images().iter().map(|image| image.fingerprint).collect()
}

/// Documents that list, for LXD and Incus alike, the images that are made of these files.
pub fn listing_only(name: &str, snapshot: &Snapshot, held: Holdings) -> Rendered {
    render(name, snapshot, &Policy { twins: true, held: Some(held.into()), ..Policy::default() })
}
