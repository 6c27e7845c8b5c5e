//! Upstream's documents, as they were taken from one of its URLs at one time.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::http::path::StreamPath;
use crate::signature::{self, BadFrame};
use crate::simplestreams::fault::Fault;
use crate::simplestreams::index::Kind;
use crate::simplestreams::outline::{Outline, Places};

/// What the URL of documents begins with that came in bundles.
const BUNDLE: &str = "bundle:";
/// A smaller document is hashed and read sooner than another processor would begin with one of both.
const LARGE: usize = 64 << 10;

/// A whole set of documents that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The URL that all of them come from.
    pub url: String,
    /// When they were taken.
    pub accepted_at: Timestamp,
    /// The documents; the index is the first.
    pub documents: Vec<Source>,
}

/// One document as upstream sent it.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path below the top of its server.
    pub path: StreamPath,
    /// What it is.
    pub role: Role,
    /// Its bytes.
    pub bytes: Bytes,
    /// Their digest.
    pub digest: Digest,
    /// Where its products are, unless that is larger than itself, or why it cannot be read.
    places: Arc<Result<Option<Places>, Unreadable>>,
}

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no text.
    #[error(transparent)]
    NoText(#[from] BadFrame),
    /// It is no JSON, or no object.
    #[error("{0}")]
    NoObject(String),
}

impl PartialEq for Source {
    /// Equal digests are equal bytes.
    fn eq(&self, other: &Self) -> bool {
        (&self.path, self.role, self.digest) == (&other.path, other.role, other.digest)
    }
}

impl Eq for Source {}

/// What a document is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// An index; clients begin with the one that comes first.
    Index,
    /// A products document that LXD and Incus read.
    Images,
    /// A products document for others.
    Other,
    /// A signed twin of a document, or a signature: it goes out as it came, or not at all.
    Signed,
}

impl From<Kind> for Role {
    /// What a document is of which an index says this.
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Nested => Self::Index,
            Kind::Images => Self::Images,
            Kind::Other => Self::Other,
        }
    }
}

impl Snapshot {
    /// The URL of documents that came in the bundle that is called `name`.
    pub fn url_of_bundle(name: &str) -> String {
        format!("{BUNDLE}{name}")
    }

    /// Whether it came in bundles.
    pub fn is_of_bundles(&self) -> bool {
        self.url.starts_with(BUNDLE)
    }

    /// The document at a path.
    pub fn document(&self, path: &StreamPath) -> Option<&Source> {
        self.documents.iter().find(|source| source.path == *path)
    }
}

impl Source {
    /// A document that came; takes as long as hashing it, or as reading it to its end.
    pub fn new(path: StreamPath, role: Role, bytes: Bytes) -> Self {
        let (digest, places) =
            if bytes.len() < LARGE { (Digest::of(&bytes), places(&bytes)) } else { rayon::join(|| Digest::of(&bytes), || places(&bytes)) };
        Self { path, role, bytes, digest, places: Arc::new(places) }
    }

    /// Its text, without the frame of a signature.
    pub fn text(&self) -> Result<Cow<'_, str>, BadFrame> {
        signature::text(&self.bytes)
    }

    /// Its outline, if it is one of products, and what is wrong with that. `text` is its text.
    pub fn outline<'a>(&'a self, text: &'a str) -> Result<(Outline<'a>, Vec<Fault>), Unreadable> {
        match &*self.places {
            Ok(Some(places)) => Ok(places.outline(text)),
            Ok(None) => Ok(Outline::parse(text)?),
            Err(unreadable) => Err(unreadable.clone()),
        }
    }
}

fn places(bytes: &[u8]) -> Result<Option<Places>, Unreadable> {
    let places = Places::of(&signature::text(bytes)?)?;
    Ok(Some(places).filter(|places| places.size() <= bytes.len().max(LARGE)))
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self::NoObject(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use crate::http::path::StreamPath;
    use crate::simplestreams::snapshot::{Role, Source};

    fn source(text: &str) -> Source {
        Source::new(StreamPath::from_document("streams/v1/x.sjson").unwrap(), Role::Signed, text.to_owned().into())
    }

    /// The products of a document, and how much is wrong with it.
    fn outline(source: &Source) -> (Vec<(String, String)>, usize) {
        let text = source.text().unwrap();
        let (outline, faults) = source.outline(&text).unwrap();
        (outline.products.iter().map(|unread| (unread.name.to_string(), unread.text.to_owned())).collect(), faults.len())
    }

    #[test]
    fn products_are_found_inside_a_signature() {
        let plain = "{\"products\":{\n- \"p\":{\"x\":1},\"q\":{\"y\":2}}}".replace("- ", "");
        let framed = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{}\n-----BEGIN PGP SIGNATURE-----\n\nx\n-----END PGP SIGNATURE-----\n",
            plain.replace("\n\"", "\n- \"")
        );
        let expected = [("p", r#"{"x":1}"#), ("q", r#"{"y":2}"#)].map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(outline(&source(&framed)), (expected.to_vec(), 0));
        assert_eq!(outline(&source(&plain)), (expected.to_vec(), 0));
    }

    #[test]
    fn places_that_would_be_larger_than_their_document_are_not_kept_and_found_again() {
        let text = format!(r#"{{"products":{{{}"p":{{"x":1}}}}}}"#, r#""":1,"#.repeat(100_000));
        let source = source(&text);
        assert!(matches!(&*source.places, Ok(None)));
        assert_eq!(outline(&source), (vec![("p".to_owned(), r#"{"x":1}"#.to_owned())], 100_000));
    }
}
