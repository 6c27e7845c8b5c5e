//! How far a round of mirroring is, and which files are not worth asking for yet.

use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;

use crate::api::Missing;
use crate::cache::error::FetchError;
use crate::catalog::files::File;
use crate::digest::Expected;
use crate::fetch::NotFound;
use crate::fetch::download::Wanted;
use crate::fetch::holding::NotHeld;

/// The longest wait before a file is asked for again that upstream does not have.
const LONGEST_RETRY: Duration = Duration::from_hours(24);
/// After so many failures in a row a round is given up: the image server is down, and the rest would fail too.
const FAILURES: usize = 8;

/// Whether upstream sent wrong bytes.
fn is_wrong(problem: &NotHeld) -> bool {
    matches!(problem, NotHeld::Fetch(FetchError::Wrong(_)) | NotHeld::NotFound(NotFound::Refused(FetchError::Wrong(_))))
}

/// Whether upstream answered, and has not what its documents say: that is about this file and no other.
fn is_about_the_file(problem: &NotHeld) -> bool {
    matches!(problem, NotHeld::Fetch(error) | NotHeld::NotFound(NotFound::Refused(error)) if matches!(error, FetchError::Gone | FetchError::Wrong(_)))
}

/// Files that upstream did not have, or had wrong, and when they are worth asking for again.
#[derive(Debug, Default)]
pub struct Hopeless(HashMap<Expected, Vain>);

#[derive(Debug)]
struct Vain {
    until: Instant,
    wait: Duration,
    problem: String,
    is_wrong: bool,
}

/// A file that upstream did not have, or had wrong.
#[derive(Debug)]
pub struct NotThere {
    file: Expected,
    problem: String,
    is_wrong: bool,
}

impl Hopeless {
    /// Whether a file is worth asking for now.
    pub fn is_worth_asking(&self, file: Expected, now: Instant) -> bool {
        self.0.get(&file).is_none_or(|vain| vain.until <= now)
    }

    /// Gives every file another chance: upstream may have it by now.
    pub fn forgive(&mut self, now: Instant) {
        self.0.values_mut().for_each(|vain| vain.until = now);
    }

    /// Whether upstream sent wrong bytes in the place of a file.
    pub fn was_wrong(&self, file: Expected) -> bool {
        self.0.get(&file).is_some_and(|vain| vain.is_wrong)
    }

    /// What was wrong with a file.
    pub fn problem(&self, file: Expected) -> Option<String> {
        self.0.get(&file).map(|vain| vain.problem.clone())
    }

    /// Notes files that were asked for in vain. They are worth asking for again after `retry`, and each time after twice as
    /// long.
    pub fn note(&mut self, files: &[NotThere], now: Instant, retry: Duration) {
        // What is not listed any more is forgotten after a while.
        self.0.retain(|_, vain| vain.until + LONGEST_RETRY > now);
        for NotThere { file, problem, is_wrong } in files {
            let wait = self.0.get(file).map_or(retry, |vain| (vain.wait * 2).min(LONGEST_RETRY));
            self.0.insert(*file, Vain { until: now + wait, wait, problem: problem.clone(), is_wrong: *is_wrong });
        }
    }
}

/// How far a round is.
#[derive(Debug)]
pub struct Progress {
    /// What is missing still.
    pub missing: Missing,
    /// What upstream did not have, or had wrong.
    pub not_there: Vec<NotThere>,
    failures_in_a_row: usize,
    is_full: bool,
    /// Whether there can never be room for all, which is more worth saying than what became of one file.
    is_overfull: bool,
}

impl Progress {
    /// The beginning of a round; `overfull` says why it can never come to its end.
    pub fn of(missing: &[File], hopeless: &Hopeless, overfull: Option<String>) -> Self {
        let bytes = missing.iter().map(size).fold(0, u64::saturating_add);
        let is_overfull = overfull.is_some();
        let known = missing.iter().find_map(|file| Some(format!("{}: {}", file.path, hopeless.problem(file.expected)?)));
        let missing = Missing { files: missing.len(), bytes, problem: overfull.or(known) };
        Self { missing, not_there: Vec::new(), failures_in_a_row: 0, is_full: false, is_overfull }
    }

    /// Whether the next file has a chance.
    pub fn is_promising(&self) -> bool {
        !self.is_full && self.failures_in_a_row < FAILURES
    }

    /// Notes that a file of so many bytes is held now.
    pub fn held(&mut self, bytes: u64) {
        self.missing.files = self.missing.files.saturating_sub(1);
        self.missing.bytes = self.missing.bytes.saturating_sub(bytes);
        self.failures_in_a_row = 0;
    }

    /// Notes that a file is not.
    pub fn failed(&mut self, wanted: &Wanted, problem: &NotHeld) {
        if !self.is_overfull {
            self.missing.problem = Some(format!("{}: {problem}", wanted.path));
        }
        if is_about_the_file(problem) {
            let is_wrong = is_wrong(problem);
            self.not_there.push(NotThere { file: wanted.expected, problem: problem.to_string(), is_wrong });
        } else {
            self.failures_in_a_row += 1;
        }
        self.is_full |= matches!(problem, NotHeld::NoRoom | NotHeld::Uncounted);
    }
}

/// How many bytes a file has, as far as its document says.
pub fn size(file: &File) -> u64 {
    file.expected.size.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use crate::digest::{Claim, Digest, Expected};
    use crate::prefetch::progress::{Hopeless, LONGEST_RETRY, NotThere};

    const RETRY: Duration = Duration::from_mins(5);

    #[test]
    fn what_upstream_does_not_have_is_asked_for_ever_more_rarely() {
        let file = Expected { claim: Claim::Sha256(Digest::of(b"x")), size: None };
        let (mut hopeless, mut now) = (Hopeless::default(), Instant::now());
        assert!(hopeless.is_worth_asking(file, now));
        let mut waits = Vec::new();
        for _ in 0..12 {
            hopeless.note(&[NotThere { file, problem: String::new(), is_wrong: false }], now, RETRY);
            let wait = (0..=24 * 60).map(Duration::from_mins).find(|wait| hopeless.is_worth_asking(file, now + *wait)).unwrap();
            waits.push(wait);
            now += wait;
        }
        assert_eq!(waits[..3], [RETRY, 2 * RETRY, 4 * RETRY]);
        assert_eq!(waits[11], LONGEST_RETRY);
    }
}
