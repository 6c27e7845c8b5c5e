//! A set of documents that was gathered and not yet taken.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::revalidation::census::Census;
use crate::simplestreams::snapshot::Snapshot;
use crate::store::snapshots::Validators;

/// A whole set of documents from one URL.
#[derive(Debug)]
pub struct Gathered {
    /// The documents.
    pub snapshot: Arc<Snapshot>,
    /// Whether they could be written down, if they are new.
    pub staged: io::Result<()>,
    /// What is in them.
    pub census: Census,
    /// The URL, and what it said of each.
    pub validators: (String, BTreeMap<String, Validators>),
}
