//! Reads everything that is held again, slowly, to find what the disk changed in the meantime.
//!
//! What the database did not know at the start comes first. Then the 256 folders of the store are read one after the other,
//! and each gets the same share of the time in which all are to be read; how far it came is noted after each, so that a
//! restart goes on there. What is wrong leaves the store at once, whoever reads it is cut off, and what a remote lists is
//! fetched again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cache::integrity::{Piece, Verdict};
use crate::cache::{Cache, blocking};
use crate::digest::{Claim, Digest};
use crate::fetch::Fetcher;
use crate::fetch::download::Wanted;
use crate::fetch::holding::hold;
use crate::metrics::Metrics;
use crate::store::blob::Blob;
use crate::store::scrubbed::Scrubbed;

const FOLDERS: u32 = 256;
/// What the database does not know is read at this rate, as long as no host wants it sooner.
const STRANGERS_BYTES_PER_SEC: f64 = 100e6;

/// Whoever reads everything again.
#[derive(Debug)]
pub struct Scrubber {
    /// What is held.
    pub cache: Arc<Cache>,
    /// Who fetches what was wrong.
    pub fetcher: Arc<Fetcher>,
    /// Where it is shown when all was read.
    pub metrics: Arc<Metrics>,
    /// In which time all is to be read.
    pub within: Duration,
}

impl Scrubber {
    /// Reads, again and again, for as long as the program runs.
    pub async fn run(self) {
        let cache = Arc::clone(&self.cache);
        let load = blocking(move || Ok(Scrubbed::load(&**cache.store().disk(), cache.store().layout())));
        let mut scrubbed = load.await.unwrap_or_default();
        self.cache.books().counted().await;
        for digest in self.cache.strangers() {
            // Hosts may have wanted it sooner.
            if !self.cache.books().read(|ledger| ledger.is_stranger(digest)) {
                continue;
            }
            self.read_one(digest, |bytes| Duration::from_secs_f64(lossy(bytes) / STRANGERS_BYTES_PER_SEC)).await;
        }
        loop {
            self.metrics.scrub_last_completed.set(scrubbed.completed_at.unwrap_or_default());
            self.read_folder(scrubbed.folders).await;
            scrubbed = scrubbed.advanced(self.cache.now());
            let cache = Arc::clone(&self.cache);
            if let Err(error) = blocking(move || scrubbed.save(&**cache.store().disk(), cache.store().layout())).await {
                tracing::warn!(%error, "how far the store was read again could not be written down");
            }
        }
    }

    /// Reads one folder in its share of the time.
    async fn read_folder(&self, folder: u16) {
        let (ends, share) = (Instant::now() + self.within / FOLDERS, self.within / FOLDERS);
        let is_in_folder = |digest: &Digest| digest.as_bytes().first().is_some_and(|first| u16::from(*first) == folder);
        let blobs: Vec<(Digest, u64)> = self.cache.books().read(|ledger| {
            let held = ledger.blobs().filter(|(digest, _)| is_in_folder(digest));
            held.map(|(digest, held)| (digest, held.size)).collect()
        });
        let total: u64 = blobs.iter().map(|(_, size)| size).sum();
        for (digest, _) in blobs {
            self.read_one(digest, |bytes| pause(share, bytes, total)).await;
        }
        tokio::time::sleep_until(ends).await;
    }

    /// Reads a blob, and replaces it if it is wrong.
    async fn read_one(&self, digest: Digest, pause: impl Fn(u64) -> Duration) {
        match self.examine(digest, pause).await {
            Ok(None | Some(Verdict::Gone)) => {}
            Ok(Some(Verdict::Right(blob))) => self.vouch(blob).await,
            Ok(Some(Verdict::Wrong(blob))) => match replace(&self.cache, &self.fetcher, blob).await {
                Ok(Remedy { text, .. }) => tracing::error!(%digest, remedy = text, "a blob is not what it is called any more"),
                Err(error) => tracing::error!(%digest, %error, "a blob is not what it is called any more, and cannot be removed"),
            },
            Err(error) => tracing::error!(%digest, %error, "a blob cannot be read; look at the disk"),
        }
    }

    async fn vouch(&self, right: Blob) {
        let (cache, digest) = (Arc::clone(&self.cache), right.digest);
        if let Err(error) = blocking(move || cache.vouch(&right)).await {
            tracing::error!(%digest, %error, "a blob was read and is right, and cannot be looked at again; look at the disk");
        }
    }

    /// Reads a blob, and rests as long after each piece as its share of the time says.
    async fn examine(&self, digest: Digest, pause: impl Fn(u64) -> Duration) -> std::io::Result<Option<Verdict>> {
        let cache = Arc::clone(&self.cache);
        let Some(mut reading) = blocking(move || cache.reread(digest)).await? else { return Ok(None) };
        loop {
            let next = Instant::now();
            match blocking(move || reading.advance()).await? {
                Piece::Over(verdict) => return Ok(Some(verdict)),
                Piece::Read(bytes, rest) => {
                    reading = *rest;
                    tokio::time::sleep_until(next + pause(bytes)).await;
                }
            }
        }
    }
}

/// What became of a file that was no good.
#[derive(Debug)]
pub struct Remedy {
    /// Whether everything is as it should be now.
    pub is_good: bool,
    /// The same in words.
    pub text: String,
}

/// Takes a broken blob out of the store, and has it fetched again if a remote lists it; what became of it.
pub async fn replace(cache: &Arc<Cache>, fetcher: &Fetcher, wrong: Blob) -> std::io::Result<Remedy> {
    let digest = wrong.digest;
    let claims: Vec<Claim> = cache.books().read(|ledger| ledger.claims(digest).collect());
    let holder = Arc::clone(cache);
    if !blocking(move || holder.discard_broken(&wrong)).await? {
        return Ok(Remedy { is_good: true, text: "gave way to another file".to_owned() });
    }
    let Remedy { is_good, text } = fetch_again(cache, fetcher, claims).await;
    Ok(Remedy { is_good, text: format!("left the store and {text}") })
}

/// Fetches a file again of which this is claimed, if a remote lists it; what became of it.
pub async fn fetch_again(cache: &Arc<Cache>, fetcher: &Fetcher, claims: Vec<Claim>) -> Remedy {
    let catalog = cache.current().load();
    let Some((remote, file)) = claims.into_iter().find_map(|claim| catalog.upstream_of(claim)) else {
        return Remedy { is_good: true, text: "is listed by no remote".to_owned() };
    };
    let wanted = Wanted { remote: Arc::clone(remote), path: file.path.clone(), expected: file.expected, host: None };
    match hold(fetcher, &wanted, |_| {}).await {
        Ok(_) => Remedy { is_good: true, text: format!("was fetched again from {remote}") },
        Err(error) => Remedy { is_good: false, text: format!("could not be fetched again from {remote}: {error}") },
    }
}

/// How long a piece of a folder may take.
fn pause(share: Duration, bytes: u64, total: u64) -> Duration {
    if total == 0 {
        return Duration::ZERO;
    }
    share.mul_f64((lossy(bytes) / lossy(total)).min(1.0))
}

#[expect(clippy::cast_precision_loss, reason = "a pause is no exact thing")]
fn lossy(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::scrub::pause;

    #[test]
    fn a_piece_takes_its_share_of_the_time() {
        let hour = Duration::from_hours(1);
        for (bytes, total, expected) in [(1, 2, hour / 2), (2, 2, hour), (3, 2, hour), (0, 2, Duration::ZERO), (1, 0, Duration::ZERO)] {
            assert_eq!(pause(hour, bytes, total), expected, "{bytes} of {total}");
        }
    }
}
