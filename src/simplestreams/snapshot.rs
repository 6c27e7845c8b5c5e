//! Upstream's documents, as they were taken from one of its URLs at one time.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::http::path::StreamPath;

/// What the URL of documents begins with that came in bundles.
const BUNDLE: &str = "bundle:";

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its path below the top of its server.
    pub path: StreamPath,
    /// What it is.
    pub role: Role,
    /// Its bytes.
    pub bytes: Bytes,
    /// Their digest.
    pub digest: Digest,
}

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
    /// A document that came; takes as long as hashing it.
    pub fn new(path: StreamPath, role: Role, bytes: Bytes) -> Self {
        let digest = Digest::of(&bytes);
        Self { path, role, bytes, digest }
    }
}
