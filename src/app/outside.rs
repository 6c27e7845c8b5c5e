//! The outside things that an app uses.

use std::sync::Arc;

use crate::clock::Clock;
use crate::disk::Disk;

/// A file system and a clock.
#[derive(Clone, Debug)]
pub struct Outside {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}
