//! Writes down what people decide about images, and lets it count.

use std::sync::Arc;

use crate::cache::{Cache, blocking};
use crate::ledger::decision::Decision;
use crate::ledger::record::Record;
use crate::library::error::LibraryError;
use crate::publish::Publisher;
use crate::store::decisions;

/// Where decisions are made: one at a time, for each is read, changed and written.
#[derive(Debug)]
pub struct Decisions {
    cache: Arc<Cache>,
    publisher: Publisher,
    turn: tokio::sync::Mutex<()>,
}

impl Decisions {
    /// Nothing is being decided.
    pub fn new(cache: Arc<Cache>, publisher: Publisher) -> Self {
        Self { cache, publisher, turn: tokio::sync::Mutex::default() }
    }

    /// Changes what was decided about an image, on the disk first.
    pub async fn change(&self, record: &Record, change: impl FnOnce(&mut Decision) + Send + 'static) -> Result<(), LibraryError> {
        let _turn = self.turn.lock().await;
        let (cache, fingerprint) = (Arc::clone(&self.cache), record.fingerprint);
        blocking(move || {
            let (disk, layout) = (&**cache.store().disk(), cache.store().layout());
            let mut decision = decisions::load(disk, layout, fingerprint)?;
            change(&mut decision);
            decisions::save(disk, layout, fingerprint, &decision)?;
            cache.books().change(|ledger| ledger.amend(fingerprint, |record| decision.apply(record)));
            Ok(())
        })
        .await?;
        self.publisher.review(Arc::clone(&record.remote)).await?;
        Ok(())
    }
}
