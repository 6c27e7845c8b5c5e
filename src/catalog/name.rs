//! What a remote may be called.

/// Paths at the root that are none of a remote's; and our own images.
const RESERVED: [&str; 3] = ["streams", "blobs", "local"];
const MAX_BYTES: usize = 63;

/// A name is a path segment and part of file names at the root, where a dot ends it.
pub fn check(name: &str) -> Result<(), &'static str> {
    if RESERVED.contains(&name) {
        return Err("this name is taken by a path of the server; choose another");
    }
    let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if begins_well && name.chars().all(is_good) && name.len() <= MAX_BYTES {
        Ok(())
    } else {
        Err("a remote's name has lower-case letters, digits and hyphens, begins with no hyphen, and is no longer than 63")
    }
}
