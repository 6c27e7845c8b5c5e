//! How TLS is spoken with hosts.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;

use crate::tls::authority::Pair;

/// Why a certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadPair {
    /// It is no PEM.
    #[error("{what} is no PEM: {reason}")]
    NotPem {
        /// Certificate or key.
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// There is nothing in it.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// The two do not belong together, or the key is of an unknown kind.
    #[error("certificate and key cannot be used together: {0}")]
    Unusable(#[from] rustls::Error),
}

/// TLS 1.3 and 1.2, with h2 and HTTP/1.1 on offer.
pub fn server(pair: &Pair) -> Result<ServerConfig, BadPair> {
    let not_pem = |what, error: rustls::pki_types::pem::Error| BadPair::NotPem { what, reason: error.to_string() };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| not_pem("the certificate", error))?;
    if chain.is_empty() {
        return Err(BadPair::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|error| not_pem("the key", error))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider())).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key)?;
    // Hosts make a new connection for each request and take none up again (clients.md, 2.1), and each ticket costs.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
