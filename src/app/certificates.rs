//! The certificate that hosts see: the operator's, or one of ours.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;

use crate::app::outside::Outside;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::tls::authority::{self, Authority, AuthorityError, Pair};
use crate::tls::config::{BadPair, server};
use crate::tls::names;

const MAX_PEM_BYTES: u64 = 1 << 20;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The operator's cannot be read.
    #[error("cannot read {path}: {source}; tls.certificate and tls.key must be files that this user may read")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the disk says.
        source: std::io::Error,
    },
    /// The operator's cannot be used.
    #[error("{certificate} and {key} cannot be used: {source}", certificate = .certificate.display(), key = .key.display())]
    Unusable {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        source: BadPair,
    },
    /// Ours cannot be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Ours cannot be used.
    #[error("the certificate that was made cannot be used: {0}; remove the folder tls in storage.path to have another one made")]
    Broken(BadPair),
}

/// Where certificates come from.
#[derive(Clone, Debug)]
pub struct Certificates {
    configured: Option<(PathBuf, PathBuf)>,
    extra_names: Vec<String>,
    folder: PathBuf,
    outside: Outside,
    metrics: Arc<Metrics>,
}

impl Certificates {
    /// As the configuration says; ours are kept in `folder`.
    pub fn new(config: &Config, folder: PathBuf, outside: Outside, metrics: Arc<Metrics>) -> Self {
        Self { configured: config.certificate.clone(), extra_names: config.certificate_names(), folder, outside, metrics }
    }

    /// The same, as another configuration says.
    pub fn with(&self, config: &Config) -> Self {
        Self::new(config, self.folder.clone(), self.outside.clone(), Arc::clone(&self.metrics))
    }

    /// Reads the certificate, or makes one if that is ours to do: when there is none or it is old, or if `anew` says so.
    pub fn load(&self, anew: bool) -> Result<ServerConfig, CertificateError> {
        let (pair, config) = if let Some((certificate, key)) = &self.configured {
            let pair = Pair { certificate: self.read(certificate)?, key: self.read(key)? };
            let config = server(&pair).map_err(|source| CertificateError::Unusable {
                certificate: certificate.clone(),
                key: key.clone(),
                source,
            })?;
            (pair, config)
        } else {
            let authority = Authority::new(&*self.outside.disk, &self.folder);
            let (names, now) = (names::of_this_machine(&self.extra_names), self.outside.clock.now());
            let pair = authority.server(&names, now, anew)?;
            // A renewal that was cut off in the middle leaves a certificate and a key that do not belong together.
            let pair = if server(&pair).is_ok() { pair } else { authority.server(&names, now, true)? };
            let config = server(&pair).map_err(CertificateError::Broken)?;
            (pair, config)
        };
        #[expect(clippy::cast_precision_loss, reason = "a time of day fits a double for millions of years")]
        let expiry = authority::expiry(&pair.certificate).map_or(0.0, |expiry| expiry.as_second() as f64);
        self.metrics.certificate_expiry.set(expiry);
        Ok(config)
    }

    fn read(&self, path: &Path) -> Result<String, CertificateError> {
        let read = self.outside.disk.open(path).and_then(|file| file.read_all(MAX_PEM_BYTES));
        let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
        text.map_err(|source| CertificateError::Unreadable { path: path.to_owned(), source })
    }
}
