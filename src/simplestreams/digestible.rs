//! What Go clients can decode: one field of a wrong type, and they refuse the whole document that it is in.

use std::collections::HashMap;

use serde::de::DeserializeOwned;

use crate::simplestreams::fault::Reason;
use crate::simplestreams::object::Object;

/// The fields of a product that are strings.
pub const PRODUCT_TEXTS: &[&str] =
    &["aliases", "arch", "os", "release", "release_codename", "release_title", "support_eol", "variant", "version"];
/// The fields of a version that are strings.
pub const VERSION_TEXTS: &[&str] = &["label", "pubname"];
/// The fields of an item that are strings.
pub const ITEM_TEXTS: &[&str] = &[
    "combined_disk1-img_sha256",
    "combined_disk-kvm-img_sha256",
    "combined_rootxz_sha256",
    "combined_sha256",
    "combined_squashfs_sha256",
    "combined_type",
    "combined_uefi1-img_sha256",
    "delta_base",
    "ftype",
    "md5",
    "path",
    "sha256",
];

/// Whether clients can decode the fields of a product, or what they choke on.
pub fn product(fields: &Object<'_>) -> Result<(), Reason> {
    texts(fields, PRODUCT_TEXTS)?;
    check::<bool>(fields, "supported", "true or false")?;
    check::<HashMap<String, String>>(fields, "requirements", "an object of strings")?;
    check::<HashMap<String, String>>(fields, "lxd_requirements", "an object of strings")
}

/// The same of a version.
pub fn version(fields: &Object<'_>) -> Result<(), Reason> {
    texts(fields, VERSION_TEXTS)
}

/// The same of an item, but for its size. An item has few fields, and there are very many items: so it is not each known
/// name that is looked for, but each field that is looked at.
pub fn item(fields: &Object<'_>) -> Result<(), Reason> {
    let texts = fields.iter().filter(|(name, value)| !value.get().starts_with('"') && ITEM_TEXTS.contains(&&***name));
    texts.map(|(name, _)| name.clone()).try_for_each(|name| fields.text(&name).map(|_| ()))
}

/// Whether these fields are strings, as far as they are there.
pub fn texts(fields: &Object<'_>, names: &[&str]) -> Result<(), Reason> {
    names.iter().try_for_each(|name| fields.text(name).map(|_| ()))
}

fn check<T: DeserializeOwned>(fields: &Object<'_>, name: &str, wanted: &'static str) -> Result<(), Reason> {
    fields.read::<T>(name, wanted).map(|_| ())
}
