//! `Range` and `Content-Range` (RFC 9110 §14): one range of bytes, or none.

use std::ops::Range;

/// One range as a client asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// `bytes=N-`
    From(u64),
    /// `bytes=N-M`, both included.
    Between(u64, u64),
    /// `bytes=-N`: the last N.
    Last(u64),
}

/// What a request gets of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    /// All of it: 200.
    Whole,
    /// These bytes: 206.
    Part(Range<u64>),
    /// Nothing, for the range lies outside: 416.
    Unsatisfiable,
}

impl ByteRange {
    /// Reads a `Range` field. Anything but one well-formed range of bytes is `None`, which means: answer with all of it.
    pub fn parse(field: &str) -> Option<Self> {
        let set = field.trim().strip_prefix("bytes=")?;
        let (first, last) = set.trim().split_once('-')?;
        match (first.trim(), last.trim()) {
            ("", last) => Some(Self::Last(bound(last)?)),
            (first, "") => Some(Self::From(bound(first)?)),
            (first, last) => {
                Some((bound(first)?, bound(last)?)).filter(|(first, last)| first <= last).map(|(first, last)| Self::Between(first, last))
            }
        }
    }

    /// Applies the range to a file of `size` bytes.
    pub fn select(self, size: u64) -> Selected {
        let range = match self {
            Self::From(first) => first..size,
            Self::Between(first, last) => first..size.min(last.saturating_add(1)),
            Self::Last(count) => size.saturating_sub(count)..size,
        };
        if range.is_empty() { Selected::Unsatisfiable } else { Selected::Part(range) }
    }
}

/// What an upstream says that it sends with a 206.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
    /// The size of the whole, unless it was given as `*`.
    pub total: Option<u64>,
}

impl ContentRange {
    /// Reads a `Content-Range` field; `None` if it makes no sense.
    pub fn parse(field: &str) -> Option<Self> {
        let (range, total) = field.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (start, last) = range.split_once('-')?;
        let total = if total == "*" { None } else { Some(number(total)?) };
        let (start, end) = (number(start)?, number(last)?.checked_add(1)?);
        let makes_sense = start < end && total.is_none_or(|total| end <= total);
        makes_sense.then_some(Self { start, end, total })
    }
}

/// Digits only: `u64::from_str` would also take a `+`.
/// A number that may be larger than any file.
fn bound(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use crate::http::range::{ByteRange, ContentRange, Selected};

    #[test]
    fn a_number_may_be_larger_than_any_file() {
        let select = |field| ByteRange::parse(field).unwrap().select(10);
        assert_eq!(select("bytes=99999999999999999999-"), Selected::Unsatisfiable);
        assert_eq!(select("bytes=5-99999999999999999999"), Selected::Part(5..10));
        assert_eq!(select("bytes=-99999999999999999999"), Selected::Part(0..10));
        assert_eq!(select("bytes=18446744073709551615-18446744073709551616"), Selected::Unsatisfiable);
    }

    #[test]
    fn a_single_range_selects_what_it_says() {
        for (field, size, expected) in [
            ("bytes=0-", 10, Selected::Part(0..10)),
            ("bytes=3-", 10, Selected::Part(3..10)),
            ("bytes=3-4", 10, Selected::Part(3..5)),
            ("bytes=3-99", 10, Selected::Part(3..10)),
            ("bytes=-4", 10, Selected::Part(6..10)),
            ("bytes=-99", 10, Selected::Part(0..10)),
            ("bytes=9-9", 10, Selected::Part(9..10)),
            ("bytes=0-18446744073709551615", 10, Selected::Part(0..10)),
            ("bytes=10-", 10, Selected::Unsatisfiable),
            ("bytes=-0", 10, Selected::Unsatisfiable),
            ("bytes=0-", 0, Selected::Unsatisfiable),
        ] {
            assert_eq!(ByteRange::parse(field).unwrap().select(size), expected, "{field} of {size}");
        }
    }

    #[test]
    fn anything_else_is_no_range() {
        for field in ["", "bytes", "bytes=", "bytes=-", "bytes=4-3", "bytes=a-b", "bytes=0-1,3-4", "items=0-1", "bytes=+1-2"] {
            assert_eq!(ByteRange::parse(field), None, "{field}");
        }
    }

    #[test]
    fn a_content_range_must_make_sense() {
        assert_eq!(ContentRange::parse("bytes 5-9/10"), Some(ContentRange { start: 5, end: 10, total: Some(10) }));
        assert_eq!(ContentRange::parse("bytes 5-9/*"), Some(ContentRange { start: 5, end: 10, total: None }));
        for field in ["bytes */10", "bytes 9-5/10", "bytes 5-10/10", "5-9/10", "bytes 5-18446744073709551615/*"] {
            assert_eq!(ContentRange::parse(field), None, "{field}");
        }
    }
}
