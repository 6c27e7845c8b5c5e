//! What many records have in common. A fleet's mirror holds a hundred versions of one product, and none needs a copy of its
//! properties.

use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use crate::image::version::{Product, Version};
use crate::ledger::record::Record;

/// Facts that many images have in common, which are kept once.
#[derive(Debug, Default)]
pub struct Shared {
    remotes: HashSet<Arc<str>>,
    products: HashMap<(Arc<str>, String), Arc<Product>>,
}

impl Shared {
    /// The same record, with what is known already in the place of what it brought along.
    pub fn share(&mut self, mut record: Record) -> Record {
        let remote = self.remotes.get(&record.remote).cloned().unwrap_or_else(|| Arc::clone(&record.remote));
        self.remotes.insert(Arc::clone(&remote));
        record.remote = Arc::clone(&remote);
        let product = &record.version.product;
        let known = self.products.entry((remote, product.name.clone())).or_insert_with(|| Arc::clone(product));
        if **known == **product && !Arc::ptr_eq(known, product) {
            record.version = Arc::new(Version { product: Arc::clone(known), ..Version::clone(&record.version) });
        }
        record
    }
}
