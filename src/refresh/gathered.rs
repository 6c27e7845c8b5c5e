//! A set of documents that was gathered and not yet taken.

use std::collections::BTreeMap;

use crate::revalidation::census::Census;
use crate::simplestreams::snapshot::Snapshot;
use crate::store::snapshots::Validators;

/// A whole set of documents from one URL.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// The documents.
    pub snapshot: Snapshot,
    /// What is in them.
    pub census: Census,
    /// The URL, and what it said of each.
    pub validators: (String, BTreeMap<String, Validators>),
}
