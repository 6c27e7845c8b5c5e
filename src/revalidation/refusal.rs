//! Why documents are refused.

use crate::http::path::StreamPath;

/// Why a set of documents from upstream is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is a page, cut short, or empty.
    #[error("{path} is not JSON: {reason}")]
    NotJson {
        /// Which document.
        path: StreamPath,
        /// What the parser says.
        reason: String,
    },
    /// What it is about is missing, or no object.
    #[error("{path} has no object '{field}'")]
    NoContent {
        /// Which document.
        path: StreamPath,
        /// What is missing.
        field: &'static str,
    },
    /// Its `format` is another, or it has none and not the content either.
    #[error("{path} has the format '{actual}' instead of '{expected}'")]
    WrongFormat {
        /// Which document.
        path: StreamPath,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        actual: String,
    },
    /// It calls itself something else than the index calls it.
    #[error("{path} has the content id '{actual}' where the index says '{expected}'")]
    WrongContentId {
        /// Which document.
        path: StreamPath,
        /// What the index says.
        expected: String,
        /// What it says.
        actual: String,
    },
    /// The index names more documents, or deeper ones, than we take.
    #[error("the index names too much: {0}")]
    TooMuch(String),
    /// A document that clients need is named and not there.
    #[error("{path} is named by the index and is not there")]
    Missing {
        /// Which document.
        path: StreamPath,
    },
    /// There is no product in any document.
    #[error("there is not one product in its documents")]
    Empty,
    /// Its `updated` is before ours: a mirror that is behind, or an old copy put back.
    #[error("{path} is older than ours: updated {theirs}, ours {ours}")]
    Older {
        /// Which document.
        path: StreamPath,
        /// When ours was updated.
        ours: String,
        /// When theirs was.
        theirs: String,
    },
    /// More than `max_gone` of the images would go.
    #[error("{gone} of {of} images would go, which is more than max_gone ({max_gone}%)")]
    Shrunk {
        /// How many would go with nothing in their place.
        gone: usize,
        /// How many there are.
        of: usize,
        /// The limit in percent.
        max_gone: u8,
    },
}

impl Refusal {
    /// Whether what came is no document at all, as from a server that answers everything with a page.
    pub fn is_no_document(&self) -> bool {
        matches!(self, Self::NotJson { .. } | Self::NoContent { .. } | Self::WrongFormat { .. } | Self::Empty)
    }
}
