//! When a remote is refreshed next.

use std::time::Duration;

/// The wait after the first failure; it doubles with each one after that, up to the interval.
const FIRST_RETRY: Duration = Duration::from_mins(1);

/// How long to wait for the next refresh, after so many failures in a row. `jitter` is a random number from 0 to 1: a
/// tenth of the wait is left to chance, so that the mirrors of a fleet do not ask all at once.
pub fn next_wait(interval: Duration, failures: u32, jitter: f64) -> Duration {
    let wait = match failures.checked_sub(1) {
        None => interval,
        Some(more) => FIRST_RETRY.saturating_mul(2_u32.saturating_pow(more)).min(interval),
    };
    wait.mul_f64(0.9 + 0.1 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::revalidation::schedule::next_wait;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn failures_are_tried_again_sooner_and_then_ever_later() {
        let waits = [0, 1, 2, 3, 30].map(|failures| next_wait(6 * HOUR, failures, 1.0).as_secs());
        assert_eq!(waits, [6 * 3600, 60, 120, 240, 6 * 3600]);
    }

    #[test]
    fn chance_moves_a_refresh_by_a_tenth() {
        assert_eq!(next_wait(HOUR, 0, 0.0).as_secs(), 3240);
        assert_eq!(next_wait(HOUR, 0, 7.0).as_secs(), 3600);
    }
}
