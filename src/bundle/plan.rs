//! A bundle that is ready to be fetched: its manifest, which names everything, and where everything is.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use jiff::Timestamp;

use crate::bundle::split::{TooSmall, split};
use crate::digest::{Claim, Digest, Expected};
use crate::fetch::download::Wanted;
use crate::inventory::Inventory;
use crate::manifest::{BundlePath, File, Manifest, Selection};
use crate::render::part::Ready;
use crate::render::remote::Rendered;
use crate::render::root;
use crate::seal::{PublicKey, SigningKey};
use crate::simplestreams::file::ListedFile;
use crate::simplestreams::products::Products;
use crate::store::{Store, exports, keys};

/// What a bundle is called as a tree, where its files are asked for.
pub const TREE: &str = "tree";
/// No site has so many: whoever says so would have all numbers used up.
const MOST_GENERATION: u64 = 1 << 53;

/// What a bundle is to have.
#[derive(Clone, Debug)]
pub struct Order {
    /// Which images.
    pub selection: Selection,
    /// How large a volume may be.
    pub volume_size: Option<u64>,
    /// The key to sign with, from now on.
    pub key: Option<Arc<SigningKey>>,
    /// What the site has that it is for, and who says so.
    pub have: Option<Arc<(Inventory, PublicKey)>>,
}

/// The files of one remote: what is claimed of each, and what it is.
pub type Held = Vec<(ListedFile, Digest, u64)>;

/// A bundle that is ready to be fetched.
#[derive(Debug)]
pub struct Plan {
    /// What tells it from every other: the digest of its manifest.
    pub id: Digest,
    /// Its manifest.
    pub manifest: Bytes,
    /// The manifest's signature.
    pub signature: Bytes,
    /// The same as a tree that any web server can serve.
    pub tree: Tree,
    documents: BTreeMap<BundlePath, Bytes>,
    blobs: BTreeMap<Digest, Wanted>,
}

/// All remotes of a bundle together, as they would be served at a root of their own.
#[derive(Debug, Default)]
pub struct Tree {
    /// The documents; the index comes last.
    pub documents: Vec<Ready>,
    /// What is at each path besides: digest and size.
    pub files: BTreeMap<String, (Digest, u64)>,
}

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
pub enum NotSealed {
    /// It fits nowhere.
    #[error(transparent)]
    TooSmall(#[from] TooSmall),
    /// The disk says no.
    #[error("the store cannot be used: {0}")]
    Store(#[from] io::Error),
}

impl Plan {
    /// A document, if it has it.
    pub fn document(&self, path: &BundlePath) -> Option<&Bytes> {
        self.documents.get(path)
    }

    /// How a blob is had, if it has it.
    pub fn blob(&self, digest: Digest) -> Option<&Wanted> {
        self.blobs.get(&digest)
    }
}

/// Puts all remotes together, in the order of `server.root`.
pub fn tree(order: &[Arc<str>], rendered: &BTreeMap<Arc<str>, Rendered>, held: &[(Arc<str>, Held)]) -> Tree {
    let rank = |name: &Arc<str>| order.iter().position(|other| other == name).unwrap_or(order.len());
    let mut remotes: Vec<_> = rendered.iter().collect();
    remotes.sort_by_key(|(name, _)| rank(name));
    let sources: Vec<root::Source<'_>> = remotes.iter().map(|(name, rendered)| root::Source { name, parts: &rendered.parts }).collect();
    let documents = root::merge(&sources);
    let mut named: HashSet<String> = HashSet::default();
    documents.iter().for_each(|document| named.extend(files_of(&document.bytes)));
    let mut files = BTreeMap::new();
    for (remote, held) in held {
        let known: HashMap<Claim, (Digest, u64)> =
            held.iter().map(|(file, digest, size)| (file.expected.claim, (*digest, *size))).collect();
        let listed = rendered[remote].listing.files().iter();
        files.extend(listed.filter_map(|file| Some((format!("{remote}/{}", file.path), *known.get(&file.expected.claim)?))));
    }
    // What a remote before has as well is listed once, and the rest of it is in nobody's way.
    files.retain(|path, _| named.contains(path));
    Tree { documents, files }
}

/// The paths that a products document names.
fn files_of(document: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(document);
    let Ok((products, _)) = Products::parse(&text) else { return Vec::new() };
    let items = products.products.iter().flat_map(|product| &product.versions).flat_map(|version| &version.items);
    items.filter_map(|item| Some(ListedFile::of_item(&item.fields).ok()??.path.to_string())).collect()
}

/// Names everything, and signs that.
pub fn seal(
    store: &Store,
    order: &Order,
    documents: BTreeMap<BundlePath, Bytes>,
    tree: Tree,
    held: &[(Arc<str>, Held)],
    now: Timestamp,
) -> Result<Plan, NotSealed> {
    let (disk, layout) = (&**store.disk(), store.layout());
    let document = |(path, bytes): (&BundlePath, &Bytes)| File { path: path.clone(), size: bytes.len() as u64, sha256: Digest::of(bytes) };
    let files: Vec<File> = documents.iter().map(document).collect();
    let all = held.iter().flat_map(|(remote, files)| files.iter().map(move |file| (remote, file)));
    let (mut blobs, mut sizes) = (BTreeMap::new(), BTreeMap::new());
    for (remote, (file, digest, size)) in all {
        // Under its digest, whatever its document claims: that is what the bundle says that it is.
        let expected = Expected { claim: Claim::Sha256(*digest), size: Some(*size) };
        let wanted = Wanted::of(remote, &ListedFile { path: file.path.clone(), expected });
        blobs.entry(*digest).or_insert(wanted);
        sizes.insert(*digest, *size);
    }
    if let Some(key) = &order.key {
        keys::keep(disk, layout, key)?;
    }
    let (key, have) = (keys::own(disk, layout)?, order.have.as_ref().map(|have| &have.0));
    for digest in have.into_iter().flat_map(Inventory::digests) {
        blobs.remove(&digest);
        sizes.remove(&digest);
    }
    let blob = |(sha256, size): (Digest, u64)| File { path: BundlePath::Blob(sha256), size, sha256 };
    let volumes = split(sizes.into_iter().map(blob).collect(), &files, order.volume_size)?;
    let parent = have.and_then(|have| have.generation(&key.public(), order.selection.id())).filter(|parent| *parent < MOST_GENERATION);
    let mut manifest = Manifest {
        parent,
        created_at: String::new(),
        selection: order.selection.clone(),
        documents: files,
        volumes,
        ..Manifest::default()
    };
    let names = [order.selection.id(), Digest::of(&manifest.to_json())];
    let export = exports::enter(disk, layout, names, parent.unwrap_or_default(), now)?;
    (manifest.generation, manifest.created_at) = (export.generation, export.created_at);
    let text = manifest.to_json();
    let signature = key.sign(&text);
    Ok(Plan { id: Digest::of(&text), manifest: text.into(), signature: signature.into(), tree, documents, blobs })
}
