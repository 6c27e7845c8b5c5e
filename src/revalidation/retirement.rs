//! Which replaced documents are let go.

use std::time::Duration;

use jiff::Timestamp;

/// So many replaced snapshots of a remote are kept at most. An image server that publishes every minute would fill the
/// memory otherwise, and what it listed in between is mostly listed by the next one too.
pub const MOST: usize = 48;

/// The place of one snapshot to let go, if there is any: `accepted` are the times at which all were taken, the newest
/// first. One goes that was replaced longer than `grace` ago; if there are too many, the one that was current for the
/// shortest time, since the fewest hosts have seen it.
pub fn next_to_go(accepted: &[Timestamp], now: Timestamp, grace: Duration) -> Option<usize> {
    let is_over = |replaced: &Timestamp| replaced.checked_add(grace).is_ok_and(|over| over < now);
    let retired = 1..accepted.len();
    let oldest = retired.clone().rev().find(|place| is_over(&accepted[place - 1]));
    let shortest = || retired.clone().min_by_key(|place| accepted[place - 1].duration_since(accepted[*place]));
    oldest.or_else(|| shortest().filter(|_| retired.len() > MOST))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use crate::revalidation::retirement::{MOST, next_to_go};

    const GRACE: Duration = Duration::from_secs(100);

    fn next(accepted: &[i64], now: i64) -> Option<usize> {
        let at = |second: &i64| Timestamp::from_second(*second).unwrap();
        next_to_go(&accepted.iter().map(at).collect::<Vec<_>>(), at(&now), GRACE)
    }

    #[test]
    fn grace_begins_when_a_snapshot_is_replaced() {
        assert_eq!(next(&[], 1000), None);
        assert_eq!(next(&[5], 1000), None, "the newest stays, however old it is");
        assert_eq!(next(&[500, 5], 600), None);
        assert_eq!(next(&[500, 5], 601), Some(1));
        assert_eq!(next(&[550, 500, 5], 601), Some(2));
    }

    #[test]
    fn of_too_many_the_one_goes_that_was_current_for_the_shortest_time() {
        let mut accepted: Vec<i64> = (0..=i64::try_from(MOST).unwrap()).rev().map(|at| 1000 + at * 2).collect();
        assert_eq!(next(&accepted, 1000), None);
        accepted.insert(7, accepted[7] + 1);
        assert_eq!(next(&accepted, 1000), Some(7));
    }
}
