//! Which URL a download tries next, and what to make of it when none is left.

use std::time::Duration;

use crate::cache::error::FetchError;
use crate::digest::Mismatch;
use crate::http::range::ContentRange;
use crate::upstream::Failure;

/// The wait before a URL is tried again in the middle of a file; it doubles with each round.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Why an attempt came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The upstream failed.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// It offers another file.
    #[error(transparent)]
    Wrong(#[from] Mismatch),
}

/// The attempts of one download.
///
/// Before the first byte each URL is tried once: a host waits for its status, and tries again by itself. In the middle
/// of a file more rounds are made, since a host cannot go on where it stopped. Progress begins them anew.
#[derive(Debug)]
pub struct Attempts {
    order: Vec<usize>,
    tried: usize,
    rounds: u32,
    extra_rounds: u32,
    faults: Vec<Fault>,
    has_flowed: bool,
}

impl Attempts {
    /// Attempts at these URLs, with so many extra rounds in the middle of a file.
    pub fn new(order: Vec<usize>, extra_rounds: u32) -> Self {
        Self { order, tried: 0, rounds: 0, extra_rounds, faults: Vec::new(), has_flowed: false }
    }

    /// The URL to try next, and how long to wait before; `None` if it is time to give up.
    pub fn next_url(&mut self) -> Option<(usize, Duration)> {
        if let Some(url) = self.order.get(self.tried) {
            self.tried += 1;
            return Some((*url, Duration::ZERO));
        }
        if !self.has_flowed || self.rounds == self.extra_rounds {
            return None;
        }
        let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(self.rounds));
        self.rounds += 1;
        self.tried = 1;
        self.order.first().map(|url| (*url, wait))
    }

    /// Notes that bytes came, from this URL; if it breaks, the others are tried before it.
    pub fn progressed(&mut self, url: usize) {
        self.has_flowed = true;
        self.faults.clear();
        self.rounds = 0;
        self.tried = 0;
        self.order.retain(|other| *other != url);
        self.order.push(url);
    }

    /// Notes that an attempt came to nothing.
    pub fn failed(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// What to tell hosts. Gone is only what every URL calls gone.
    pub fn verdict(&self) -> FetchError {
        let failures = || self.faults.iter().filter_map(|fault| if let Fault::Failure(failure) = fault { Some(failure) } else { None });
        let wrong = self.faults.iter().find_map(|fault| if let Fault::Wrong(mismatch) = fault { Some(mismatch) } else { None });
        let all_gone = failures().all(Failure::is_gone);
        let is_silent = |fault: &Fault| matches!(fault, Fault::Failure(Failure::Silent(_)));
        let all_silent = !self.faults.is_empty() && self.faults.iter().all(is_silent);
        match wrong {
            None if all_silent && !self.has_flowed => FetchError::TimedOut,
            Some(mismatch) if all_gone => FetchError::Wrong(mismatch.clone()),
            None if all_gone && !self.faults.is_empty() && !self.has_flowed => FetchError::Gone,
            _ => FetchError::Upstream {
                reason: self.faults.last().map_or_else(|| "it has no URL".to_owned(), ToString::to_string),
                retry_after: failures().filter_map(Failure::retry_after).max(),
            },
        }
    }
}

/// Decides whether an answer goes on where we are: how many of its bytes we have already.
pub fn accept(status: u16, length: Option<u64>, range: Option<ContentRange>, from: u64, size: Option<u64>) -> Result<u64, Fault> {
    let other_size = |actual: Option<u64>| actual.zip(size).filter(|(actual, size)| actual != size);
    let (total, skip) = match (status, range) {
        (200, _) => (length, from),
        (206, Some(range)) if range.start == from => (range.total, 0),
        (206, _) => return Err(Failure::Nonsense("another range than was asked for".to_owned()).into()),
        _ => return Err(Failure::Nonsense(format!("{status} to a plain request")).into()),
    };
    match other_size(total) {
        Some((actual, expected)) => Err(Mismatch::Size { expected, actual }.into()),
        None => Ok(skip),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::cache::error::FetchError;
    use crate::digest::Mismatch;
    use crate::fetch::attempts::{Attempts, Fault, accept};
    use crate::http::range::ContentRange;
    use crate::upstream::Failure;

    fn status(code: u16) -> Fault {
        Failure::Status { code, retry_after: Some(Duration::from_secs(u64::from(code))) }.into()
    }

    fn verdict(faults: &[Fault]) -> FetchError {
        let mut attempts = Attempts::new((0..faults.len()).collect(), 2);
        for fault in faults {
            attempts.next_url().unwrap();
            attempts.failed(fault.clone());
        }
        assert_eq!(attempts.next_url(), None, "before the first byte there is one round");
        attempts.verdict()
    }

    /// T18
    #[test]
    fn gone_is_only_what_every_url_calls_gone() {
        assert_eq!(verdict(&[status(404), status(410)]), FetchError::Gone);
        assert!(matches!(verdict(&[status(404), status(503)]), FetchError::Upstream { retry_after: Some(_), .. }));
        assert!(matches!(verdict(&[Failure::Silent("x").into(), status(404)]), FetchError::Upstream { .. }));
        assert_eq!(verdict(&[Failure::Silent("x").into(), Failure::Silent("x").into()]), FetchError::TimedOut);
        let wrong = Mismatch::Size { expected: 1, actual: 2 };
        assert_eq!(verdict(&[wrong.clone().into(), status(404)]), FetchError::Wrong(wrong));
        assert!(matches!(verdict(&[]), FetchError::Upstream { .. }));
    }

    #[test]
    fn in_the_middle_of_a_file_there_are_more_rounds_and_progress_begins_them_anew() {
        let mut attempts = Attempts::new(vec![0, 1], 2);
        assert_eq!(attempts.next_url(), Some((0, Duration::ZERO)));
        assert_eq!(attempts.next_url(), Some((1, Duration::ZERO)));
        attempts.progressed(1);
        let urls: Vec<_> = std::iter::from_fn(|| attempts.next_url()).collect();
        let [none, short, long] = [0, 250, 500].map(Duration::from_millis);
        assert_eq!(urls, [(0, none), (1, none), (0, short), (1, none), (0, long), (1, none)]);
        attempts.progressed(0);
        assert_eq!(attempts.next_url(), Some((1, none)));
        assert!(matches!(attempts.verdict(), FetchError::Upstream { .. }), "what began to come is not gone");
    }

    #[test]
    fn an_answer_must_go_on_where_we_are() {
        let range = |start, total| Some(ContentRange { start, end: start + 1, total });
        assert_eq!(accept(200, Some(9), None, 0, Some(9)), Ok(0));
        assert_eq!(accept(200, None, None, 4, Some(9)), Ok(4), "a server without ranges sends it all again");
        assert_eq!(accept(206, Some(5), range(4, Some(9)), 4, Some(9)), Ok(0));
        assert_eq!(accept(206, Some(5), range(4, None), 4, None), Ok(0));
        assert_eq!(accept(200, Some(8), None, 0, Some(9)), Err(Mismatch::Size { expected: 9, actual: 8 }.into()));
        assert_eq!(accept(206, Some(5), range(4, Some(8)), 4, Some(9)), Err(Mismatch::Size { expected: 9, actual: 8 }.into()));
        for (code, range) in [(206, range(3, Some(9))), (206, None), (304, None)] {
            assert!(matches!(accept(code, None, range, 4, Some(9)), Err(Fault::Failure(Failure::Nonsense(_)))));
        }
    }
}
