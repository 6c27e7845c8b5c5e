//! What a start finds.

use std::collections::HashSet;

use crate::digest::Digest;
use crate::ledger::Ledger;

/// What is held, as far as a look at the names in the store tells.
#[derive(Debug, Default)]
pub struct Restored {
    /// What is held.
    pub ledger: Ledger,
    /// Those blobs of it that the database did not know: nobody remembers to have verified them.
    pub strangers: HashSet<Digest>,
}
