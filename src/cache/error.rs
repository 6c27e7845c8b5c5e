//! Why a blob cannot be had, in terms of what a host is told.

use std::time::Duration;

use crate::digest::Mismatch;

/// Why a fetch ended without its blob. Every reader gets the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Every URL says that it has no such file.
    #[error("upstream has no such file")]
    Gone,
    /// No URL gave it; at least one is in trouble rather than without it.
    #[error("upstream is in trouble: {reason}")]
    Upstream {
        /// What the last URL said or did.
        reason: String,
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// Nothing was answered in time.
    #[error("upstream did not answer in time")]
    TimedOut,
    /// What came was not what the document says.
    #[error("upstream sent wrong bytes: {0}")]
    Wrong(Mismatch),
    /// There are as many fetches as are allowed.
    #[error("too many fetches are under way")]
    Busy,
    /// There was no room to store it, and this reader was too slow for those who shared the memory.
    #[error("the reader is too slow for a file that cannot be stored")]
    TooSlow,
    /// Nobody reads it any more, and it could not be stored.
    #[error("nobody reads it any more")]
    Abandoned,
    /// The disk failed.
    #[error("the disk failed: {0}")]
    Disk(String),
    /// What was held turned out to be wrong while it was read.
    #[error("the bytes of a blob turned out to be wrong")]
    Broken,
    /// The task that wrote it is gone.
    #[error("the fetch ended without a word")]
    Vanished,
}
