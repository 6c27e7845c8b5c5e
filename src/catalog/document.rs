//! A document that is ready to send.

use std::time::SystemTime;

use bytes::Bytes;
use jiff::Timestamp;
use libdeflater::{CompressionLvl, Compressor};

use crate::digest::Digest;

/// A document's bytes, plain and gzipped, with the fields that go with them.
#[derive(Debug)]
pub struct Document {
    /// As it is.
    pub plain: Bytes,
    /// Gzipped; `None` where that would not be shorter.
    pub gzip: Option<Bytes>,
    /// The entity tag of the plain bytes, with quotes.
    pub etag: String,
    /// The entity tag of the gzipped ones: another representation, another tag.
    pub gzip_etag: String,
    /// When the document that it comes from was taken from upstream.
    pub last_modified: SystemTime,
    /// Its media type.
    pub content_type: &'static str,
}

impl Document {
    /// Makes a document ready. `name` decides the media type.
    pub fn new(name: &str, plain: Bytes, taken_at: Timestamp) -> Self {
        let gzip = gzip(&plain);
        // Packed it says the same, and is a quarter of the work.
        let digest = Digest::of(gzip.as_ref().unwrap_or(&plain));
        Self {
            gzip,
            etag: format!("\"{digest}\""),
            gzip_etag: format!("\"{digest}-gzip\""),
            plain,
            last_modified: taken_at.try_into().unwrap_or(SystemTime::UNIX_EPOCH),
            content_type: content_type(name),
        }
    }
}

/// Packs a document; `None` where it would not be shorter. Documents become a quarter, and memory is zeroed whether or not it is used
/// after that, so that half of their size is tried first.
fn gzip(plain: &[u8]) -> Option<Bytes> {
    [plain.len() / 2, plain.len().saturating_sub(1)].into_iter().find_map(|room| gzip_into(plain, room))
}

/// Packs a document into this much memory, if it is enough. Most of it is hashes, so that more effort than this wins nothing.
fn gzip_into(plain: &[u8], room: usize) -> Option<Bytes> {
    const EFFORT: i32 = 4;
    let mut compressor = Compressor::new(CompressionLvl::new(EFFORT).ok()?);
    let mut packed = vec![0; room];
    let len = compressor.gzip_compress(plain, &mut packed).ok()?;
    packed.truncate(len);
    packed.shrink_to_fit();
    Some(packed.into())
}

/// The media type of whatever has this name (interface.md, HTTP).
pub fn content_type(name: &str) -> &'static str {
    // Bytes and not characters: a name may have a character across the place where a suffix would begin.
    let bytes = name.as_bytes();
    let ends = |suffix: &str| bytes.len() >= suffix.len() && bytes[bytes.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes());
    if ends(".json") {
        "application/json"
    } else if ends(".sjson") || ends(".gpg") {
        "text/plain"
    } else if ends(".tgz") || ends(".tar.gz") {
        "application/x-gzip"
    } else {
        "application/octet-stream"
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use bytes::Bytes;
    use jiff::Timestamp;

    use crate::catalog::document::{Document, content_type};

    #[test]
    fn what_packs_badly_is_packed_too_and_what_does_not_pack_goes_out_as_it_is() {
        let mut noise = vec![0; 3000];
        fastrand::Rng::with_seed(1).fill(&mut noise);
        let to_a_third_less = [noise.clone(), vec![b'x'; 1500]].concat();
        for (plain, is_packed) in [(vec![b'x'; 4500], true), (to_a_third_less, true), (noise, false), (Vec::new(), false)] {
            let document = Document::new("x.json", Bytes::from(plain.clone()), Timestamp::UNIX_EPOCH);
            assert_eq!(document.gzip.is_some(), is_packed, "{} bytes", plain.len());
            if let Some(packed) = document.gzip {
                let mut unpacked = Vec::new();
                flate2::read::GzDecoder::new(&*packed).read_to_end(&mut unpacked).unwrap();
                assert!(packed.len() < plain.len() && unpacked == plain);
            }
        }
    }

    #[test]
    fn the_media_type_is_decided_by_the_end_of_any_name() {
        for (name, expected) in [
            ("index.json", "application/json"),
            ("index.sjson", "text/plain"),
            ("index.json.gpg", "text/plain"),
            ("tools.TGZ", "application/x-gzip"),
            ("x.tar.gz", "application/x-gzip"),
            ("é.img", "application/octet-stream"),
            ("日本", "application/octet-stream"),
            ("", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), expected, "{name}");
        }
    }
}
