//! Whether the store takes new files, as far as was seen last. Files are served all the same while it does not: those that
//! are held from it, and others through memory.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::metrics::Metrics;

/// What was seen last.
#[derive(Debug)]
pub struct Standing {
    /// Why nothing more is to be written, as the file system is now.
    full: ArcSwapOption<String>,
    /// Why what was written last could not be. Only another file that can be shows that this is over.
    failed: ArcSwapOption<String>,
    metrics: Arc<Metrics>,
}

impl Standing {
    /// Nothing was seen so far.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        metrics.store_writable.set(1);
        Self { full: ArcSwapOption::empty(), failed: ArcSwapOption::empty(), metrics }
    }

    /// Notes that the store took a file.
    pub fn took(&self) {
        self.failed.store(None);
        self.show();
    }

    /// Notes that it did not, and why.
    pub fn refused(&self, reason: String) {
        self.failed.store(Some(Arc::new(reason)));
        self.show();
    }

    /// Notes how the file system is: why it is full, if it is.
    pub fn looked_at(&self, full: Option<String>) {
        self.full.store(full.map(Arc::new));
        self.show();
    }

    /// Why it takes nothing, if that is so.
    pub fn trouble(&self) -> Option<Arc<String>> {
        self.full.load_full().or_else(|| self.failed.load_full())
    }

    fn show(&self) {
        self.metrics.store_writable.set(i64::from(self.trouble().is_none()));
    }
}
