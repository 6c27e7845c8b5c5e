//! How well each URL of a remote answers, and in which order they are tried.
//!
//! One failure is no verdict. A URL that failed twice in a row is asked last until its back-off is over; one that named
//! a time itself (`Retry-After`) is asked last until then. When that is over one request tries it, and until it is known
//! how that went all others ask it last still. Nothing is ever left out: a poor URL beats none.

use std::time::Duration;

use jiff::Timestamp;

/// The back-off after the second failure in a row; it doubles with each one after that.
const FIRST_BACK_OFF: Duration = Duration::from_secs(5);
/// The longest back-off, and the longest `Retry-After` that is believed.
const LONGEST_BACK_OFF: Duration = Duration::from_mins(5);
/// Whoever tries a URL that may be back and does not say how it went is not waited for any longer.
const PROBE: Duration = Duration::from_secs(30);

/// The state of a remote's URLs, by their place in the configuration.
#[derive(Clone, Debug)]
pub struct Health {
    urls: Vec<Url>,
}

#[derive(Clone, Debug, Default)]
struct Url {
    failures: u32,
    resting_until: Option<Timestamp>,
    /// Until when it asked to be left alone.
    left_alone_until: Option<Timestamp>,
    /// Until when somebody tries whether it is back.
    probed_until: Option<Timestamp>,
    /// How many files in a row had wrong bytes. That it answers says nothing of that.
    wrongs: u32,
}

impl Health {
    /// So many URLs, all of them well.
    pub fn new(urls: usize) -> Self {
        Self { urls: vec![Url::default(); urls] }
    }

    /// In which order the URLs are to be tried: the configured one, but those that rest at the end, and those that somebody
    /// tries; and after all of these the ones that were no good for what is wanted, by when that was. Whoever is told to ask a URL
    /// that may be back first is the one who tries it.
    pub fn order<T: Ord>(&mut self, now: Timestamp, was_no_good: impl Fn(usize) -> Option<T>) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.urls.len()).collect();
        order.sort_by_cached_key(|url| (was_no_good(*url), self.urls[*url].asked_last_until(now)));
        if let Some(first) = order.first().and_then(|first| self.urls.get_mut(*first)) {
            first.is_tried(now);
        }
        order
    }

    /// A URL that there is a verdict on, whose rest is over, and that no request will try, because another is well. Whoever is
    /// told of it is the one who tries it.
    pub fn probe(&mut self, now: Timestamp) -> Option<usize> {
        if !self.is_healthy() {
            return None;
        }
        let may_be_back = |url: &Url| url.resting_until.is_some() && url.asked_last_until(now).is_none();
        let url = self.urls.iter().position(may_be_back)?;
        self.urls[url].is_tried(now);
        Some(url)
    }

    /// Notes that a URL answered as it should. One that sent wrong bytes again and again has to send right ones.
    pub fn succeeded(&mut self, url: usize) {
        if let Some(url) = self.urls.get_mut(url).filter(|url| back_off(url.wrongs).is_none()) {
            *url = Url { wrongs: url.wrongs, ..Url::default() };
        }
    }

    /// Notes that a URL answered, now. After its rest that is as good as being back, also for one that sent wrong bytes: the next
    /// wrong one counts like one more in a row.
    pub fn answered(&mut self, url: usize, now: Timestamp) {
        let is_over = |url: &Url| back_off(url.wrongs).is_some() && url.resting_until.is_none_or(|until| until <= now);
        if self.urls.get(url).is_some_and(is_over) { self.is_back(url) } else { self.succeeded(url) }
    }

    /// Notes that a URL sent a file that is right.
    pub fn proved(&mut self, url: usize) {
        if let Some(url) = self.urls.get_mut(url) {
            *url = Url::default();
        }
    }

    /// Notes that a URL sent wrong bytes in the place of a file.
    pub fn sent_wrong_bytes(&mut self, url: usize, now: Timestamp) {
        let Some(url) = self.urls.get_mut(url) else { return };
        url.wrongs = url.wrongs.saturating_add(1);
        url.failures = url.failures.max(url.wrongs);
        url.probed_until = None;
        url.resting_until = back_off(url.wrongs).and_then(|rest| now.checked_add(rest).ok()).max(url.resting_until);
    }

    /// Notes that a URL that was tried is back. What it failed at before may be something else than what it was tried with, so that
    /// the next failure counts like one more in a row.
    pub fn is_back(&mut self, url: usize) {
        if let Some(url) = self.urls.get_mut(url) {
            *url = Url { failures: url.failures, wrongs: url.wrongs, ..Url::default() };
        }
    }

    /// Notes that a URL did not, and when it asked to be left alone.
    pub fn failed(&mut self, url: usize, now: Timestamp, retry_after: Option<Duration>) {
        let Some(url) = self.urls.get_mut(url) else { return };
        url.failures = url.failures.saturating_add(1);
        let asked = retry_after.map(|rest| rest.min(LONGEST_BACK_OFF));
        url.left_alone_until = asked.and_then(|rest| now.checked_add(rest).ok());
        let rest = asked.or_else(|| back_off(url.failures));
        url.probed_until = None;
        url.resting_until = rest.and_then(|rest| now.checked_add(rest).ok()).max(url.resting_until);
    }

    /// How long all URLs asked to be left alone, if each of them did.
    pub fn rest(&self, now: Timestamp) -> Option<Duration> {
        let left = |url: &Url| Duration::try_from(now.until(url.left_alone_until?).ok()?).ok().filter(|left| !left.is_zero());
        self.urls.iter().map(left).min().flatten()
    }

    /// Whether at least one URL answers as it should.
    pub fn is_healthy(&self) -> bool {
        (0..self.urls.len()).any(|url| self.illness(url).is_none())
    }

    /// What is wrong with a URL, if there is a verdict. It holds until the URL answers as it should: nobody knows that it is
    /// back because its rest is over.
    pub fn illness(&self, url: usize) -> Option<Illness> {
        let url = self.urls.get(url)?;
        Some(Illness { failures: url.failures, asked_last_until: url.resting_until? })
    }
}

/// The verdict on a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illness {
    /// How often it failed in a row.
    pub failures: u32,
    /// Until when it is asked last.
    pub asked_last_until: Timestamp,
}

impl Url {
    /// Notes that somebody tries whether it is back, if it was away.
    fn is_tried(&mut self, now: Timestamp) {
        self.probed_until = self.resting_until.and_then(|_| now.checked_add(PROBE).ok());
    }

    /// Until when it is asked last, if it is.
    fn asked_last_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.resting_until.max(self.probed_until).filter(|until| *until > now)
    }
}

fn back_off(failures: u32) -> Option<Duration> {
    let doublings = failures.checked_sub(2)?;
    Some(FIRST_BACK_OFF.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_BACK_OFF))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use crate::health::{Health, Illness};

    /// Nothing special is wanted.
    const ALL_GOOD: fn(usize) -> Option<u8> = |_| None;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// T17
    #[test]
    fn one_failure_is_no_verdict_and_two_are() {
        let mut health = Health::new(2);
        health.failed(0, at(0), None);
        assert_eq!(health.order(at(0), ALL_GOOD), [0, 1]);
        health.failed(0, at(1), None);
        assert_eq!(health.order(at(2), ALL_GOOD), [1, 0]);
        assert!(health.is_healthy(), "the other one is");
        assert_eq!(health.illness(0), Some(Illness { failures: 2, asked_last_until: at(6) }));
        assert_eq!(health.order(at(7), ALL_GOOD), [0, 1], "the back-off is over");
        assert!(health.illness(0).is_some(), "and nobody knows yet how it does");
        health.succeeded(0);
        assert_eq!(health.illness(0), None);
        health.failed(0, at(8), None);
        assert_eq!(health.illness(0), None);
        assert_eq!(health.order(at(8), ALL_GOOD), [0, 1], "a success forgets what was before");
    }

    /// T10, T17: a server that answers well and sends wrong bytes is asked last, until it sends a right file.
    #[test]
    fn a_url_that_sends_wrong_bytes_is_asked_last_although_it_answers() {
        let mut health = Health::new(2);
        health.succeeded(0);
        health.sent_wrong_bytes(0, at(0));
        assert_eq!((health.order(at(0), ALL_GOOD), health.illness(0)), (vec![0, 1], None), "one is no verdict");
        health.succeeded(0);
        health.sent_wrong_bytes(0, at(1));
        health.succeeded(0);
        assert_eq!(health.order(at(2), ALL_GOOD), [1, 0]);
        assert!(health.illness(0).is_some(), "that it answers says nothing");
        assert_eq!(health.order(at(6), ALL_GOOD), [0, 1], "one tries it");
        health.answered(0, at(6));
        assert_eq!(health.illness(0), None, "its rest is over, and it answers");
        health.sent_wrong_bytes(0, at(6));
        assert_eq!(health.order(at(15), ALL_GOOD), [1, 0], "it has to rest for twice as long");
        health.proved(0);
        assert_eq!((health.order(at(7), ALL_GOOD), health.illness(0)), (vec![0, 1], None));
    }

    /// T17: whoever asks for a file that a URL has wrong does not try whether that URL is back, and does not keep others from it.
    #[test]
    fn a_url_that_is_no_good_for_a_file_is_tried_by_whoever_wants_another() {
        let mut health = Health::new(2);
        [0, 1].into_iter().for_each(|second| health.failed(0, at(second), None));
        assert_eq!(health.order(at(7), |url| (url == 0).then_some(0)), [1, 0]);
        assert_eq!(health.order(at(7), ALL_GOOD), [0, 1], "this one tries it");
        assert_eq!(health.order(at(7), ALL_GOOD), [1, 0]);
        assert_eq!(health.order(at(7), |url| Some(7 - url)), [1, 0], "what was no good the longest ago comes first");
    }

    /// T14
    #[test]
    fn a_url_that_asks_to_be_left_alone_is_asked_last() {
        let mut health = Health::new(2);
        health.failed(0, at(0), Some(Duration::from_mins(1)));
        assert_eq!(health.order(at(59), ALL_GOOD), [1, 0]);
        assert_eq!(health.order(at(60), ALL_GOOD), [0, 1]);
        health.failed(1, at(60), Some(Duration::from_secs(1_000_000)));
        assert_eq!(health.order(at(61), ALL_GOOD), [0, 1]);
        assert_eq!(health.order(at(60 + 5 * 60), ALL_GOOD), [0, 1], "no longer than five minutes");
    }

    /// T17
    #[test]
    fn one_request_tries_a_url_that_may_be_back_and_the_others_wait_for_how_that_goes() {
        let mut health = Health::new(2);
        health.failed(0, at(0), None);
        health.failed(0, at(0), None);
        assert_eq!(health.order(at(4), ALL_GOOD), [1, 0]);
        assert_eq!(health.order(at(5), ALL_GOOD), [0, 1], "one tries it");
        assert_eq!(health.order(at(5), ALL_GOOD), [1, 0], "and the next does not");
        health.failed(0, at(6), None);
        assert_eq!(health.order(at(7), ALL_GOOD), [1, 0]);
        assert_eq!(health.order(at(16), ALL_GOOD), [0, 1], "twice as long after");
        health.succeeded(0);
        assert_eq!([health.order(at(17), ALL_GOOD), health.order(at(17), ALL_GOOD)], [[0, 1], [0, 1]], "it is back for everybody");
        health.failed(0, at(20), None);
        health.failed(0, at(20), None);
        assert_eq!(health.order(at(25), ALL_GOOD), [0, 1]);
        assert_eq!(health.order(at(54), ALL_GOOD), [1, 0]);
        assert_eq!(health.order(at(55), ALL_GOOD), [0, 1], "whoever tried it never said how it went");
    }

    /// T17: a URL that only stands in for another is never first, and has to be tried all the same.
    #[test]
    fn a_url_that_failed_is_tried_by_one_when_its_rest_is_over_wherever_it_stands() {
        let mut health = Health::new(2);
        assert_eq!(health.probe(at(0)), None);
        health.failed(1, at(0), None);
        assert_eq!(health.probe(at(1)), None, "one failure is no verdict");
        health.failed(1, at(1), None);
        assert_eq!([health.probe(at(5)), health.probe(at(6)), health.probe(at(6))], [None, Some(1), None]);
        health.failed(1, at(7), None);
        assert_eq!([health.probe(at(16)), health.probe(at(17))], [None, Some(1)], "twice as long after");
        assert_eq!([health.probe(at(46)), health.probe(at(47))], [None, Some(1)], "nobody said how that went");
        health.failed(0, at(48), None);
        health.failed(0, at(48), None);
        assert_eq!(health.probe(at(200)), None, "requests try both");
        health.succeeded(0);
        assert_eq!(health.probe(at(200)), Some(1));
        health.is_back(1);
        assert_eq!((health.probe(at(201)), health.illness(1)), (None, None));
        health.failed(1, at(201), None);
        assert!(health.illness(1).is_some(), "it was not what it failed at");
    }

    #[test]
    fn when_all_rest_the_first_to_be_back_is_tried_first() {
        let mut health = Health::new(2);
        health.failed(0, at(0), Some(Duration::from_mins(1)));
        health.failed(1, at(0), Some(Duration::from_secs(30)));
        assert_eq!(health.order(at(1), ALL_GOOD), [1, 0]);
        assert!(!health.is_healthy());
        health.succeeded(1);
        assert!(health.is_healthy());
    }
}
