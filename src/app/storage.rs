//! What is held, as a start finds it: the database, what it does not know of, and the cache over both.

use std::path::Path;
use std::sync::Arc;

use crate::app::housekeeping;
use crate::app::outside::Outside;
use crate::cache::books::Counting;
use crate::cache::{Cache, restore};
use crate::config::Config;
use crate::database::{Database, DatabaseError, Found};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// Why what is held cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The store cannot.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database is none of ours.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// What is held, ready for use.
#[derive(Debug)]
pub struct Storage {
    /// The files.
    pub store: Arc<Store>,
    /// The files with their ledger.
    pub cache: Arc<Cache>,
    /// Where the ledger is written; `None` if it cannot be.
    pub database: Option<Database>,
    /// Held until what is in the store was compared with the ledger; `None` if it was.
    pub counting: Option<Counting>,
}

impl Storage {
    /// Opens the store that the configuration names.
    pub fn open(config: &Config, store: Arc<Store>, outside: &Outside, metrics: &Arc<Metrics>) -> Result<Self, StorageError> {
        let path = &config.file.storage.path;
        let unusable = |source| StoreError::Unusable { path: path.clone(), source };
        let space = store.space().map_err(unusable)?;
        housekeeping::warn_if_full(space, &config.limits(space));
        let (database, known) = open_database(outside, &store.layout().database())?;
        let is_known = known.is_some();
        let ledger = restore::restore(&store, known, outside.clock.now()).map_err(unusable)?;
        let (clock, metrics) = (Arc::clone(&outside.clock), Arc::clone(metrics));
        let cache = Arc::new(Cache::new(Arc::clone(&store), ledger, &config.cache(space), clock, metrics));
        cache.miss_what_was_kept().map_err(unusable)?;
        // Without a database all was counted just now.
        let counting = if is_known { cache.books().begin_to_count() } else { None };
        Ok(Self { store, cache, database, counting })
    }
}

/// Opens the database, and reads what it knows. Without one everything goes on: the store is looked through at each start then.
fn open_database(outside: &Outside, path: &Path) -> Result<(Option<Database>, Option<Ledger>), DatabaseError> {
    match Database::open(&*outside.disk, path) {
        Ok((database, Found::Ledger(ledger))) => Ok((Some(database), Some(*ledger))),
        Ok((database, Found::Nothing)) => Ok((Some(database), None)),
        Ok((database, Found::Damaged(reason))) => {
            tracing::error!(
                reason,
                "the database was damaged and is set aside; it is made anew of what the store holds, and only times of use are lost"
            );
            Ok((Some(database), None))
        }
        Err(error @ DatabaseError::Newer { .. }) => Err(error),
        Err(error @ DatabaseError::Unusable { .. }) => {
            tracing::error!(%error, "going on without the database; times of use are not kept");
            Ok((None, None))
        }
    }
}
