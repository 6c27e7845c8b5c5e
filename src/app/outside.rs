//! The outside things that an app uses.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::upstream::Upstream;

/// A file system, a clock, and image servers.
#[derive(Clone, Debug)]
pub struct Outside {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Image servers that are reached by other means than HTTP, by the name of their remote.
    pub upstreams: HashMap<Arc<str>, Arc<dyn Upstream>>,
}
