//! Conditional requests (RFC 9110 §13): what a request's preconditions say of what we would send.

use std::time::SystemTime;

use hyper::HeaderMap;
use hyper::header::{HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};

/// The validators of a representation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validators<'a> {
    /// A strong entity tag, with its quotes; `None` while a digest is not known yet.
    pub etag: Option<&'a str>,
    /// When it last changed, to the second.
    pub last_modified: Option<SystemTime>,
}

/// What the preconditions of a GET or HEAD come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answer as if there were none.
    Proceed,
    /// 304
    NotModified,
    /// 412
    PreconditionFailed,
}

impl Validators<'_> {
    /// Evaluates the preconditions in the order of RFC 9110 §13.2.2.
    pub fn evaluate(&self, headers: &HeaderMap) -> Outcome {
        if headers.contains_key(IF_MATCH) {
            if !self.matches(headers, &IF_MATCH, strong) {
                return Outcome::PreconditionFailed;
            }
        } else if date(headers, &IF_UNMODIFIED_SINCE).is_some_and(|date| self.changed_since(date)) {
            return Outcome::PreconditionFailed;
        }
        let not_modified = if headers.contains_key(IF_NONE_MATCH) {
            self.matches(headers, &IF_NONE_MATCH, weak)
        } else {
            date(headers, &IF_MODIFIED_SINCE).is_some_and(|date| self.last_modified.is_some() && !self.changed_since(date))
        };
        if not_modified { Outcome::NotModified } else { Outcome::Proceed }
    }

    /// Whether a `Range` may be honoured: there is no `If-Range`, or it names exactly these bytes.
    pub fn range_applies(&self, headers: &HeaderMap) -> bool {
        let Some(field) = headers.get(IF_RANGE).map(|value| value.to_str().unwrap_or_default().trim()) else {
            return true;
        };
        match httpdate::parse_http_date(field) {
            Ok(date) => self.last_modified.is_some_and(|modified| seconds(modified) == seconds(date)),
            Err(_) => self.etag.is_some_and(|etag| strong(field, etag)),
        }
    }

    fn matches(&self, headers: &HeaderMap, name: &HeaderName, same: fn(&str, &str) -> bool) -> bool {
        let tags = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        tags.map(str::trim).any(|tag| tag == "*" || self.etag.is_some_and(|etag| same(tag, etag)))
    }

    fn changed_since(&self, date: SystemTime) -> bool {
        self.last_modified.is_none_or(|modified| seconds(modified) > seconds(date))
    }
}

fn strong(given: &str, ours: &str) -> bool {
    given == ours
}

fn weak(given: &str, ours: &str) -> bool {
    given.strip_prefix("W/").unwrap_or(given) == ours
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use hyper::HeaderMap;
    use hyper::header::HeaderName;

    use crate::http::condition::{Outcome, Validators};

    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEW: &str = "Sun, 06 Nov 2044 08:49:37 GMT";

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    fn ours() -> Validators<'static> {
        Validators { etag: Some("\"abc\""), last_modified: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)) }
    }

    #[test]
    fn preconditions_are_evaluated_in_the_order_of_the_rfc() {
        for (fields, expected) in [
            (&[][..], Outcome::Proceed),
            (&[("if-none-match", "\"abc\"")], Outcome::NotModified),
            (&[("if-none-match", "W/\"abc\"")], Outcome::NotModified),
            (&[("if-none-match", "\"x\", \"abc\"")], Outcome::NotModified),
            (&[("if-none-match", "*")], Outcome::NotModified),
            (&[("if-none-match", "\"x\"")], Outcome::Proceed),
            (&[("if-none-match", "\"x\""), ("if-modified-since", NEW)], Outcome::Proceed),
            (&[("if-modified-since", NEW)], Outcome::NotModified),
            (&[("if-modified-since", OLD)], Outcome::Proceed),
            (&[("if-modified-since", "nonsense")], Outcome::Proceed),
            (&[("if-match", "\"abc\"")], Outcome::Proceed),
            (&[("if-match", "W/\"abc\"")], Outcome::PreconditionFailed),
            (&[("if-match", "\"x\"")], Outcome::PreconditionFailed),
            (&[("if-unmodified-since", OLD)], Outcome::PreconditionFailed),
            (&[("if-unmodified-since", NEW)], Outcome::Proceed),
        ] {
            assert_eq!(ours().evaluate(&headers(fields)), expected, "{fields:?}");
        }
    }

    #[test]
    fn without_validators_nothing_is_unmodified() {
        let none = Validators::default();
        assert_eq!(none.evaluate(&headers(&[("if-none-match", "\"abc\"")])), Outcome::Proceed);
        assert_eq!(none.evaluate(&headers(&[("if-modified-since", NEW)])), Outcome::Proceed);
        assert!(!none.range_applies(&headers(&[("if-range", "\"abc\"")])));
    }

    #[test]
    fn a_range_applies_only_to_exactly_these_bytes() {
        let same = httpdate::fmt_http_date(ours().last_modified.unwrap());
        for (fields, expected) in [
            (&[][..], true),
            (&[("if-range", "\"abc\"")], true),
            (&[("if-range", "W/\"abc\"")], false),
            (&[("if-range", "\"x\"")], false),
            (&[("if-range", same.as_str())], true),
            (&[("if-range", OLD)], false),
        ] {
            assert_eq!(ours().range_applies(&headers(fields)), expected, "{fields:?}");
        }
    }
}
