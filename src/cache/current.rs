//! What is served now. The publisher alone changes it; the cache looks at it to know what it could have again.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::catalog::Catalog;

/// The picture that is served.
#[derive(Clone, Debug, Default)]
pub struct Current(Arc<ArcSwap<Catalog>>);

impl Current {
    /// The picture of this moment. It stays whole for as long as it is held.
    pub fn load(&self) -> Arc<Catalog> {
        self.0.load_full()
    }

    /// Serves another picture.
    pub fn store(&self, catalog: Catalog) {
        self.0.store(Arc::new(catalog));
    }
}
