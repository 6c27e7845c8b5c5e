//! How a remote's documents are to be changed.

use std::collections::HashSet;
use std::sync::Arc;

use crate::digest::Digest;
use crate::ledger::holdings::Holdings;
use crate::selection::Selection;

/// How a remote's documents are to be changed.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// What of them is listed.
    pub selection: Selection,
    /// Whether LXD's images are listed for Incus, and the other way round.
    pub twins: bool,
    /// Keys of images whose bytes turned out to have another fingerprint. No client would take them.
    pub wrong: HashSet<Digest>,
    /// Of a remote that is offline: what is held. The rest cannot be had, and is not listed.
    pub held: Option<Arc<Holdings>>,
}
