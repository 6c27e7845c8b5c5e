//! Hashes of bytes: what a document claims of a file, and what we computed ourselves.
//!
//! A [`Digest`] names a blob, a [`Fingerprint`] names an image. Both are 32 bytes of SHA-256 and they are never the
//! same thing, so they are two types. This module computes; it reads no files.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::Md5;
use sha2::{Digest as _, Sha256, Sha512};

/// SHA-256 of a blob's bytes: its name in the store, its `ETag` and its `Repr-Digest`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Hashes `bytes` at once; for bytes that arrive piece by piece use [`Hasher`].
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of these bytes, which were one before; `None` if they are not 32.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Parses 64 hexadecimal digits of either case.
    pub fn from_hex(hex: &str) -> Option<Self> {
        decode_hex(hex).map(Self)
    }

    /// The value of a `Repr-Digest` field (RFC 9530).
    pub fn repr_digest(&self) -> String {
        format!("sha-256=:{}:", BASE64.encode(self.0))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// SHA-256 of an image: of its one file, or of metadata followed by root.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of these bytes, which were one before; `None` if they are not 32.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Parses 64 hexadecimal digits of either case.
    pub fn from_hex(hex: &str) -> Option<Self> {
        decode_hex(hex).map(Self)
    }

    /// The fingerprint of an image whose only file has this digest.
    pub fn of_unified(file: Digest) -> Self {
        Self(file.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Computes the fingerprint of a split image from the bytes of its files, in order: metadata, then root.
#[derive(Default)]
pub struct FingerprintHasher(Sha256);

impl FingerprintHasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Ends the computation.
    pub fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }
}

/// The strongest hash that a document gives of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// `sha256`; what LXD and Incus check. It is the blob's digest at the same time.
    Sha256(Digest),
    /// `sha512`.
    Sha512([u8; 64]),
    /// `md5`; old streams have nothing else.
    Md5([u8; 16]),
}

impl Claim {
    /// Picks the strongest of the hashes given, each in hexadecimal; `None` if none of them can be read.
    ///
    /// SHA-256 goes before SHA-512: both are out of reach of an attacker, and only the first is a digest.
    pub fn strongest(sha256: Option<&str>, sha512: Option<&str>, md5: Option<&str>) -> Option<Self> {
        let sha256 = || sha256.and_then(Digest::from_hex).map(Self::Sha256);
        let sha512 = || sha512.and_then(decode_hex).map(Self::Sha512);
        let md5 = || md5.and_then(decode_hex).map(Self::Md5);
        sha256().or_else(sha512).or_else(md5)
    }
}

impl Claim {
    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, hex) = text.split_once('-')?;
        match kind {
            "sha256" => Digest::from_hex(hex).map(Self::Sha256),
            "sha512" => decode_hex(hex).map(Self::Sha512),
            "md5" => decode_hex(hex).map(Self::Md5),
            _ => None,
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => write!(f, "sha256-{digest}"),
            Self::Sha512(bytes) => f.write_str("sha512-").and_then(|()| write_hex(f, bytes)),
            Self::Md5(bytes) => f.write_str("md5-").and_then(|()| write_hex(f, bytes)),
        }
    }
}

/// What a document claims of a file: its strongest hash, and its size in bytes if given. Fetches are keyed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expected {
    /// The hash that the bytes must have.
    pub claim: Claim,
    /// The size that they must have.
    pub size: Option<u64>,
}

impl Expected {
    /// The digest, where the document gives it; otherwise it is learnt when the file arrives.
    pub fn digest(&self) -> Option<Digest> {
        match self.claim {
            Claim::Sha256(digest) => Some(digest),
            Claim::Sha512(_) | Claim::Md5(_) => None,
        }
    }
}

impl Expected {
    /// Whether a file of this size may be it.
    pub fn allows(&self, size: u64) -> bool {
        self.size.is_none_or(|expected| expected == size)
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.size {
            Some(size) => write!(f, "{}-{size}", self.claim),
            None => write!(f, "{}-x", self.claim),
        }
    }
}

/// Hashes a file as its bytes arrive: always SHA-256, and beside it whatever its document claims.
#[derive(Clone)]
pub struct Hasher {
    expected: Expected,
    sha256: Sha256,
    claimed: Claimed,
    len: u64,
}

#[derive(Clone)]
enum Claimed {
    Sha256,
    Sha512(Box<Sha512>),
    Md5(Md5),
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({} bytes of {})", self.len, self.expected)
    }
}

/// Why a whole file is not the one that its document claims.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It ended early or late.
    #[error("it has {actual} bytes where its document says {expected}")]
    Size {
        /// What the document says.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// Its bytes are others.
    #[error("its bytes hash to {actual} where its document says {expected}")]
    Hash {
        /// What the document says.
        expected: Box<Claim>,
        /// What came.
        actual: Box<Claim>,
    },
}

impl Hasher {
    /// Starts a computation for a file of which `expected` is claimed.
    pub fn new(expected: Expected) -> Self {
        let claimed = match expected.claim {
            Claim::Sha256(_) => Claimed::Sha256,
            Claim::Sha512(_) => Claimed::Sha512(Box::default()),
            Claim::Md5(_) => Claimed::Md5(Md5::new()),
        };
        Self { expected, sha256: Sha256::new(), claimed, len: 0 }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        match &mut self.claimed {
            Claimed::Sha256 => {}
            Claimed::Sha512(hash) => hash.update(bytes),
            Claimed::Md5(hash) => hash.update(bytes),
        }
        self.len += bytes.len() as u64;
    }

    /// How many bytes it took.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it took none yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ends the computation: the digest, whatever was claimed.
    pub fn digest(self) -> Digest {
        Digest(self.sha256.finalize().into())
    }

    /// Ends the computation: the digest if size and hash are what was claimed.
    pub fn verify(self) -> Result<Digest, Mismatch> {
        if let Some(expected) = self.expected.size.filter(|size| *size != self.len) {
            return Err(Mismatch::Size { expected, actual: self.len });
        }
        let digest = Digest(self.sha256.finalize().into());
        let actual = match self.claimed {
            Claimed::Sha256 => Claim::Sha256(digest),
            Claimed::Sha512(hash) => Claim::Sha512(hash.finalize().into()),
            Claimed::Md5(hash) => Claim::Md5(hash.finalize().into()),
        };
        if actual == self.expected.claim {
            Ok(digest)
        } else {
            Err(Mismatch::Hash { expected: Box::new(self.expected.claim), actual: Box::new(actual) })
        }
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn decode_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    // One look at the end and not one at each digit: a document has hundreds of thousands of hashes.
    let (mut bytes, mut all) = ([0; N], 0);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (HEX_VALUES[usize::from(pair[0])], HEX_VALUES[usize::from(pair[1])]);
        all |= high | low;
        *byte = high << 4 | low;
    }
    (all != NO_HEX_VALUE).then_some(bytes)
}

/// What stands for no value, and sets bits that no value has.
const NO_HEX_VALUE: u8 = 0xff;
/// The value of each byte as a hexadecimal digit.
const HEX_VALUES: [u8; 256] = hex_values();

const fn hex_values() -> [u8; 256] {
    let mut values = [NO_HEX_VALUE; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value as usize] as usize] = value;
        values[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    values
}

#[cfg(test)]
mod tests {
    use crate::digest::{Claim, Digest, Expected, Hasher, Mismatch};

    /// SHA-256, SHA-512 and MD5 of `abc` (FIPS 180-4 examples, RFC 1321).
    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const SHA512: &str =
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";

    fn hash(expected: Expected) -> Result<Digest, Mismatch> {
        let mut hasher = Hasher::new(expected);
        hasher.update(b"a");
        hasher.update(b"bc");
        hasher.verify()
    }

    #[test]
    fn each_kind_of_claim_is_verified_and_gives_the_sha256_digest() {
        for (sha256, sha512, md5) in [(Some(SHA256), None, None), (None, Some(SHA512), None), (None, None, Some(MD5))] {
            let claim = Claim::strongest(sha256, sha512, md5).unwrap();
            assert_eq!(hash(Expected { claim, size: Some(3) }), Ok(Digest::of(b"abc")));
            assert_eq!(hash(Expected { claim, size: None }), Ok(Digest::of(b"abc")));
            assert_eq!(Claim::parse(&claim.to_string()), Some(claim));
        }
    }

    #[test]
    fn the_strongest_readable_hash_is_the_claim() {
        assert_eq!(Claim::strongest(Some(SHA256), Some(SHA512), Some(MD5)).unwrap().to_string(), format!("sha256-{SHA256}"));
        assert_eq!(Claim::strongest(Some("zz"), Some(SHA512), Some(MD5)).unwrap().to_string(), format!("sha512-{SHA512}"));
        assert_eq!(Claim::strongest(Some(""), None, Some(&MD5.to_uppercase())).unwrap().to_string(), format!("md5-{MD5}"));
        assert_eq!(Claim::strongest(None, None, None), None);
    }

    #[test]
    fn a_wrong_size_and_a_wrong_hash_are_told_apart() {
        let claim = Claim::Sha256(Digest::of(b"abc"));
        assert_eq!(hash(Expected { claim, size: Some(4) }), Err(Mismatch::Size { expected: 4, actual: 3 }));
        let other = Claim::Sha256(Digest::of(b"abd"));
        assert_eq!(
            hash(Expected { claim: other, size: Some(3) }),
            Err(Mismatch::Hash { expected: Box::new(other), actual: Box::new(Claim::Sha256(Digest::of(b"abc"))) })
        );
    }

    #[test]
    fn a_digest_is_shown_as_hexadecimal_and_as_a_repr_digest() {
        let digest = Digest::from_hex(SHA256).unwrap();
        assert_eq!(digest.to_string(), SHA256);
        assert_eq!(digest.repr_digest(), "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:");
    }
}
