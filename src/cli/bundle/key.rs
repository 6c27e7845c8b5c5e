//! Reads keys that an operator names.

use std::path::Path;

use crate::cli::exit::{FAILED, Failure};
use crate::disk::{Disk as _, OsDisk};
use crate::seal::PublicKey;

const MAX_KEY_BYTES: u64 = 32 << 10;

/// A key as it stands in a file.
pub fn read_key(path: &Path) -> Result<String, Failure> {
    let bytes = OsDisk.open(path).and_then(|file| file.read_all(MAX_KEY_BYTES)).map_err(|error| unreadable(path, &error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A public key.
pub fn read_public_key(path: &Path) -> Result<PublicKey, Failure> {
    PublicKey::from_pem(&read_key(path)?).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FAILED, format!("cannot read the key {}: {error}", path.display()))
}
