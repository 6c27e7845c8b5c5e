//! Names that people give to images that are held.

use std::sync::Arc;

use crate::cache::{Cache, blocking};
use crate::ledger::publication::OwnAlias;
use crate::library::error::LibraryError;
use crate::library::names::Named;
use crate::library::publishing::check_alias;
use crate::library::shelf::{Serving, Shelf};
use crate::store::publications;

impl Shelf {
    /// All names that people gave, in their order.
    pub fn aliases(&self) -> Vec<OwnAlias> {
        let mut aliases = self.published().aliases;
        aliases.sort();
        aliases
    }

    /// Gives an image that is held a name.
    pub async fn create_alias(&self, cache: &Arc<Cache>, name: &str, named: &Named) -> Result<(), LibraryError> {
        let fingerprint = named.image.fingerprint;
        if cache.books().image(fingerprint).is_none() {
            return Err(LibraryError::NotHeld(named.name.clone()));
        }
        let _turn = self.turn().await;
        self.write_alias(cache, OwnAlias { name: name.to_owned(), fingerprint: fingerprint.to_string() }).await?;
        self.serve(Serving::Anew).await
    }

    /// Takes a name away.
    pub async fn delete_alias(&self, cache: &Arc<Cache>, name: &str) -> Result<(), LibraryError> {
        let _turn = self.turn().await;
        self.take_away(cache, name).await?;
        self.serve(Serving::Anew).await
    }

    /// The same, for whoever has the turn.
    async fn take_away(&self, cache: &Arc<Cache>, name: &str) -> Result<(), LibraryError> {
        self.alias(name)?;
        let (holder, gone) = (Arc::clone(cache), name.to_owned());
        blocking(move || publications::remove_alias(&**holder.store().disk(), holder.store().layout(), &gone)).await?;
        self.change(|published| published.aliases.retain(|alias| alias.name != name));
        Ok(())
    }

    /// Gives an image another name in the place of one.
    pub async fn rename_alias(&self, cache: &Arc<Cache>, old: &str, new: &str) -> Result<(), LibraryError> {
        let _turn = self.turn().await;
        let alias = self.alias(old)?;
        self.write_alias(cache, OwnAlias { name: new.to_owned(), ..alias }).await?;
        self.take_away(cache, old).await?;
        self.serve(Serving::Anew).await
    }

    async fn write_alias(&self, cache: &Arc<Cache>, alias: OwnAlias) -> Result<(), LibraryError> {
        check_alias(&alias.name)?;
        if let Ok(taken) = self.alias(&alias.name) {
            return Err(LibraryError::AliasTaken(taken.name, taken.fingerprint));
        }
        let (holder, written) = (Arc::clone(cache), alias.clone());
        blocking(move || publications::save_alias(&**holder.store().disk(), holder.store().layout(), &written)).await?;
        self.change(|published| published.aliases.push(alias));
        Ok(())
    }

    fn alias(&self, name: &str) -> Result<OwnAlias, LibraryError> {
        let found = self.published().aliases.into_iter().find(|alias| alias.name == name);
        found.ok_or_else(|| LibraryError::NoAlias(name.to_owned()))
    }
}
