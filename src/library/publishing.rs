//! Publishes images of our own: takes their files in, looks into them, writes down what they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::cache::lease::Lent;
use crate::cache::{Cache, blocking};
use crate::digest::Fingerprint;
use crate::ledger::publication::{OwnAlias, Publication, PublishedFile};
use crate::library::entry::{LOCAL, check_property, enter};
use crate::library::error::LibraryError;
use crate::library::inspect::{self, Inspected};
use crate::library::intake::{self, Sent};
use crate::library::shelf::{Published, Serving, Shelf};
use crate::library::supply::Supply;
use crate::store::publications;

/// The longest name that an image can have: escaped, it is the name of a file.
const MAX_ALIAS_BYTES: usize = 80;

/// An image that is to be published.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// Its files, with what people call them: one, or metadata and root.
    pub files: Vec<(String, Sent)>,
    /// The names that it gets.
    pub aliases: Vec<String>,
    /// Whether hosts see it.
    pub public: bool,
    /// Properties beside its own, or in their place; an empty value takes one away.
    pub properties: BTreeMap<String, String>,
}

impl Shelf {
    /// Publishes an image; its fingerprint. One that is published already gets the names, and is seen if it is to be.
    pub async fn publish(&self, cache: &Arc<Cache>, mut offer: Offer, mut supply: Supply) -> Result<Fingerprint, LibraryError> {
        offer.aliases.sort();
        offer.aliases.dedup();
        offer.aliases.iter().try_for_each(|alias| check_alias(alias))?;
        offer.properties.iter().try_for_each(|(name, value)| check_property(name, value))?;
        let remote: Arc<str> = LOCAL.into();
        let mut blobs: Vec<(String, Lent)> = Vec::new();
        for (name, sent) in &offer.files {
            blobs.push((name.clone(), intake::take(cache, &remote, *sent, &mut supply).await?));
        }
        let _turn = self.turn().await;
        let (holder, published) = (Arc::clone(cache), self.published());
        let made = blocking(move || Ok(make(&holder, &published, &offer, &blobs)));
        let (publication, aliases) = made.await??;
        let fingerprint = Fingerprint::from_hex(&publication.fingerprint).ok_or(LibraryError::NotRecorded)?;
        self.change(|published| {
            published.put(publication);
            published.aliases.extend(aliases);
        });
        self.serve(Serving::Anew).await?;
        Ok(fingerprint)
    }
}

/// Makes a publication of files that are here, and writes it down: first that, then its names.
fn make(
    cache: &Cache,
    published: &Published,
    offer: &Offer,
    blobs: &[(String, Lent)],
) -> Result<(Publication, Vec<OwnAlias>), LibraryError> {
    let files: Vec<_> = blobs.iter().map(|(name, blob)| (name.as_str(), &**blob)).collect();
    let inspected = inspect::inspect(&files)?;
    let fingerprint = inspected.fingerprint.to_string();
    let fresh: Vec<&String> = offer.aliases.iter().filter(|alias| !has_alias(published, alias, &fingerprint)).collect();
    if let Some(taken) = fresh.iter().find_map(|alias| published.aliases.iter().find(|other| other.name == **alias)) {
        return Err(LibraryError::AliasTaken(taken.name.clone(), taken.fingerprint.clone()));
    }
    let known = published.images.iter().find(|other| other.fingerprint == fingerprint);
    let publication = publication(known, offer, inspected, blobs);
    let (disk, layout) = (&**cache.store().disk(), cache.store().layout());
    publications::save(disk, layout, &publication)?;
    enter(cache, &publication)?;
    let aliases: Vec<OwnAlias> = fresh.into_iter().map(|name| OwnAlias { name: name.clone(), fingerprint: fingerprint.clone() }).collect();
    aliases.iter().try_for_each(|alias| publications::save_alias(disk, layout, alias))?;
    Ok((publication, aliases))
}

fn has_alias(published: &Published, name: &str, fingerprint: &str) -> bool {
    published.aliases.iter().any(|alias| alias.name == name && alias.fingerprint == fingerprint)
}

fn publication(known: Option<&Publication>, offer: &Offer, inspected: Inspected, blobs: &[(String, Lent)]) -> Publication {
    let Inspected { metadata, fingerprint, image_type, names } = inspected;
    let mut properties = known.map_or(metadata.properties, |known| known.properties.clone());
    properties.extend(offer.properties.clone());
    properties.retain(|_, value| !value.is_empty());
    let file = |((name, ftype), (_, blob)): (&(String, &'static str), &(String, Lent))| PublishedFile {
        name: name.clone(),
        ftype: (*ftype).to_owned(),
        sha256: blob.digest.to_string(),
        size: blob.size,
    };
    Publication {
        fingerprint: fingerprint.to_string(),
        image_type: image_type.to_string(),
        architecture: metadata.architecture.to_string(),
        files: names.iter().zip(blobs).map(file).collect(),
        created_at: metadata.created_at.as_second(),
        expires_at: known.map_or(metadata.expires_at.map(Timestamp::as_second), |known| known.expires_at),
        public: offer.public || known.is_some_and(|known| known.public),
        properties,
    }
}

/// A name that clients can ask for.
pub fn check_alias(name: &str) -> Result<(), LibraryError> {
    let is_bad = |c: char| c.is_control() || c.is_whitespace() || c == ',' || c == ':';
    let digits = name.len() >= 12 && name.bytes().all(|digit| digit.is_ascii_hexdigit());
    if name.is_empty() || name.len() > MAX_ALIAS_BYTES || name.starts_with(['/', '-', '.']) || name.contains(is_bad) || digits {
        return Err(LibraryError::BadAlias(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::library::publishing::check_alias;

    #[test]
    fn a_name_is_one_that_clients_can_ask_for() {
        for good in ["24.04", "ubuntu/noble", "a-b_c", "deadbeef", "größe"] {
            assert!(check_alias(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a,b", "a:b", "/a", "..", "-x", "a\u{7}", "deadbeefdeadbeef", &"x".repeat(300)] {
            assert!(check_alias(bad).is_err(), "{bad}");
        }
    }
}
