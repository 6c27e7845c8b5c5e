//! A bundle on its way in: what it says, who signed that, and what of it came so far.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use foldhash::HashMap;

use crate::bundle::error::NotImported;
use crate::digest::{Claim, Digest, Expected};
use crate::manifest::{BundlePath, File, Manifest};
use crate::seal::PublicKey;
use crate::store::imports::Imported;

/// All documents that list what a bundle has are in memory while it is imported.
const MOST_DOCUMENT_BYTES: u64 = 256 << 20;

/// A bundle on its way in.
#[derive(Debug)]
pub struct Arrival {
    /// What tells it from every other: the digest of its manifest.
    pub id: Digest,
    /// What tells its selection from every other.
    pub place: Digest,
    /// Who signed it.
    pub key: PublicKey,
    /// What it says.
    pub manifest: Manifest,
    /// The same, as it was signed.
    pub text: Bytes,
    /// Its signature.
    pub signature: Bytes,
    /// Whether it may take the place of a newer one.
    pub allow_rollback: bool,
    /// The same bundle, if it is imported already: then its documents are not sent again.
    pub kept: Option<Imported>,
    sizes: HashMap<Digest, u64>,
    documents: Documents,
}

/// Documents that came.
type Documents = Arc<Mutex<BTreeMap<BundlePath, Bytes>>>;

impl Arrival {
    /// A bundle that one of these keys signed. Nothing of it is read before that is known.
    pub fn new(trusted: &[PublicKey], text: Bytes, signature: Bytes, allow_rollback: bool) -> Result<Self, NotImported> {
        let key = *trusted.iter().find(|key| key.has_signed(&text, &signature)).ok_or(NotImported::NotTrusted)?;
        let manifest = Manifest::parse(&text)?;
        let documents = rendered(&manifest).map(|document| document.size).fold(0, u64::saturating_add);
        if documents > MOST_DOCUMENT_BYTES {
            return Err(NotImported::DocumentsTooLarge { bytes: documents, most: MOST_DOCUMENT_BYTES });
        }
        let (id, place) = (Digest::of(&text), manifest.selection.id());
        let sizes = manifest.blobs().map(|(_, file)| (file.sha256, file.size)).collect();
        Ok(Self { id, place, key, manifest, text, signature, allow_rollback, kept: None, sizes, documents: Documents::default() })
    }

    /// Has what came of the same bundle before.
    pub fn go_on_with(&mut self, before: &Self) {
        self.documents = Arc::clone(&before.documents);
    }

    /// The documents that list what it has. Upstream's own are for whoever wants to check them, and stay where they are.
    pub fn rendered(&self) -> impl Iterator<Item = &File> {
        rendered(&self.manifest)
    }

    /// What is said of a document.
    pub fn document(&self, path: &BundlePath) -> Result<&File, NotImported> {
        self.rendered().find(|file| file.path == *path).ok_or_else(|| NotImported::NotInIt(path.clone()))
    }

    /// Takes a document in. Takes as long as hashing it.
    pub fn add(&self, path: &BundlePath, bytes: Bytes) -> Result<(), NotImported> {
        let expected = self.document(path)?;
        if bytes.len() as u64 != expected.size || Digest::of(&bytes) != expected.sha256 {
            return Err(NotImported::Broken(path.clone()));
        }
        self.documents.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), bytes);
        Ok(())
    }

    /// How many bytes a blob has.
    pub fn size(&self, blob: Digest) -> Result<u64, NotImported> {
        self.sizes.get(&blob).copied().ok_or(NotImported::NotInIt(BundlePath::Blob(blob)))
    }

    /// The blobs that it brings.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> {
        self.sizes.keys().copied()
    }

    /// Whether it brings a blob.
    pub fn has(&self, blob: Digest) -> bool {
        self.sizes.contains_key(&blob)
    }

    /// The bundle as it is kept, if all its documents came.
    pub fn whole(&self) -> Result<Imported, NotImported> {
        if let Some(kept) = &self.kept {
            return Ok(kept.clone());
        }
        let rendered = self.documents.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(missing) = self.rendered().find(|document| !rendered.contains_key(&document.path)) {
            return Err(NotImported::NotSent(missing.path.clone()));
        }
        let (text, signature) = (self.text.clone(), self.signature.clone());
        Ok(Imported { place: self.place, manifest: self.manifest.clone(), text, signature, rendered })
    }
}

fn rendered(manifest: &Manifest) -> impl Iterator<Item = &File> {
    manifest.documents.iter().filter(|document| matches!(document.path, BundlePath::Rendered(..)))
}

/// What a file of a bundle is, as the store asks for it.
pub fn expected(file: &File) -> Expected {
    Expected { claim: Claim::Sha256(file.sha256), size: Some(file.size) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::bundle::arrival::{Arrival, MOST_DOCUMENT_BYTES};
    use crate::bundle::error::NotImported;
    use crate::digest::Digest;
    use crate::manifest::{BundlePath, File, Manifest};
    use crate::seal::SigningKey;

    /// A bundle with one document of this size, signed by this key, for a site that trusts the first one.
    fn offered(size: u64, seed: u8) -> Result<Arrival, NotImported> {
        let path = BundlePath::parse("rendered/lab/streams/v1/index.json").unwrap();
        let manifest = Manifest {
            generation: 1,
            created_at: "2026-11-27T00:00:00Z".to_owned(),
            documents: vec![File { path, size, sha256: Digest::of(b"{}") }],
            ..Manifest::default()
        };
        let [trusted, key] = [1, seed].map(|seed| SigningKey::from_seed(&[seed; 32]).unwrap());
        let text = Bytes::from(manifest.to_json());
        let signature = key.sign(&text).into();
        Arrival::new(&[trusted.public()], text, signature, false)
    }

    #[test]
    fn documents_are_bounded_and_are_what_was_signed() {
        assert!(matches!(offered(2, 2), Err(NotImported::NotTrusted)));
        assert!(matches!(offered(MOST_DOCUMENT_BYTES + 1, 1), Err(NotImported::DocumentsTooLarge { .. })));
        let arrival = offered(2, 1).unwrap();
        assert!(matches!(arrival.whole(), Err(NotImported::NotSent(_))));
        let path = arrival.rendered().next().unwrap().path.clone();
        assert!(matches!(arrival.add(&path, Bytes::from_static(b"[]")), Err(NotImported::Broken(_))));
        let other = BundlePath::parse("documents/lab/streams/v1/index.json").unwrap();
        assert!(matches!(arrival.add(&other, Bytes::from_static(b"{}")), Err(NotImported::NotInIt(_))));
        arrival.add(&path, Bytes::from_static(b"{}")).unwrap();
        assert_eq!(arrival.whole().unwrap().rendered.len(), 1);
    }
}
