//! What is done beside serving: at the start the store is looked through in the background, and every day it is swept.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::cache::{Cache, blocking};
use crate::disk::Space;
use crate::ledger::Limits;
use crate::metrics::Metrics;

/// A partial file that nobody came back for is removed after this time.
const ABANDONED: Duration = Duration::from_hours(24);

/// Says so if nothing can be stored from the beginning. Everything is served all the same, through memory.
pub fn warn_if_full(space: Space, limits: &Limits) {
    if space.free <= limits.min_free_bytes {
        let (free, min_free) = (space.free, limits.min_free_bytes);
        tracing::warn!(
            free,
            min_free,
            "the file system is full; files are passed through and not stored until storage.min_free is free again"
        );
    }
}

/// Removes what nobody came back for.
pub async fn sweep(cache: Arc<Cache>, now: Timestamp) {
    let swept = blocking(move || {
        let (gone, _) = cache.sweep(abandoned_before(now))?;
        cache.room().lost(gone);
        Ok(())
    });
    if let Err(error) = swept.await {
        tracing::warn!(%error, "what was left of old downloads could not be removed");
    }
}

/// Counts what the store holds, and removes what nobody came back for.
pub async fn reconcile(cache: Arc<Cache>, metrics: Arc<Metrics>, now: Timestamp) {
    let counted = blocking(move || {
        let (_, partial) = cache.sweep(abandoned_before(now))?;
        let blobs = cache.store().blobs()?;
        cache.room().found(partial + blobs.iter().map(|(_, size)| size).sum::<u64>());
        metrics.cache_blobs.add(i64::try_from(blobs.len()).unwrap_or(i64::MAX));
        cache.space().map(drop)
    });
    if let Err(error) = counted.await {
        tracing::error!(%error, "the store could not be looked through; what it holds is not counted against storage.capacity");
    }
}

fn abandoned_before(now: Timestamp) -> SystemTime {
    SystemTime::try_from(now).ok().and_then(|now| now.checked_sub(ABANDONED)).unwrap_or(SystemTime::UNIX_EPOCH)
}
