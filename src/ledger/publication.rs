//! An image of our own, as it was published.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An image of our own. Ground state: its files are blobs, and everything else is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// In hexadecimal.
    pub fingerprint: String,
    /// `container` or `virtual-machine`.
    #[serde(rename = "type")]
    pub image_type: String,
    /// By LXD's name.
    pub architecture: String,
    /// Its one file, or metadata and then root.
    pub files: Vec<PublishedFile>,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
    /// When it ends, in seconds since 1970.
    pub expires_at: Option<i64>,
    /// Whether hosts see it.
    pub public: bool,
    /// Its properties.
    pub properties: BTreeMap<String, String>,
}

/// So many digits of a fingerprint tell images of our own apart.
const DIGITS: usize = 12;

impl Publication {
    /// The name of its product.
    pub fn product(&self) -> String {
        format!("local:{}", self.fingerprint.get(..DIGITS).unwrap_or(&self.fingerprint))
    }

    /// When it was made.
    pub fn made_at(&self) -> Timestamp {
        Timestamp::from_second(self.created_at).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// When it ends.
    pub fn ends_at(&self) -> Option<Timestamp> {
        self.expires_at.and_then(|at| Timestamp::from_second(at).ok())
    }

    /// The serial of its only version.
    pub fn serial(&self) -> String {
        self.made_at().strftime("%Y%m%d_%H%M").to_string()
    }
}

/// A file of an image of our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedFile {
    /// What hosts call it.
    pub name: String,
    /// What it is to the image.
    pub ftype: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// In bytes.
    pub size: u64,
}

/// A name for an image that is held: one of ours, or one of a remote's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnAlias {
    /// The name.
    pub name: String,
    /// What it means, in hexadecimal. If that image is kept up to date, its newest version.
    pub fingerprint: String,
}
