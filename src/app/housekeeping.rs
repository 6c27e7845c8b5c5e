//! What is done beside serving: at the start and every day what was left of downloads is swept away, and again and again
//! what is due is let go.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::cache::books::Counting;
use crate::cache::{Cache, blocking};
use crate::catalog::mode::Mode;
use crate::disk::Space;
use crate::ledger::account::Limits;
use crate::metrics::Metrics;
use crate::retention::{Rules, is_cached};

/// A partial file that nobody came back for is removed after this time.
const ABANDONED: Duration = Duration::from_hours(24);
/// How often it is looked what is due.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The same for as long as there is more than may be.
const PAUSE_WHILE_TOO_FULL: Duration = Duration::from_secs(2);

/// So many folders of blobs are compared with the ledger at once: each time it is locked for a moment, and that part of it is in
/// memory twice.
const FOLDERS: u8 = 8;

/// Says so if nothing can be stored from the beginning. Everything is served all the same, through memory.
pub fn warn_if_full(space: Space, limits: &Limits) {
    if let Some(full) = full(space, limits) {
        tracing::warn!("{full}; files are passed through and not stored until storage.min_free is free again");
    }
}

/// That the file system is full, if it is.
fn full(space: Space, limits: &Limits) -> Option<String> {
    let (free, min_free) = (space.free, limits.min_free_bytes);
    (free <= min_free).then(|| format!("the file system is full: {free} bytes are free, and storage.min_free is {min_free}"))
}

/// Compares the ledger with the store, at the pace of somebody who has time.
pub async fn reconcile(cache: Arc<Cache>, counting: Counting) {
    let (mut found, mut lost) = (0, 0);
    for first in (0..=u8::MAX).step_by(FOLDERS.into()) {
        let (look, started) = (Arc::clone(&cache), Instant::now());
        match blocking(move || Ok(look.reconcile(first..=first + (FOLDERS - 1)))).await {
            Ok(differences) => (found, lost) = (found + differences.found.len(), lost + differences.lost.len()),
            Err(error) => tracing::error!(%error, "the store could not be looked through"),
        }
        tokio::time::sleep(started.elapsed()).await;
    }
    drop(counting);
    if (found, lost) != (0, 0) {
        tracing::warn!(found, lost, "the store had other files than its database knew of; now it knows");
    }
}

/// Removes what nobody came back for.
pub async fn sweep(cache: Arc<Cache>, now: Timestamp) {
    let swept = blocking(move || cache.sweep(abandoned_before(now)));
    if let Err(error) = swept.await {
        tracing::warn!(%error, "what was left of old downloads could not be removed");
    }
}

/// Removes what nobody came back for, and then lets go of what is due for as long as the program runs.
pub async fn run(cache: Arc<Cache>, metrics: Arc<Metrics>) {
    let now = cache.now();
    sweep(Arc::clone(&cache), now).await;
    keep(cache, metrics).await;
}

/// Lets go of what is due, again and again, and shows how things are.
async fn keep(cache: Arc<Cache>, metrics: Arc<Metrics>) {
    loop {
        let look = Arc::clone(&cache);
        let metrics = Arc::clone(&metrics);
        let pruned = blocking(move || {
            look.prune();
            // The operator may have made it smaller, and others may have filled the file system.
            look.shrink()?;
            show(&look, &metrics);
            look.close_idle_files();
            look.empty_trash()?;
            look.space()
        });
        let mut pause = pause(cache.rules());
        match pruned.await {
            Ok(space) => {
                cache.standing().looked_at(full(space, cache.books().limits()));
                // At the start it is not known yet what there is and what remotes list, and until then nothing can go.
                if !cache.books().is_counted() || cache.books().need(0, space.free).least > 0 {
                    pause = pause.min(PAUSE_WHILE_TOO_FULL);
                }
            }
            Err(error) => {
                tracing::error!(%error, "what is due could not be let go, or the file system says nothing");
                cache.standing().looked_at(Some(error.to_string()));
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// A twentieth of the shortest time after which something goes is soon enough.
fn pause(rules: Rules) -> Duration {
    let shortest = rules.idle.unwrap_or(rules.grace).min(rules.grace);
    (shortest / 20).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Brings the metrics up to date that change by themselves.
fn show(cache: &Cache, metrics: &Metrics) {
    let (now, catalog) = (cache.now(), cache.current().load());
    let (images, oldest) = cache.books().read(|ledger| {
        let mut images = [0; 3];
        for record in ledger.images() {
            let state = if record.stays() { usize::from(!is_cached(record, &catalog)) } else { 2 };
            images[state] += 1;
        }
        (images, ledger.by_last_use().next().map(|(at, _)| at))
    });
    metrics.images_are_held(images);
    metrics.cache_oldest_use.set(oldest.map_or(0, |at| now.duration_since(at).as_secs()));
    // Of our own images none is held back.
    for (name, remote) in catalog.remotes.iter().filter(|(name, _)| catalog.mode(name) != Some(Mode::Own)) {
        let oldest = remote.held_back.iter().map(|held_back| held_back.since).min();
        metrics.images_are_held_back(name, remote.held_back.len(), oldest.map_or(0, |at| now.duration_since(at).as_secs()));
    }
}

fn abandoned_before(now: Timestamp) -> SystemTime {
    SystemTime::try_from(now).ok().and_then(|now| now.checked_sub(ABANDONED)).unwrap_or(SystemTime::UNIX_EPOCH)
}
