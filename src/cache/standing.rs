//! Whether the store takes new files, as far as was seen last. Files are served all the same while it does not: those that
//! are held from it, and others through memory.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::metrics::Metrics;

/// What was seen last.
#[derive(Debug)]
pub struct Standing {
    trouble: ArcSwapOption<String>,
    metrics: Arc<Metrics>,
}

impl Standing {
    /// Nothing was seen so far.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        metrics.store_writable.set(1);
        Self { trouble: ArcSwapOption::empty(), metrics }
    }

    /// Notes that the store took something.
    pub fn is_good(&self) {
        self.trouble.store(None);
        self.metrics.store_writable.set(1);
    }

    /// Notes that it did not, and why.
    pub fn is_bad(&self, reason: String) {
        self.trouble.store(Some(Arc::new(reason)));
        self.metrics.store_writable.set(0);
    }

    /// Why it takes nothing, if that is so.
    pub fn trouble(&self) -> Option<Arc<String>> {
        self.trouble.load_full()
    }
}
