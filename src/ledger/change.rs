//! What there is to write down of a ledger.

use jiff::Timestamp;

use crate::digest::{Digest, Fingerprint};
use crate::ledger::record::Record;

/// The newest state of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A blob is held: its size, and when it was last asked for.
    Blob(Digest, u64, Timestamp),
    /// A blob is not held any more.
    BlobGone(Digest),
    /// An image is held.
    Image(Box<Record>),
    /// An image is not held any more.
    ImageGone(Fingerprint),
}
