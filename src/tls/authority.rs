//! Our own CA, and the certificate that it signs for this server.
//!
//! Both are made when they are missing and kept in the store. The certificate is made anew when a third of its life is
//! left, or when this machine has got a name that it is not for; the CA never is while it is valid.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::X509Certificate;

use crate::disk::{self, Disk};

/// How long a CA lasts.
const CA_DAYS: i64 = 3652;
/// How long a server's certificate lasts. LXD hosts never see it, and browsers take no more than 398 days.
const SERVER_DAYS: i64 = 90;
/// It is made anew when it has less than this left.
const RENEW_DAYS: i64 = 30;
const MAX_PEM_BYTES: u64 = 1 << 20;

/// A certificate chain and its key, both as PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificates, the server's own first.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// What cannot be done with certificates.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The disk said no.
    #[error("cannot use {path}: {source}; storage.path must be a folder that this user may write to, with room left")]
    Disk {
        /// What was touched.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The library said no.
    #[error("cannot make {what}: {source}")]
    Make {
        /// What was to be made.
        what: &'static str,
        /// What it said.
        source: rcgen::Error,
    },
}

/// A CA in a folder: `ca.crt`, `ca.key`, `server.crt`, `server.key`.
#[derive(Debug)]
pub struct Authority<'a> {
    disk: &'a dyn Disk,
    folder: &'a Path,
}

impl<'a> Authority<'a> {
    /// The CA in `folder`, which exists.
    pub fn new(disk: &'a dyn Disk, folder: &'a Path) -> Self {
        Self { disk, folder }
    }

    /// The CA's certificate, which hosts are given; made if there is none.
    pub fn ca(&self, now: Timestamp) -> Result<String, AuthorityError> {
        self.ca_pair(now).map(|pair| pair.certificate)
    }

    /// The server's certificate for `names`; made or made anew if need be, or if `anew` says so.
    pub fn server(&self, names: &BTreeSet<String>, now: Timestamp, anew: bool) -> Result<Pair, AuthorityError> {
        let ca = self.ca_pair(now)?;
        if let Some(pair) = self.read("server")?.filter(|pair| !anew && is_good(&pair.certificate, &ca.certificate, names, now)) {
            return Ok(pair);
        }
        let pair = make_server(&ca, names, now).map_err(|source| AuthorityError::Make { what: "a server certificate", source })?;
        self.write("server", &pair)?;
        Ok(pair)
    }

    fn ca_pair(&self, now: Timestamp) -> Result<Pair, AuthorityError> {
        if let Some(pair) = self.read("ca")?.filter(|pair| expiry(&pair.certificate).is_some_and(|expiry| expiry > now)) {
            return Ok(pair);
        }
        let pair = make_ca(now).map_err(|source| AuthorityError::Make { what: "a CA", source })?;
        self.write("ca", &pair)?;
        Ok(pair)
    }

    /// A pair that is there; what the disk cannot read is not absent, or a passing trouble would make another CA.
    fn read(&self, name: &str) -> Result<Option<Pair>, AuthorityError> {
        let (certificate, key) = (self.read_file(&format!("{name}.crt"))?, self.read_file(&format!("{name}.key"))?);
        Ok(certificate.zip(key).map(|(certificate, key)| Pair { certificate, key }))
    }

    fn read_file(&self, name: &str) -> Result<Option<String>, AuthorityError> {
        let path = self.folder.join(name);
        let read = self.disk.open(&path).and_then(|file| file.read_all(MAX_PEM_BYTES));
        match read.and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(AuthorityError::Disk { path, source }),
        }
    }

    /// The key first: a certificate without its key is of no use, and is then made anew.
    fn write(&self, name: &str, pair: &Pair) -> Result<(), AuthorityError> {
        for (extension, text) in [("key", &pair.key), ("crt", &pair.certificate)] {
            let path = self.folder.join(format!("{name}.{extension}"));
            disk::replace(self.disk, &path, text.as_bytes()).map_err(|source| AuthorityError::Disk { path, source })?;
        }
        Ok(())
    }
}

/// When the first certificate of a PEM ends.
pub fn expiry(pem: &str) -> Option<Timestamp> {
    read_certificate(pem, |certificate| Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()).flatten()
}

fn is_good(certificate: &str, ca: &str, names: &BTreeSet<String>, now: Timestamp) -> bool {
    let soon = now.checked_add((RENEW_DAYS * 24).hours()).unwrap_or(now);
    let is_ours = read_certificate(ca, |ca| ca.subject().to_string()) == read_certificate(certificate, |own| own.issuer().to_string());
    is_ours && expiry(certificate).is_some_and(|expiry| expiry > soon) && names.is_subset(&names_of(certificate))
}

fn names_of(pem: &str) -> BTreeSet<String> {
    let names = read_certificate(pem, |certificate| {
        let extension = certificate.subject_alternative_name().ok().flatten();
        let names = extension.map(|extension| extension.value.general_names.iter().filter_map(name).collect());
        names.unwrap_or_default()
    });
    names.unwrap_or_default()
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(<[u8; 4]>::try_from(*bytes).ok()?).map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
            _ => Some(<[u8; 16]>::try_from(*bytes).ok()?).map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}

fn read_certificate<T>(pem: &str, read: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    pem.parse_x509().ok().map(|certificate| read(&certificate))
}

fn make_ca(now: Timestamp) -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = parameters(&[], now, CA_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    // The serial keeps apart the CAs of two mirrors that a host trusts.
    let serial = fastrand::u32(..);
    params.distinguished_name.push(DnType::CommonName, format!("Cistern CA {serial:08x}"));
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn make_server(ca: &Pair, names: &BTreeSet<String>, now: Timestamp) -> Result<Pair, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key)?)?;
    let key = KeyPair::generate()?;
    let names: Vec<String> = names.iter().cloned().collect();
    let mut params = parameters(&names, now, SERVER_DAYS)?;
    params.distinguished_name.push(DnType::CommonName, "Cistern");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Valid from yesterday: hosts' clocks may be behind.
fn parameters(names: &[String], now: Timestamp, days: i64) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let at =
        |days: i64| std::time::SystemTime::try_from(now + (days * 24).hours()).unwrap_or(std::time::UNIX_EPOCH + Duration::from_secs(0));
    params.not_before = at(-1).into();
    params.not_after = at(days).into();
    params.distinguished_name = DistinguishedName::new();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use jiff::{Timestamp, ToSpan as _};

    use crate::disk::{Disk as _, OsDisk};
    use crate::tls::authority::{Authority, Pair, expiry};

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn server(folder: &Path, names: &BTreeSet<String>, days_later: i64) -> (String, Pair) {
        let authority = Authority::new(&OsDisk, folder);
        let now = Timestamp::from_second(1_800_000_000).unwrap() + (days_later * 24).hours();
        let pair = authority.server(names, now, false).unwrap();
        (authority.ca(now).unwrap(), pair)
    }

    #[test]
    fn a_certificate_is_kept_until_it_is_old_or_lacks_a_name_and_the_ca_survives_it() {
        let folder = tempfile::tempdir().unwrap();
        let both = names(&["localhost", "10.0.0.5", "fd00::5"]);
        let (ca, first) = server(folder.path(), &both, 0);
        for (wanted, days_later, is_same) in [(&both, 0, true), (&names(&["localhost"]), 59, true), (&both, 61, false)] {
            let (same_ca, pair) = server(folder.path(), wanted, days_later);
            assert_eq!(same_ca, ca);
            assert_eq!(pair.certificate == first.certificate, is_same, "after {days_later} days");
        }
        let (_, renewed) = server(folder.path(), &both, 61);
        let (_, renamed) = server(folder.path(), &names(&["mirror.example"]), 61);
        assert_ne!(renamed.certificate, renewed.certificate);
        assert!(expiry(&renamed.certificate) > expiry(&first.certificate));
    }

    #[test]
    fn a_certificate_whose_key_is_lost_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (_, first) = server(folder.path(), &names(&["localhost"]), 0);
        OsDisk.remove(&folder.path().join("server.key")).unwrap();
        let (_, second) = server(folder.path(), &names(&["localhost"]), 0);
        assert_ne!(first.certificate, second.certificate);
    }
}
