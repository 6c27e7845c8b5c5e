//! Images of our own, and names that people gave: what of them is listed, under the remote `local`.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::api::ImageChange;
use crate::cache::{Cache, blocking};
use crate::digest::{Digest, Fingerprint};
use crate::ledger::Ledger;
use crate::ledger::publication::{OwnAlias, Publication};
use crate::ledger::record::{Fate, Reason, Record};
use crate::library::entry::{LOCAL, check_property, enter, is_entered, is_lost};
use crate::library::error::LibraryError;
use crate::publish::Publisher;
use crate::publish::command::Documents;
use crate::render::own::{self, Own};
use crate::simplestreams::snapshot::Snapshot;
use crate::store::publications;

/// What is published here.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Images of our own.
    pub images: Vec<Publication>,
    /// Names that people gave.
    pub aliases: Vec<OwnAlias>,
}

impl Published {
    /// Takes an image in the place of what was known of it.
    pub fn put(&mut self, publication: Publication) {
        self.images.retain(|other| other.fingerprint != publication.fingerprint);
        self.images.push(publication);
    }
}

/// When what is published is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// In any case: images that hosts do not see may be others.
    Anew,
    /// If documents are others than those that are served.
    IfOther,
}

/// What is published here, shared by all who change it.
#[derive(Debug)]
pub struct Shelf {
    cache: Arc<Cache>,
    publisher: Publisher,
    published: Mutex<Published>,
    /// One change at a time: two would write the same files.
    changing: tokio::sync::Mutex<()>,
    /// What is served of it, so that nothing is served anew that is as it was.
    served: tokio::sync::Mutex<Option<Digest>>,
}

impl Shelf {
    /// What is written down.
    pub fn load(cache: Arc<Cache>, publisher: Publisher) -> std::io::Result<Self> {
        let (disk, layout) = (&**cache.store().disk(), cache.store().layout());
        let published = Published { images: publications::load(disk, layout)?, aliases: publications::load_aliases(disk, layout)? };
        Ok(Self {
            published: Mutex::new(published),
            changing: tokio::sync::Mutex::default(),
            served: tokio::sync::Mutex::default(),
            cache,
            publisher,
        })
    }

    /// What is published now.
    pub fn published(&self) -> Published {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether an image was published here.
    pub fn has(&self, fingerprint: Fingerprint) -> bool {
        self.published().images.iter().any(|image| image.fingerprint == fingerprint.to_string())
    }

    /// Waits for its turn to change what is published.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Changes what is published, once the change is written down.
    pub fn change(&self, change: impl FnOnce(&mut Published)) {
        change(&mut self.published.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Changes what is written of an image of our own.
    pub async fn change_image(
        &self,
        cache: &Arc<Cache>,
        fingerprint: Fingerprint,
        change: ImageChange,
        expires_at: Option<Option<Timestamp>>,
    ) -> Result<(), LibraryError> {
        if change.auto_update == Some(true) {
            return Err(LibraryError::NoUpdates);
        }
        change.properties.iter().try_for_each(|(name, value)| check_property(name, value.as_deref().unwrap_or_default()))?;
        let _turn = self.turn().await;
        let published = self.published().images.into_iter();
        let mut publication = { published }.find(|image| image.fingerprint == fingerprint.to_string()).ok_or(LibraryError::NotRecorded)?;
        publication.public = change.public.unwrap_or(publication.public);
        publication.expires_at = expires_at.map_or(publication.expires_at, |at| at.map(Timestamp::as_second));
        for (name, value) in change.properties {
            match value {
                Some(value) => drop(publication.properties.insert(name, value)),
                None => drop(publication.properties.remove(&name)),
            }
        }
        let (holder, written) = (Arc::clone(cache), publication.clone());
        blocking(move || {
            publications::save(&**holder.store().disk(), holder.store().layout(), &written)?;
            Ok(enter(&holder, &written))
        })
        .await??;
        self.change(|published| published.put(publication));
        self.serve(Serving::Anew).await
    }

    /// Forgets an image of our own, and the names of an image that goes.
    pub async fn forget(&self, cache: &Arc<Cache>, fingerprint: Fingerprint) -> Result<(), LibraryError> {
        let _turn = self.turn().await;
        self.strike_out(cache, fingerprint).await?;
        self.serve(Serving::Anew).await
    }

    /// The same, for whoever has the turn.
    async fn strike_out(&self, cache: &Arc<Cache>, fingerprint: Fingerprint) -> Result<(), LibraryError> {
        let (holder, published, gone) = (Arc::clone(cache), self.published(), fingerprint.to_string());
        let names: Vec<String> = published.aliases.into_iter().filter(|alias| alias.fingerprint == gone).map(|alias| alias.name).collect();
        let (written, of) = (names.clone(), gone.clone());
        blocking(move || {
            let (disk, layout) = (&**holder.store().disk(), holder.store().layout());
            written.iter().try_for_each(|name| publications::remove_alias(disk, layout, name))?;
            publications::remove(disk, layout, &of)
        })
        .await?;
        self.change(|published| {
            published.aliases.retain(|alias| alias.fingerprint != gone);
            published.images.retain(|image| image.fingerprint != gone);
        });
        Ok(())
    }

    /// Makes the ledger true of what is written: an image of our own is held as that says. One that nothing is written of is
    /// nobody's; it goes after grace.
    pub async fn settle(&self) -> Result<(), LibraryError> {
        let _turn = self.turn().await;
        let (cache, published) = (Arc::clone(&self.cache), self.published());
        let gone = blocking(move || {
            let mut gone = Vec::new();
            for publication in published.images.iter().filter(|publication| !is_entered(&cache, publication)) {
                let entered = enter(&cache, publication);
                if entered.is_err() && is_lost(&cache, publication)? {
                    tracing::warn!(fingerprint = publication.fingerprint, "an image of our own is gone; its names go with it");
                    gone.push(publication.fingerprint.clone());
                }
            }
            let now = cache.now();
            cache.books().change(|ledger| {
                let is_written = |record: &Record| published.images.iter().any(|image| image.fingerprint == record.fingerprint.to_string());
                let orphans = ledger.images().filter(|record| *record.remote == *LOCAL && record.stays() && !is_written(record));
                let orphans: Vec<Fingerprint> = orphans.map(|record| record.fingerprint).collect();
                for fingerprint in orphans {
                    tracing::warn!(%fingerprint, "nothing is written of an image of our own any more; it goes after images.grace");
                    ledger.set_fate(fingerprint, Fate::Leaves(now, Reason::Withdrawn));
                }
            });
            Ok(gone)
        })
        .await?;
        for fingerprint in gone.iter().filter_map(|gone| Fingerprint::from_hex(gone)) {
            self.strike_out(&self.cache, fingerprint).await?;
        }
        Ok(())
    }

    /// Lets names go over to the images that took the place of those that they were given to.
    async fn follow_updates(&self) -> Result<(), LibraryError> {
        // Whoever has the turn serves when it is done.
        let Ok(_turn) = self.changing.try_lock() else { return Ok(()) };
        let (cache, published) = (Arc::clone(&self.cache), self.published());
        let moved = blocking(move || {
            let mut moved = Vec::new();
            for alias in &published.aliases {
                let fingerprint = cache.books().read(|ledger| target(alias, ledger).map(|record| record.fingerprint.to_string()));
                if let Some(fingerprint) = fingerprint.filter(|fingerprint| *fingerprint != alias.fingerprint) {
                    let alias = OwnAlias { fingerprint, ..alias.clone() };
                    publications::save_alias(&**cache.store().disk(), cache.store().layout(), &alias)?;
                    moved.push(alias);
                }
            }
            Ok(moved)
        })
        .await?;
        self.change(|published| {
            for new in moved {
                published.aliases.iter_mut().filter(|alias| alias.name == new.name).for_each(|alias| *alias = new.clone());
            }
        });
        Ok(())
    }

    /// Serves what is published.
    pub async fn serve(&self, wanted: Serving) -> Result<(), LibraryError> {
        let mut served = self.served.lock().await;
        self.follow_updates().await?;
        let snapshot = self.documents().await?;
        let digest = snapshot
            .as_ref()
            .map(|snapshot| Digest::of(&snapshot.documents.iter().flat_map(|source| source.bytes.to_vec()).collect::<Vec<u8>>()));
        if wanted == Serving::Anew || *served != digest {
            let documents = Documents { newest: snapshot.map(Arc::new), ..Documents::default() };
            self.publisher.replace(LOCAL.into(), documents).await?;
            *served = digest;
        }
        Ok(())
    }

    /// Serves it again whenever what is held changes: names follow the images that they mean.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut generations = self.publisher.generations();
        while let Some(Ok(())) = stop.run_until_cancelled(generations.changed()).await {
            let settled = if self.is_settled() { Ok(()) } else { self.settle().await };
            if let Err(error) = settled.and(self.serve(Serving::IfOther).await) {
                tracing::warn!(%error, "images of our own could not be listed");
            }
        }
    }

    /// Whether the ledger has every image of our own.
    fn is_settled(&self) -> bool {
        self.published().images.iter().all(|publication| is_entered(&self.cache, publication))
    }

    async fn documents(&self) -> Result<Option<Snapshot>, LibraryError> {
        let (cache, published) = (Arc::clone(&self.cache), self.published());
        let made = blocking(move || Ok(cache.books().read(|ledger| documents(&published, ledger, &cache))));
        Ok(made.await?)
    }
}

fn documents(published: &Published, ledger: &Ledger, cache: &Cache) -> Option<Snapshot> {
    let aliases = |meant: &str| -> Vec<String> {
        let of_it =
            published.aliases.iter().filter(|alias| target(alias, ledger).is_some_and(|record| record.fingerprint.to_string() == meant));
        let mut names: Vec<String> = of_it.map(|alias| alias.name.clone()).collect();
        names.sort();
        names
    };
    let mut images: Vec<Own<'_>> = Vec::new();
    for publication in published.images.iter().filter(|publication| publication.public) {
        images.push(Own::Published(publication, aliases(&publication.fingerprint)));
    }
    let mut named: Vec<&Record> = published
        .aliases
        .iter()
        .filter_map(|alias| target(alias, ledger))
        .filter(|record| *record.remote != *LOCAL && record.public)
        .collect();
    named.sort_by_key(|record| record.fingerprint);
    named.dedup_by_key(|record| record.fingerprint);
    images.extend(named.into_iter().map(|record| Own::Named(record, aliases(&record.fingerprint.to_string()))));
    own::documents(&images, cache.now())
}

/// The image that a name means: the one that it was given to, or the one that took its place.
pub fn target<'a>(alias: &OwnAlias, ledger: &'a Ledger) -> Option<&'a Record> {
    let given = ledger.image(Fingerprint::from_hex(&alias.fingerprint)?);
    let Some(record) = given.filter(|record| !record.stays()) else { return given };
    let is_heir = |other: &&Record| other.is_tracked() && other.is_sibling_of(record) && other.version.serial > record.version.serial;
    ledger.images().filter(is_heir).max_by_key(|other| &other.version.serial).or(given)
}
