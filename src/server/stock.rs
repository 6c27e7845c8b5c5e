//! What commands ask about the store: what it holds, what would go, and whether its files are what they are called.

use std::sync::Arc;

use hyper::StatusCode;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::api::{CacheStatus, Pruned, Step};
use crate::cache::{Cache, blocking};
use crate::digest::Digest;
use crate::ledger::Unit;
use crate::library::Library;
use crate::retention::{Deed, Sentence, is_cached};
use crate::scrub;
use crate::server::reply::{Reply, error, json, steps};

/// How many lines may wait for a command to read them.
const QUEUED_STEPS: usize = 64;
/// It is said how far it is after so many bytes.
const STEP_BYTES: u64 = 64 << 20;

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

/// Reads every file, and says which are not what they are called; with `repair`, these leave the store and are fetched
/// again.
pub fn verify(library: &Arc<Library>, repair: bool) -> Reply {
    let (told, lines) = mpsc::channel(QUEUED_STEPS);
    let library = Arc::clone(library);
    tokio::task::spawn_blocking(move || {
        let last = read_all(&library, repair, &told)
            .unwrap_or_else(|reason| Step::Failed { error: format!("the store cannot be read: {reason}") });
        // Whoever asked may have left.
        drop(told.blocking_send(last));
    });
    steps(lines)
}

fn read_all(library: &Library, repair: bool, told: &mpsc::Sender<Step>) -> std::io::Result<Step> {
    let cache = &library.cache;
    let mut digests = Vec::new();
    cache.store().each_digest(|digest| digests.push(digest))?;
    digests.sort_unstable();
    let size = |digest: &Digest| cache.books().read(|ledger| ledger.blob(*digest).map_or(0, |held| held.size));
    let blobs: Vec<(Digest, u64)> = digests.into_iter().map(|digest| (digest, size(&digest))).collect();
    let total = blobs.iter().map(|(_, size)| size).sum();
    let (mut done, mut shown, mut broken, mut unreadable) = (0, 0, 0, 0);
    for (digest, size) in &blobs {
        let (is_broken, text) = look_at(library, *digest, repair);
        if let Some(text) = text {
            broken += usize::from(is_broken);
            unreadable += usize::from(!is_broken);
            tracing::error!("{text}");
            drop(told.blocking_send(Step::Note { text }));
        }
        done += size;
        // A stop does not wait for a large store to be read.
        if library.is_ending() {
            return Ok(Step::Failed { error: "the server is stopping".to_owned() });
        }
        // Whoever asked has left, and nothing is to be repaired: there is no more to do.
        if told.is_closed() && !repair {
            break;
        }
        if done >= shown + STEP_BYTES {
            shown = done;
            drop(told.try_send(Step::Progress { done, total }));
        }
    }
    if unreadable > 0 {
        return Ok(Step::Failed {
            error: format!("{unreadable} of {} files cannot be read or removed, and {broken} are broken; look at the disk", blobs.len()),
        });
    }
    Ok(match (broken, repair) {
        (0, _) => Step::Done { text: format!("{} files are what they are called", blobs.len()) },
        (broken, true) => Step::Done { text: format!("{broken} of {} files were broken and left the store", blobs.len()) },
        (broken, false) => Step::Failed {
            error: format!("{broken} of {} files are broken; cistern cache verify --repair has them fetched again", blobs.len()),
        },
    })
}

/// Whether a blob was broken, and what is said of it: also of one that cannot be read, or not be removed.
fn look_at(library: &Library, digest: Digest, repair: bool) -> (bool, Option<String>) {
    match library.cache.wrong(digest) {
        Ok(None) => {
            library.cache.books().change(|ledger| ledger.adopt(digest));
            (false, None)
        }
        Ok(Some(blob)) if repair => {
            // This thread may wait.
            let replaced = Handle::current().block_on(scrub::replace(&library.cache, &library.fetcher, blob));
            match replaced {
                Ok(remedy) => (true, Some(format!("{digest} is not what it is called; {remedy}"))),
                Err(error) => (false, Some(format!("{digest} is not what it is called, and cannot be removed: {error}"))),
            }
        }
        Ok(Some(_)) => (true, Some(format!("{digest} is not what it is called"))),
        Err(error) => (false, Some(format!("{digest} cannot be read: {error}"))),
    }
}
