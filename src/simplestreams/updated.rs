//! The `updated` of documents: RFC 2822 by the specification, RFC 3339 by some programs, absent by others.

use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// Reads an `updated` field; `None` if it is in neither form, and then nothing is decided by it.
pub fn parse(updated: &str) -> Option<Timestamp> {
    let rfc2822 = rfc2822::DateTimeParser::new().relaxed_weekday(true);
    rfc2822.parse_timestamp(updated).ok().or_else(|| updated.parse().ok())
}

#[cfg(test)]
mod tests {
    use crate::simplestreams::updated::parse;

    #[test]
    fn both_forms_in_use_are_read() {
        let expected = "2025-07-24T08:01:49Z".parse().ok();
        assert_eq!(parse("Thu, 24 Jul 2025 08:01:49 +0000"), expected);
        assert_eq!(parse("Thu, 24 Jul 2025 04:01:49 -0400"), expected);
        assert_eq!(parse("2025-07-24T08:01:49Z"), expected);
        assert_eq!(parse("last week"), None);
        assert_eq!(parse(""), None);
    }
}
