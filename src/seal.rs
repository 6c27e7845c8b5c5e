//! Who made a bundle: Ed25519 keys and signatures, in the forms that `openssl` reads and writes.
//!
//! Keys are PEM, as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them; a signature is its 64 bytes, as
//! `openssl pkeyutl -sign -rawin` writes it.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use crate::digest::Digest;

/// What stands before the 32 bytes of a public key (RFC 8410 §4).
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What stands before the 32 bytes of a private one (RFC 8410 §7).
const PRIVATE_PREFIX: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const KEY_BYTES: usize = 32;
/// So many digits of the digest of a key are its name. People compare it instead of the key, so that nobody must find another one
/// with the same.
const NAME_DIGITS: usize = 32;

/// A key that signs.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    pem: String,
}

/// A key that signatures are checked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

/// Why a key is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// There is no PEM in it, or not of that kind.
    #[error("it has no {0} in PEM; 'openssl genpkey -algorithm ed25519' makes a key, and 'openssl pkey -pubout' its public half")]
    NotPem(&'static str),
    /// It is for something else.
    #[error("it is no Ed25519 key")]
    OtherKind,
}

impl SigningKey {
    /// The key of these random bytes.
    pub fn from_seed(seed: &[u8; KEY_BYTES]) -> Result<Self, BadKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| BadKey::OtherKind)?;
        let der = [&PRIVATE_PREFIX[..], seed].concat();
        Ok(Self { pair, pem: pem("PRIVATE KEY", &der) })
    }

    /// Reads a private key.
    pub fn from_pem(text: &str) -> Result<Self, BadKey> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| BadKey::NotPem("private key"))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map_err(|_| BadKey::OtherKind)?;
        Ok(Self { pair, pem: pem("PRIVATE KEY", der.secret_pkcs8_der()) })
    }

    /// The key as it is kept.
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    /// What its signatures are checked with.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; KEY_BYTES];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Signs; the same bytes have the same signature.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.pair.sign(bytes).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

impl PublicKey {
    /// Reads a public key.
    pub fn from_pem(text: &str) -> Result<Self, BadKey> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).map_err(|_| BadKey::NotPem("public key"))?;
        let key = der.strip_prefix(&PUBLIC_PREFIX).and_then(|key| key.try_into().ok());
        key.map(Self).ok_or(BadKey::OtherKind)
    }

    /// The key as it is handed on.
    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &self.der())
    }

    /// Whether this key's owner signed these bytes.
    pub fn has_signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(bytes, signature).is_ok()
    }

    fn der(&self) -> Vec<u8> {
        [&PUBLIC_PREFIX[..], &self.0].concat()
    }
}

/// What people call it: the first digits of the SHA-256 of its DER.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Digest::of(&self.der()).to_string()[..NAME_DIGITS])
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = STANDARD.encode(der);
    // Base64 is ASCII, and may be cut anywhere.
    let lines: Vec<&str> = (0..text.len()).step_by(LINE).map(|start| &text[start..text.len().min(start + LINE)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use crate::seal::{BadKey, PublicKey, SigningKey};

    /// RFC 8410 §10.
    const PUBLIC: &str =
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    const PRIVATE: &str =
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

    #[test]
    fn keys_are_read_and_written_as_openssl_does() {
        let key = SigningKey::from_pem(PRIVATE).unwrap();
        assert_eq!((key.to_pem(), key.public().to_pem().as_str()), (PRIVATE, PUBLIC));
        assert_eq!(PublicKey::from_pem(PUBLIC), Ok(key.public()));
        assert_eq!(key.public().to_string().len(), 32);
        let made = SigningKey::from_seed(&[7; 32]).unwrap();
        assert_eq!(SigningKey::from_pem(made.to_pem()).unwrap().public(), made.public());
        assert!(!format!("{made:?}").contains("MC4"), "it is shown to nobody");
    }

    #[test]
    fn only_what_was_signed_is_taken() {
        let (key, other) = (SigningKey::from_seed(&[1; 32]).unwrap(), SigningKey::from_seed(&[2; 32]).unwrap());
        let signature = key.sign(b"bundle");
        assert_eq!(signature, key.sign(b"bundle"));
        assert!(key.public().has_signed(b"bundle", &signature));
        assert!(!key.public().has_signed(b"bundles", &signature));
        assert!(!other.public().has_signed(b"bundle", &signature));
        for bad in [&signature[..63], &[0; 64], b""] {
            assert!(!key.public().has_signed(b"bundle", bad));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "key", PRIVATE] {
            assert_eq!(PublicKey::from_pem(text), Err(BadKey::NotPem("public key")), "{text}");
        }
        for text in ["", PUBLIC] {
            assert_eq!(SigningKey::from_pem(text).unwrap_err(), BadKey::NotPem("private key"), "{text}");
        }
        // X25519 has another number in the same frame.
        assert_eq!(PublicKey::from_pem(&PUBLIC.replace("K2VwA", "K2VuA")), Err(BadKey::OtherKind));
        assert_eq!(SigningKey::from_pem(&PRIVATE.replace("K2VwB", "K2VuB")).unwrap_err(), BadKey::OtherKind);
    }
}
