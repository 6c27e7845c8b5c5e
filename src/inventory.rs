//! What a site says that it holds, so that the next bundle for it has the rest.
//!
//! It travels the other way than bundles do, and is two lines: what is said, as JSON, and who signed that line. Whoever makes the
//! next bundle leaves out what it names; what it names wrongly is found missing when the bundle is imported.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::seal::{PublicKey, SigningKey};

/// The `format` of inventories.
pub const FORMAT: &str = "inventory:1.0";

/// What is held, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// [`FORMAT`]
    pub format: String,
    /// When it was made, in RFC 3339.
    pub created_at: String,
    /// The newest bundle of each selection that was imported.
    pub bundles: Vec<Imported>,
    /// The digests of the files that are there to stay, in their order.
    pub blobs: Vec<String>,
}

/// A bundle that was imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imported {
    /// What the key is called that signed it.
    pub key: String,
    /// What its selection is called.
    pub selection: String,
    /// Its number.
    pub generation: u64,
}

/// Why an inventory is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadInventory {
    /// It is cut off, or something else.
    #[error("it is no inventory: {0}")]
    NotReadable(String),
    /// Another program wrote it.
    #[error("its format is '{0}', and this version of cistern reads '{FORMAT}'")]
    Format(String),
    /// It was changed.
    #[error("its signature is not that of the key {0} which it names; it was changed or damaged")]
    NotSigned(PublicKey),
}

/// The second line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seal {
    key: String,
    signature: String,
}

#[derive(Deserialize)]
struct Head {
    format: String,
}

impl Inventory {
    /// Writes and signs it.
    pub fn seal(&self, key: &SigningKey) -> String {
        let said = serde_json::to_string(self).expect("strings and numbers always serialize");
        let seal = Seal { key: key.public().to_pem(), signature: BASE64.encode(key.sign(said.as_bytes())) };
        let seal = serde_json::to_string(&seal).expect("strings always serialize");
        format!("{said}\n{seal}\n")
    }

    /// Reads one, and whose it is.
    pub fn read(text: &str) -> Result<(Self, PublicKey), BadInventory> {
        let unreadable = |reason: &dyn std::fmt::Display| BadInventory::NotReadable(reason.to_string());
        let (said, seal) = text.trim_end().split_once('\n').ok_or_else(|| unreadable(&"it has not two lines"))?;
        let Head { format } = serde_json::from_str(said).map_err(|error| unreadable(&error))?;
        if format != FORMAT {
            return Err(BadInventory::Format(format.escape_debug().to_string()));
        }
        let Seal { key, signature } = serde_json::from_str(seal).map_err(|error| unreadable(&error))?;
        let key = PublicKey::from_pem(&key).map_err(|error| unreadable(&error))?;
        if !BASE64.decode(signature).is_ok_and(|signature| key.has_signed(said.as_bytes(), &signature)) {
            return Err(BadInventory::NotSigned(key));
        }
        let inventory: Self = serde_json::from_str(said).map_err(|error| unreadable(&error))?;
        Ok((inventory, key))
    }

    /// The files that it names.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.blobs.iter().filter_map(|hex| Digest::from_hex(hex))
    }

    /// The number of the newest bundle with this key and selection.
    pub fn generation(&self, key: &PublicKey, selection: Digest) -> Option<u64> {
        let (key, selection) = (key.to_string(), selection.to_string());
        let fitting = self.bundles.iter().filter(|bundle| bundle.key == key && bundle.selection == selection);
        fitting.map(|bundle| bundle.generation).max()
    }
}

#[cfg(test)]
mod tests {
    use crate::digest::Digest;
    use crate::inventory::{BadInventory, FORMAT, Imported, Inventory};
    use crate::seal::SigningKey;

    fn inventory() -> Inventory {
        let selection = Digest::of(b"selection").to_string();
        let imported = |key: &str, generation| Imported { key: key.to_owned(), selection: selection.clone(), generation };
        Inventory {
            format: FORMAT.to_owned(),
            created_at: "2026-11-27T00:00:00Z".to_owned(),
            bundles: vec![imported(&key(1).public().to_string(), 7), imported("other", 9)],
            blobs: vec![Digest::of(b"a").to_string()],
        }
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_says_whose_it_is() {
        let text = inventory().seal(&key(1));
        let (read, signer) = Inventory::read(&text).unwrap();
        assert_eq!((&read, signer), (&inventory(), key(1).public()));
        assert_eq!(read.digests().collect::<Vec<_>>(), [Digest::of(b"a")]);
        let generation = |seed, selection: &[u8]| read.generation(&key(seed).public(), Digest::of(selection));
        assert_eq!([generation(1, b"selection"), generation(1, b"x"), generation(2, b"selection")], [Some(7), None, None]);
    }

    #[test]
    fn what_is_no_inventory_is_refused_with_a_reason() {
        let text = inventory().seal(&key(1));
        let changed = text.replacen(&Digest::of(b"a").to_string(), &Digest::of(b"b").to_string(), 1);
        assert_eq!(Inventory::read(&changed), Err(BadInventory::NotSigned(key(1).public())));
        let newer = text.replacen(FORMAT, "inventory:2.0", 1);
        assert_eq!(Inventory::read(&newer), Err(BadInventory::Format("inventory:2.0".to_owned())));
        for bad in ["", "{}", "{}\n{}", &text[..text.len() / 2], text.lines().next().unwrap()] {
            assert!(matches!(Inventory::read(bad), Err(BadInventory::NotReadable(_))), "{bad}");
        }
    }
}
