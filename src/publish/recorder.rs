//! Records images once all their files are here.
//!
//! Each file was verified by itself when it came; only together do they have a fingerprint, which clients check after a
//! download. An image that has another one is hidden, since no client would take it. One that is right is recorded: from
//! then on it stays or goes as one, and its newer versions are kept up to date.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cache::lease::Lent;
use crate::cache::news::Unread;
use crate::cache::{Cache, blocking};
use crate::catalog::Catalog;
use crate::catalog::images::Image;
use crate::digest::{Digest, Expected, Fingerprint, FingerprintHasher};
use crate::ledger::Ledger;
use crate::ledger::decision::Decision;
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::publish::admission::{self, Admitted};
use crate::store::blob::Blob;
use crate::store::facts;
use crate::store::{decisions, records};

const READ_BYTES: usize = 256 * 1024;
/// A remote is rendered anew at most so that for each second of rendering there are so many without.
const REST: u32 = 5;
/// What failed is tried again after this time; it doubles with each failure in a row, so often.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_DOUBLINGS: u32 = 12;

/// Checks and records images as their files arrive.
#[derive(Debug)]
pub struct Recorder {
    cache: Arc<Cache>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    /// Keys of images that are not what they were listed as.
    wrong: HashSet<Digest>,
    /// When to look again at everything, because something failed, and how often in a row it did.
    again: Option<Instant>,
    failures: u32,
    /// Files that came and were not looked at yet.
    came: VecDeque<(Arc<str>, Expected)>,
    /// Remotes of which something is held that was not when they were last rendered, or the other way round.
    changed: BTreeSet<Arc<str>>,
    /// The last one of them that was rendered: those after it come first.
    last: Option<Arc<str>>,
}

impl Recorder {
    /// A recorder that knows of these already that they are not what they were listed as.
    pub fn new(cache: Arc<Cache>, publisher: Publisher, metrics: Arc<Metrics>, wrong: Vec<Digest>) -> Self {
        let wrong = wrong.into_iter().collect();
        Self { cache, publisher, metrics, wrong, again: None, failures: 0, came: VecDeque::new(), changed: BTreeSet::new(), last: None }
    }

    /// Goes on for as long as the program does. Images that were whole already when it began are looked at first: the one before
    /// may have been killed in between.
    pub async fn run(mut self) {
        let cache = Arc::clone(&self.cache);
        let mut generations = self.publisher.generations();
        self.look_at_all().await;
        let (mut next, mut look) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                unread = cache.news().read(), if self.came.is_empty() => self.take(unread),
                () = std::future::ready(()), if !self.came.is_empty() => self.look_at_next().await,
                // What is listed now may be held since before.
                changed = async { tokio::time::sleep_until(look).await; generations.changed().await } => {
                    if changed.is_err() {
                        return;
                    }
                    let started = Instant::now();
                    self.look_at_all().await;
                    look = Instant::now() + started.elapsed() * REST;
                }
                () = tokio::time::sleep_until(self.again.unwrap_or(next)), if self.again.is_some() => {
                    self.again = None;
                    self.look_at_all().await;
                }
                () = tokio::time::sleep_until(next), if !self.changed.is_empty() => {
                    next = Instant::now() + self.have_reviewed().await * REST;
                }
            }
        }
    }

    /// Notes what is to be looked at, and whom it concerns.
    fn take(&mut self, unread: Unread) {
        self.changed.extend(unread.remotes);
        if !unread.files.is_empty() {
            self.changed.extend(self.cache.current().load().of_what_is_held().cloned());
        }
        self.came.extend(unread.files);
        if unread.is_more {
            self.again = Some(Instant::now());
        }
    }

    /// Has one remote rendered whose images are others now; how long that took.
    async fn have_reviewed(&mut self) -> Duration {
        let started = Instant::now();
        self.last = take_next(&mut self.changed, self.last.take());
        if let Some(remote) = &self.last
            && let Err(error) = self.publisher.review(Arc::clone(remote)).await
        {
            tracing::debug!(%remote, %error, "what is held could not be looked at");
        }
        started.elapsed()
    }

    async fn look_at_next(&mut self) {
        if let Some((remote, file)) = self.came.pop_front() {
            self.look_at(&remote, file).await;
        }
    }

    /// Looks at the images that need a file of a remote, and if that has none of them, at those of others.
    async fn look_at(&mut self, remote: &Arc<str>, file: Expected) {
        let catalog = self.cache.current().load();
        let mut images: Vec<(Arc<str>, Image)> = catalog.images_with(file).map(|(name, image)| (Arc::clone(name), image.clone())).collect();
        images.sort_by_key(|(name, _)| name != remote);
        for (remote, image) in images {
            self.look_at_one(&catalog, remote, image).await;
        }
    }

    /// Looks at every listed image that is not recorded, and at those that wait for being held: one may have come while it was not
    /// known yet that it is waited for.
    async fn look_at_all(&mut self) {
        let catalog = self.cache.current().load();
        for remote in &catalog.order {
            let Some(listed) = catalog.remotes.get(remote) else { continue };
            let held_back = listed.held_back.iter().map(|held_back| &held_back.image);
            if self.cache.books().read(|ledger| held_back.clone().any(|image| ledger.image(image.fingerprint).is_some())) {
                self.changed.insert(Arc::clone(remote));
            }
            for image in listed.listing.images().iter().chain(held_back) {
                if self.seems_whole(image) {
                    self.look_at_one(&catalog, Arc::clone(remote), image.clone()).await;
                }
            }
        }
    }

    /// Whether every file of an image that is not recorded is held.
    fn seems_whole(&self, image: &Image) -> bool {
        let is_whole = |ledger: &Ledger| ledger.image(image.fingerprint).is_none() && image.expected().all(|file| ledger.has(file));
        self.cache.books().read(is_whole)
    }

    async fn look_at_one(&mut self, catalog: &Arc<Catalog>, remote: Arc<str>, image: Image) {
        let (fingerprint, key) = (image.fingerprint, image.key());
        if self.cache.books().read(|ledger| ledger.image(fingerprint).is_some()) || self.wrong.contains(&key) {
            return;
        }
        let (cache, wanted) = (Arc::clone(&self.cache), image.clone());
        match blocking(move || check(&cache, &wanted)).await {
            Ok(Checked::NotWhole) => {}
            Ok(Checked::Right(blobs)) => self.record(catalog, remote, image, blobs).await,
            Ok(Checked::Wrong) => {
                self.wrong.insert(key);
                self.metrics.digest_mismatched("fingerprint");
                tracing::error!(%fingerprint, "an image's files do not have its fingerprint; it is listed no more");
                if let Err(error) = self.publisher.hide(key).await {
                    tracing::debug!(%fingerprint, %error, "it could not be hidden");
                }
            }
            Err(error) => self.failed(fingerprint, &error, "an image could not be checked"),
        }
    }

    /// Writes an image down, and then lets it count.
    async fn record(&mut self, catalog: &Arc<Catalog>, remote: Arc<str>, image: Image, blobs: Vec<Lent>) {
        let fingerprint = image.fingerprint;
        let (cache, catalog) = (Arc::clone(&self.cache), Arc::clone(catalog));
        let (of, concerned) = (Arc::clone(&remote), concerned_with(&catalog, &image));
        let recorded = blocking(move || {
            let now = cache.now();
            let mut admitted =
                cache.books().read(|ledger| admission::admit(ledger, &catalog, cache.rules(), &of, &image, &digests(&blobs), now));
            let decision = inherited_decision(&cache, &admitted)?;
            decision.apply(&mut admitted.record);
            let excerpt = admission::excerpt(&catalog, &of, &image);
            records::save(&**cache.store().disk(), cache.store().layout(), &admitted.record, excerpt)?;
            Ok(cache.books().change(|ledger| admitted.clone().enter(ledger, now)).then_some(admitted))
        });
        match recorded.await {
            Ok(Some(Admitted { record, superseded })) => {
                let is_update = !superseded.is_empty();
                tracing::info!(%fingerprint, %remote, product = record.version.product.name, version = &*record.version.serial, is_update, "an image is held");
                if is_update {
                    self.metrics.image_updated(&remote);
                }
                self.failures = 0;
                self.cache.found_again(fingerprint);
                self.changed.extend(concerned);
                self.changed.insert(remote);
            }
            Ok(None) => self.cache.forget_record(fingerprint),
            Err(error) => self.failed(fingerprint, &error, "an image could not be recorded"),
        }
    }

    /// Says so, to whoever waits for the image too. It is tried again, ever later.
    fn failed(&mut self, fingerprint: Fingerprint, error: &io::Error, what: &str) {
        tracing::warn!(%fingerprint, %error, "{what}");
        if self.again.is_none() {
            self.again = Some(Instant::now() + RETRY.saturating_mul(1 << self.failures.min(RETRY_DOUBLINGS)));
            self.failures += 1;
        }
        self.cache.note_unrecorded(fingerprint);
    }
}

/// Takes a remote out of those that are to be looked at: the one after the last one, so that each has its turn.
fn take_next(changed: &mut BTreeSet<Arc<str>>, last: Option<Arc<str>>) -> Option<Arc<str>> {
    let after = last.map_or(Bound::Unbounded, Bound::Excluded);
    let next = changed.range((after, Bound::Unbounded)).next().or_else(|| changed.first()).cloned()?;
    changed.take(&next)
}

/// The remotes whose documents may depend on whether an image is held, whoever brought it.
fn concerned_with(catalog: &Catalog, image: &Image) -> BTreeSet<Arc<str>> {
    image.expected().flat_map(|file| catalog.concerned_with(file.claim)).map(Arc::clone).collect()
}

/// What people decided about an image, or about the one whose place it takes: then that is written down for this one.
fn inherited_decision(cache: &Cache, admitted: &Admitted) -> io::Result<Decision> {
    let (disk, layout) = (&**cache.store().disk(), cache.store().layout());
    let own = decisions::load(disk, layout, admitted.record.fingerprint)?;
    let Some(predecessor) = admitted.superseded.first().filter(|_| own.is_empty()) else { return Ok(own) };
    let inherited = Decision { expires_at: None, ..decisions::load(disk, layout, *predecessor)? };
    decisions::save(disk, layout, admitted.record.fingerprint, &inherited)?;
    decisions::remove(disk, layout, *predecessor)?;
    Ok(inherited)
}

fn digests(blobs: &[Lent]) -> Vec<(Digest, u64)> {
    blobs.iter().map(|blob| (blob.digest, blob.size)).collect()
}

/// What a look at an image's bytes said.
enum Checked {
    /// Not all of its files are held.
    NotWhole,
    /// They have the fingerprint that its document says.
    Right(Vec<Lent>),
    /// They have another one, and no client would take the image.
    Wrong,
}

/// Reads all files of an image, if all of them are held, and notes it if they are not the image.
fn check(cache: &Cache, image: &Image) -> io::Result<Checked> {
    for digest in image.expected().filter_map(|file| cache.digest(file)) {
        cache.adopt(digest)?;
    }
    let blobs: Option<Vec<Lent>> = image.expected().map(|file| cache.find_on_disk(file)).collect::<io::Result<_>>()?;
    let Some(blobs) = blobs else { return Ok(Checked::NotWhole) };
    let mut hasher = FingerprintHasher::default();
    blobs.iter().try_for_each(|blob| hash(blob, &mut hasher))?;
    if hasher.finish() == image.fingerprint {
        return Ok(Checked::Right(blobs));
    }
    facts::note_wrong(&**cache.store().disk(), cache.store().layout(), image.key())?;
    Ok(Checked::Wrong)
}

fn hash(blob: &Blob, hasher: &mut FingerprintHasher) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut position = 0;
    while position < blob.size {
        let read = blob.file().read_at(&mut buffer, position)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(&buffer[..read]);
        position += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::publish::recorder::take_next;

    #[test]
    fn a_remote_that_changes_all_the_time_does_not_keep_others_waiting() {
        let (mut changed, mut last) = (["a", "b", "c"].map(Arc::<str>::from).into(), None);
        for expected in ["a", "b", "c", "a"] {
            last = take_next(&mut changed, last);
            assert_eq!(last.as_deref(), Some(expected));
            changed.insert("a".into());
        }
        assert_eq!(take_next(&mut [].into(), last), None);
    }
}
