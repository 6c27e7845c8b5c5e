//! Has everything held that is to be in a bundle. What is fetched for that is held as if a host had asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashSet;
use tokio::sync::mpsc;

use crate::api::Step;
use crate::bundle::choosing::{Chosen, choose};
use crate::bundle::error::NoBundle;
use crate::bundle::plan::Held;
use crate::cache::blocking;
use crate::catalog::images::Image;
use crate::digest::{Digest, Expected, Fingerprint};
use crate::library::Library;
use crate::library::error::LibraryError;
use crate::library::names::{Named, held_back};
use crate::manifest::Selection;
use crate::simplestreams::file::ListedFile;

/// Brings in what is chosen.
#[derive(Debug)]
pub struct Holder<'a> {
    /// Who has it.
    pub library: &'a Library,
    /// Who is told how far it is.
    pub steps: &'a mpsc::Sender<Step>,
}

/// The images that a selection means, by remote.
pub async fn chosen(library: &Library, selection: Selection) -> Result<Chosen, NoBundle> {
    let (cache, own) = (Arc::clone(&library.cache), library.shelf.aliases());
    let chosen = blocking(move || {
        let is_held = |fingerprint| cache.books().image(fingerprint).is_some();
        Ok(choose(&cache.current().load(), &own, &selection, &is_held))
    });
    Ok(chosen.await??)
}

impl Holder<'_> {
    /// Chooses, and has what is held back brought in first: hosts do not see it yet, and whoever carries a bundle wants the newest.
    pub async fn choose_newest(&self, selection: &Selection) -> Result<Chosen, NoBundle> {
        let chosen = self::chosen(self.library, selection.clone()).await?;
        let catalog = self.library.cache.current().load();
        let named = |remote: &Arc<str>, image: &Image| Named {
            name: image.fingerprint.to_string(),
            remote: Arc::clone(remote),
            image: image.clone(),
        };
        let all = chosen.iter().flat_map(|(remote, images)| images.iter().map(|image| named(remote, image)).collect::<Vec<_>>());
        let newer: BTreeMap<Fingerprint, Named> =
            all.filter_map(|named| held_back(&catalog, &named)).map(|newer| (newer.image.fingerprint, newer)).collect();
        if newer.is_empty() {
            return Ok(chosen);
        }
        for newer in newer.values() {
            let total = newer.image.size();
            let tell = |done| drop(self.steps.try_send(Step::Progress { done, total }));
            if let Err(error) = self.library.have(newer, tell).await {
                // Hosts go on with the older one too.
                drop(self.steps.try_send(Step::Note {
                    text: format!("{}: the newer version cannot be had: {error}", newer.image.version.product.name),
                }));
            }
            self.library.publisher.review(Arc::clone(&newer.remote)).await.map_err(LibraryError::from)?;
        }
        self::chosen(self.library, selection.clone()).await
    }

    /// Has every image held whole that the site has not; what each of its files is. What has to be fetched for that is held as if a
    /// host had asked.
    pub async fn hold_all(&self, chosen: &Chosen, there: &HashSet<Digest>) -> Result<BTreeMap<Arc<str>, Held>, NoBundle> {
        let to_be_held = |image: &&Image| whole_there(image, there).is_none();
        let files: HashSet<Expected> = chosen.values().flatten().filter(to_be_held).flat_map(Image::expected).collect();
        let total = files.iter().filter_map(|file| file.size).sum();
        let capacity = self.library.cache.books().limits().capacity_bytes;
        if total > capacity {
            // One image would push the other out.
            return Err(NoBundle::TooLarge { total, capacity });
        }
        let (mut done, mut held) = (0, BTreeMap::new());
        for (remote, images) in chosen {
            let of_remote: &mut Held = held.entry(Arc::clone(remote)).or_default();
            let mut seen = HashSet::default();
            for image in images {
                let files = if let Some(files) = whole_there(image, there) {
                    files
                } else {
                    let tell = |received| drop(self.steps.try_send(Step::Progress { done: done + received, total }));
                    self.hold_image(remote, image, tell).await?;
                    done += image.size();
                    self.files_of(image).await?
                };
                // Several images may share their metadata.
                of_remote.extend(files.into_iter().filter(|(file, ..)| seen.insert(file.expected)));
            }
        }
        Ok(held)
    }

    /// What the files of an image are that is held.
    async fn files_of(&self, image: &Image) -> Result<Held, NoBundle> {
        let mut files = Vec::new();
        for file in &image.files {
            let blob = self.library.cache.find(file.expected).await?;
            let blob = blob.ok_or_else(|| LibraryError::not_had(file, &"it went again; is there room for all of them?"))?;
            files.push((file.clone(), blob.digest, blob.size));
        }
        Ok(files)
    }

    /// Has an image held whose files have its fingerprint. One that is recorded does: then only what went is fetched again.
    async fn hold_image(&self, remote: &Arc<str>, image: &Image, tell: impl Fn(u64) + Send + Sync) -> Result<(), NoBundle> {
        let cache = &self.library.cache;
        let is_recorded = cache.books().image(image.fingerprint).is_some();
        let is_here = image.files.iter().all(|file| cache.books().read(|ledger| ledger.has(file.expected)));
        if is_recorded && is_here {
            return Ok(());
        }
        let named = Named { name: image.fingerprint.to_string(), remote: Arc::clone(remote), image: image.clone() };
        Ok(self.library.have(&named, tell).await?)
    }
}

/// The files of an image that a site has whole, if its document says all that has to be known of them.
fn whole_there(image: &Image, there: &HashSet<Digest>) -> Option<Held> {
    let file =
        |file: &ListedFile| Some((file.clone(), file.expected.digest().filter(|digest| there.contains(digest))?, file.expected.size?));
    image.files.iter().map(file).collect()
}
