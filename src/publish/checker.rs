//! Checks that images are what their documents say, once all their files are here.
//!
//! Each file was verified by itself when it came; only together do they have a fingerprint, which clients check after a
//! download. An image that fails is hidden, since no client would take it.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::cache::{Cache, Event, blocking};
use crate::catalog::listing::Image;
use crate::digest::{Digest, FingerprintHasher};
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::store::blob::Blob;
use crate::store::facts::{self, Checked};

const READ_BYTES: usize = 256 * 1024;

/// Checks images as their files arrive.
#[derive(Debug)]
pub struct Checker {
    cache: Arc<Cache>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    checked: HashSet<Digest>,
}

impl Checker {
    /// A checker that knows already of `checked` images.
    pub fn new(cache: Arc<Cache>, publisher: Publisher, metrics: Arc<Metrics>, checked: HashSet<Digest>) -> Self {
        Self { cache, publisher, metrics, checked }
    }

    /// Goes on until nobody sends events any more. Images that were whole already when the program began are looked at
    /// first: the one before may have been killed in between.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let listed: Vec<Image> =
            self.publisher.current().load().remotes.values().flat_map(|remote| remote.listing.images().to_vec()).collect();
        self.check_all(listed).await;
        while let Some(Event::Committed(file)) = events.recv().await {
            let images = self.publisher.current().load().images_with(file).cloned().collect();
            self.check_all(images).await;
        }
    }

    async fn check_all(&mut self, images: Vec<Image>) {
        for image in images {
            if !self.checked.contains(&image.key()) {
                self.check(image).await;
            }
        }
    }

    async fn check(&mut self, image: Image) {
        let (cache, fingerprint, key) = (Arc::clone(&self.cache), image.fingerprint, image.key());
        match blocking(move || check(&cache, &image)).await {
            Ok(None) => {}
            Ok(Some(Checked::Right)) => {
                self.checked.insert(key);
            }
            Ok(Some(Checked::Wrong)) => {
                self.checked.insert(key);
                self.metrics.digest_mismatched("fingerprint");
                tracing::error!(%fingerprint, "an image's files do not have its fingerprint; it is listed no more");
                if let Err(error) = self.publisher.hide(key).await {
                    tracing::debug!(%fingerprint, %error, "it could not be hidden");
                }
            }
            Err(error) => tracing::warn!(%fingerprint, %error, "an image could not be checked"),
        }
    }
}

/// Reads all files of an image, if all of them are held, and notes what came of it.
fn check(cache: &Cache, image: &Image) -> io::Result<Option<Checked>> {
    let blobs: Option<Vec<Blob>> = image.files.iter().map(|file| cache.find_on_disk(*file)).collect::<io::Result<_>>()?;
    let Some(blobs) = blobs else { return Ok(None) };
    let mut hasher = FingerprintHasher::default();
    blobs.iter().try_for_each(|blob| hash(blob, &mut hasher))?;
    let checked = if hasher.finish() == image.fingerprint { Checked::Right } else { Checked::Wrong };
    facts::note_image(&**cache.store().disk(), cache.store().layout(), image.key(), checked)?;
    Ok(Some(checked))
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
