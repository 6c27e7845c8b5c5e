//! Why a part of a document is left out, in words for the person who asks why an image is invisible.

use std::fmt;

use crate::http::path::BadPath;

/// A part of a document that makes no sense, or none to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where: the names of product, version and item, as far as they go.
    pub at: Vec<String>,
    /// What is wrong there.
    pub reason: Reason,
}

/// What is wrong with a part of a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The field has a type that Go clients cannot decode; one such field makes them refuse the whole document.
    #[error("{field} is not {wanted}, and clients would refuse the whole document")]
    WrongType {
        /// Which field.
        field: String,
        /// What it should be, with its article.
        wanted: &'static str,
    },
    /// There is another of that name after it, and clients know the last only.
    #[error("it is there twice; clients know the last one")]
    Repeated,
    /// A field is nested deeper than any client reads.
    #[error("{field} is nested deeper than {limit} levels")]
    TooDeep {
        /// Which field.
        field: String,
        /// The limit.
        limit: usize,
    },
    /// An item's path cannot be asked for.
    #[error("its path cannot be served: {0}")]
    Path(BadPath),
    /// Documents are there.
    #[error("its path is one of documents")]
    Document,
    /// There is nothing by which the file could be checked.
    #[error("it has a path and no hash to check the file by")]
    NoHash,
    /// Clients skip the product.
    #[error("LXD and Incus know no architecture '{0}'")]
    Architecture(String),
    /// Clients skip the version.
    #[error("LXD and Incus want a version name that begins with a date, as YYYYMMDD")]
    VersionName,
    /// Clients skip the version.
    #[error("it has a root file and neither lxd.tar.xz nor incus.tar.xz")]
    NoMetadata,
    /// Clients skip the image.
    #[error("its metadata item gives no fingerprint for the root {0}")]
    NoFingerprint(&'static str),
}

impl Fault {
    /// A fault of the part that `at` names.
    pub fn new(at: &[&str], reason: Reason) -> Self {
        Self { at: at.iter().map(ToString::to_string).collect(), reason }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names come from upstream, and this goes into logs.
        let said = format!("{}: {}", self.at.join(" / "), self.reason);
        said.chars().try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") })
    }
}
