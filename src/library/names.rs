//! Which image a person means.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;

use crate::catalog::Catalog;
use crate::catalog::images::Image;
use crate::catalog::query;
use crate::image::architecture::Architecture;
use crate::image::version::midnight;
use crate::ledger::publication::OwnAlias;
use crate::library::entry::LOCAL;
use crate::library::error::LibraryError;

/// An image that somebody named.
#[derive(Clone, Debug)]
pub struct Named {
    /// As they named it.
    pub name: String,
    /// The remote that lists it.
    pub remote: Arc<str>,
    /// The image.
    pub image: Image,
}

/// Finds an image by a name that a person gave, by `[REMOTE:]ALIAS` or by fingerprint, for an architecture or this machine's.
pub fn find(catalog: &Catalog, own: &[OwnAlias], name: &str, is_vm: bool, architecture: Option<&str>) -> Result<Named, LibraryError> {
    let architecture = match architecture {
        Some(wanted) => Some(Architecture::parse(wanted).ok_or_else(|| LibraryError::Architecture(wanted.to_owned()))?),
        None => Architecture::parse(std::env::consts::ARCH),
    };
    // Hosts do not see every image that has a name of ours; people do.
    let bare = name.strip_prefix(LOCAL).and_then(|rest| rest.strip_prefix(':')).unwrap_or(name);
    let meant = own.iter().find(|alias| alias.name == bare).map(|alias| alias.fingerprint.as_str());
    let found = match meant.map(|fingerprint| query::find(catalog, fingerprint, is_vm, architecture)) {
        Some(Ok(found)) => found,
        _ => query::find(catalog, name, is_vm, architecture)?,
    };
    Ok(Named { name: name.to_owned(), remote: Arc::clone(found.remote), image: found.image.clone() })
}

/// What is held back for the sake of an image.
pub fn held_back(catalog: &Catalog, named: &Named) -> Option<Named> {
    let is_newer =
        |image: &Image| image.image_type == named.image.image_type && image.version.product.name == named.image.version.product.name;
    let held_back = catalog.remotes.get(&named.remote)?.held_back.iter().find(|held_back| is_newer(&held_back.image))?;
    Some(Named { name: named.name.clone(), remote: Arc::clone(&named.remote), image: held_back.image.clone() })
}

/// Reads when an image ends; `None` means never.
pub fn end(text: &str) -> Result<Option<Timestamp>, LibraryError> {
    if text == "never" { Ok(None) } else { time(text).map(Some) }
}

/// Reads a time as people write it: a day, or a time of day with its zone.
fn time(text: &str) -> Result<Timestamp, LibraryError> {
    let day = || text.parse::<Date>().map(midnight);
    text.parse().or_else(|_| day()).map_err(|_| LibraryError::Time(text.to_owned()))
}
