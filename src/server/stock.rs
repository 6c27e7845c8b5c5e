//! What commands ask about the store: what it holds, and what would go.

use std::sync::Arc;

use hyper::StatusCode;

use crate::api::{CacheStatus, Pruned};
use crate::cache::{Cache, blocking};
use crate::ledger::Unit;
use crate::retention::{Deed, Sentence, is_cached};
use crate::server::reply::{Reply, error, json};

/// How full the store is.
pub async fn info(cache: &Arc<Cache>) -> Reply {
    let cache = Arc::clone(cache);
    match blocking(move || status(&cache)).await {
        Ok(status) => json(StatusCode::OK, &status),
        Err(reason) => error(StatusCode::INTERNAL_SERVER_ERROR, format!("the store cannot be looked at: {reason}")),
    }
}

fn status(cache: &Cache) -> std::io::Result<CacheStatus> {
    let (space, catalog, limits) = (cache.space()?, cache.current().load(), *cache.books().limits());
    Ok(cache.books().read(|ledger| CacheStatus {
        path: cache.store().layout().root().display().to_string(),
        size: ledger.account.held(),
        capacity: limits.capacity_bytes,
        free: space.free,
        min_free: limits.min_free_bytes,
        blobs: ledger.blobs().len(),
        loose_blobs: ledger.blobs().filter(|(_, held)| held.images.is_empty()).count(),
        images: ledger.images().len(),
        cached_images: ledger.images().filter(|record| record.stays() && is_cached(record, &catalog)).count(),
        leaving_images: ledger.images().filter(|record| !record.stays()).count(),
        oldest_use_at: ledger.by_last_use().next().map(|(at, _)| at.to_string()),
    }))
}

/// Lets go of what is due, or says what would go.
pub async fn prune(cache: &Arc<Cache>, is_dry: bool) -> Reply {
    let cache = Arc::clone(cache);
    let pruned = blocking(move || Ok(if is_dry { cache.due() } else { cache.prune() }));
    match pruned.await {
        Ok(sentences) => json(StatusCode::OK, &sentences.iter().map(show).collect::<Vec<_>>()),
        Err(reason) => error(StatusCode::INTERNAL_SERVER_ERROR, reason),
    }
}

fn show(sentence: &Sentence) -> Pruned {
    let (kind, name) = match sentence.unit {
        Unit::Image(fingerprint) => ("image", fingerprint.to_string()),
        Unit::Blob(digest) => ("file", digest.to_string()),
    };
    Pruned {
        kind: kind.to_owned(),
        name,
        reason: sentence.reason.label().to_owned(),
        size: sentence.bytes,
        at_once: sentence.deed == Deed::Remove,
        last_used_at: sentence.last_used_at.to_string(),
    }
}
