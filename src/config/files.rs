//! The files that a configuration names: whether they can be used.
//!
//! Reading a configuration looks at none of them; whoever is about to use it, or checks it for a person, asks here.

use std::path::Path;

use reqwest::Certificate;

use crate::config::Config;
use crate::config::error::ConfigError;
use crate::config::remote::Remote;
use crate::disk::Disk;
use crate::tls::authority::Pair;
use crate::tls::config::{BadPair, server};

const MAX_PEM_BYTES: u64 = 1 << 20;

/// Says which file cannot be used, at the line of its key.
pub fn check(config: &Config, disk: &dyn Disk) -> Result<(), ConfigError> {
    let remotes = || config.remotes.iter().try_for_each(|remote| check_ca(remote, disk));
    check_certificate(config, disk).and_then(|()| remotes()).map_err(|error| config.origin.locate(error))
}

fn check_certificate(config: &Config, disk: &dyn Disk) -> Result<(), ConfigError> {
    let Some((certificate, key)) = &config.certificate else { return Ok(()) };
    let pair = Pair { certificate: read(disk, "tls.certificate", certificate)?, key: read(disk, "tls.key", key)? };
    let key = |error: &BadPair| if matches!(error, BadPair::NotPem { what: "the key", .. }) { "tls.key" } else { "tls.certificate" };
    server(&pair).map(drop).map_err(|error| ConfigError::of_key(key(&error), error))
}

fn check_ca(remote: &Remote, disk: &dyn Disk) -> Result<(), ConfigError> {
    let Some(path) = &remote.ca else { return Ok(()) };
    let key = format!("remotes.{}.ca", remote.name());
    let pem = read(disk, &key, path)?;
    let certificates = Certificate::from_pem_bundle(pem.as_bytes());
    if certificates.is_ok_and(|certificates| !certificates.is_empty()) {
        return Ok(());
    }
    Err(ConfigError::of_key(&key, format!("there is no certificate in {}", path.display())))
}

fn read(disk: &dyn Disk, key: &str, path: &Path) -> Result<String, ConfigError> {
    let read = disk.open(path).and_then(|file| file.read_all(MAX_PEM_BYTES));
    let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
    text.map_err(|error| ConfigError::of_key(key, format!("cannot read {}: {error}", path.display())))
}
