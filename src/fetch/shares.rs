//! Turns, so many for each: what one host, or the readers of one file, may take of what there is for all.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A turn, until it is dropped.
pub type Turn = OwnedSemaphorePermit;

/// So many turns for each key. Only keys that somebody has or waits for take memory.
#[derive(Debug)]
pub struct Shares<K> {
    each: usize,
    taken: Mutex<HashMap<K, Weak<Semaphore>>>,
}

impl<K: Eq + Hash> Shares<K> {
    /// So many turns for each.
    pub fn new(each: usize) -> Self {
        Self { each, taken: Mutex::default() }
    }

    /// A turn, if there is one now.
    pub fn try_take(&self, key: K) -> Option<Turn> {
        self.of(key).try_acquire_owned().ok()
    }

    /// A turn, if there is one before that time is over.
    pub async fn take(&self, key: K, patience: Duration) -> Option<Turn> {
        tokio::time::timeout(patience, self.of(key).acquire_owned()).await.ok()?.ok()
    }

    fn of(&self, key: K) -> Arc<Semaphore> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = taken.get(&key).and_then(Weak::upgrade) {
            return turns;
        }
        if taken.len() == taken.capacity() {
            // Before it grows it forgets those that nobody has.
            taken.retain(|_, turns| turns.strong_count() > 0);
        }
        let turns = Arc::new(Semaphore::new(self.each));
        taken.insert(key, Arc::downgrade(&turns));
        turns
    }
}

/// Whose share a host uses: its own, and over IPv6 that of its network, in which it can have any address (RFC 4291 §2.5.4).
pub fn holder(host: IpAddr) -> IpAddr {
    match host.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use crate::fetch::shares::{Shares, holder};

    #[test]
    fn each_has_its_share_and_what_nobody_has_is_forgotten() {
        let shares = Shares::new(2);
        let turns: Vec<_> = (0..2).filter_map(|_| shares.try_take(1)).collect();
        assert!(turns.len() == 2 && shares.try_take(1).is_none() && shares.try_take(2).is_some());
        drop(turns);
        assert!(shares.try_take(1).is_some());
        for key in 0..10_000 {
            drop(shares.try_take(key));
        }
        assert!(shares.taken.lock().unwrap().capacity() < 100);
    }

    #[test]
    fn a_host_is_known_by_its_address_or_its_network() {
        for (host, expected) in [("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")]
        {
            assert_eq!(holder(host.parse().unwrap()).to_string(), expected);
        }
    }
}
