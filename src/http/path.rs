//! Paths of files and documents, relative to the top of an image server.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// The longest path that is taken, in bytes; file systems and proxies take four times that.
pub const MAX_PATH_BYTES: usize = 1024;

/// What a URL path may not hold as it is (RFC 3986 §3.3); `:` and `+` stay, as Go clients send them.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A path below the top of an image server: segments joined by `/`, none of them empty, `.` or `..`.
///
/// It cannot lead outside of what it is joined to, on a disk or in a URL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamPath(Arc<str>);

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// There is nothing in it.
    #[error("the path is empty")]
    Empty,
    /// It is longer than [`MAX_PATH_BYTES`].
    #[error("the path is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// It has a `..` segment, or in a request also `.` or an empty one.
    #[error("the path has a segment that is empty, '.' or '..'")]
    Segment,
    /// It has a control character, a backslash, an encoded slash, or is not UTF-8.
    #[error("the path has a character that paths cannot have")]
    Character,
    /// It is a URL of its own; clients cannot follow these.
    #[error("the path is a URL, and clients join paths to the remote's own")]
    Absolute,
}

impl StreamPath {
    /// Reads the `path` of a document's entry or item, cleaned as Go clients clean it (`path.Join`).
    ///
    /// A `..` is refused even where cleaning would remove it: no honest document has one.
    pub fn from_document(path: &str) -> Result<Self, BadPath> {
        // A search for one byte is much cheaper, and there are very many paths in a document.
        if path.contains(':') && path.contains("://") {
            return Err(BadPath::Absolute);
        }
        if let Ok(clean) = Self::checked(path) {
            return Ok(clean);
        }
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty() && *segment != ".").collect();
        Self::checked(&segments.join("/"))
    }

    /// Reads the path of a request target, without its leading `/`. It is taken as it is or refused, never cleaned.
    pub fn from_request(raw: &str) -> Result<Self, BadPath> {
        if raw.len() > 3 * MAX_PATH_BYTES {
            return Err(BadPath::TooLong);
        }
        if raw.to_ascii_lowercase().contains("%2f") {
            return Err(BadPath::Character);
        }
        let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| BadPath::Character)?;
        Self::checked(&decoded)
    }

    fn checked(path: &str) -> Result<Self, BadPath> {
        if path.is_empty() {
            return Err(BadPath::Empty);
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(BadPath::TooLong);
        }
        let is_plain = path.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'\\');
        if !is_plain && path.chars().any(|c| c.is_control() || c == '\\') {
            return Err(BadPath::Character);
        }
        if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(BadPath::Segment);
        }
        Ok(Self(path.into()))
    }

    /// The path as documents write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    pub fn basename(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The path as a URL writes it.
    pub fn to_url(&self) -> String {
        utf8_percent_encode(&self.0, ESCAPED).to_string()
    }

    /// The same path below the folder `first`, itself one plain segment.
    pub fn below(&self, first: &str) -> Self {
        debug_assert!(Self::checked(first).is_ok() && !first.contains('/'), "a remote's name is one segment");
        Self(format!("{first}/{}", self.0).into())
    }

    /// Splits off the first segment; `None` if there is no second one.
    pub fn split_first(&self) -> Option<(&str, Self)> {
        let (first, rest) = self.0.split_once('/')?;
        Some((first, Self(rest.into())))
    }
}

impl fmt::Display for StreamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamPath({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use crate::http::path::{BadPath, MAX_PATH_BYTES, StreamPath};

    #[test]
    fn a_documents_path_is_cleaned_as_go_cleans_it() {
        for (given, expected) in [("streams/v1/images.json", "streams/v1/images.json"), ("/a//b/./c", "a/b/c"), ("a b/c:d+e", "a b/c:d+e")]
        {
            assert_eq!(StreamPath::from_document(given).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        for (given, expected) in [
            ("", BadPath::Empty),
            ("/", BadPath::Empty),
            ("a/../b", BadPath::Segment),
            ("..", BadPath::Segment),
            ("https://elsewhere/x", BadPath::Absolute),
            ("a\0b", BadPath::Character),
            ("a\\b", BadPath::Character),
            ("a\nb", BadPath::Character),
        ] {
            assert_eq!(StreamPath::from_document(given), Err(expected), "{given:?}");
        }
        assert_eq!(StreamPath::from_document(&"a".repeat(MAX_PATH_BYTES + 1)), Err(BadPath::TooLong));
    }

    #[test]
    fn a_requests_path_is_decoded_and_never_cleaned() {
        assert_eq!(StreamPath::from_request("ubuntu/a%20b/c:d%3Fe").unwrap().as_str(), "ubuntu/a b/c:d?e");
        for (given, expected) in [
            ("a//b", BadPath::Segment),
            ("a/./b", BadPath::Segment),
            ("a/%2e%2e/b", BadPath::Segment),
            ("a%2Fb", BadPath::Character),
            ("a%2fb", BadPath::Character),
            ("a%00b", BadPath::Character),
            ("a%ffb", BadPath::Character),
            ("a/", BadPath::Segment),
        ] {
            assert_eq!(StreamPath::from_request(given), Err(expected), "{given:?}");
        }
        assert_eq!(StreamPath::from_request(&"%41".repeat(MAX_PATH_BYTES + 1)), Err(BadPath::TooLong));
    }

    proptest! {
        #[test]
        fn whatever_is_taken_survives_a_trip_through_a_url(given in any::<String>()) {
            if let Ok(path) = StreamPath::from_document(&given) {
                assert_eq!(StreamPath::from_request(&path.to_url()).unwrap(), path);
            }
        }
    }
}
