//! How much room the store has and who has spoken for it.
//!
//! Bytes are either held (under `blobs/`, or in a partial file) or promised to a fetch that is under way. A promise is
//! made before the first byte is written, so that many fetches at once cannot go over the limit together.

/// The limits of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most that the store may hold.
    pub capacity_bytes: u64,
    /// What the file system must keep free for others.
    pub min_free_bytes: u64,
}

/// Why a fetch gets no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The store would go over its capacity.
    #[error("{wanted} bytes more would go over storage.capacity ({capacity} bytes, {taken} of them taken)")]
    Capacity {
        /// What was asked for.
        wanted: u64,
        /// What is held or promised.
        taken: u64,
        /// The limit.
        capacity: u64,
    },
    /// The file system would go below `storage.min_free`.
    #[error("{wanted} bytes more would leave less than storage.min_free ({min_free} bytes) of the {free} bytes that are free")]
    FileSystem {
        /// What was asked for.
        wanted: u64,
        /// What the file system has left.
        free: u64,
        /// The limit.
        min_free: u64,
    },
}

/// What is held and what is promised, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    held: u64,
    promised: u64,
    /// The part of what is promised for which the file system has not set room aside.
    unreserved: u64,
}

impl Account {
    /// An account of a store that holds so much already.
    pub fn new(held: u64) -> Self {
        Self { held, promised: 0, unreserved: 0 }
    }

    /// What is held.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Promises `wanted` bytes, if they fit. `free` is what the file system has left, promises not yet written included.
    pub fn promise(&mut self, wanted: u64, free: u64, limits: &Limits) -> Result<(), NoRoom> {
        let taken = self.held.saturating_add(self.promised);
        if taken.saturating_add(wanted) > limits.capacity_bytes {
            return Err(NoRoom::Capacity { wanted, taken, capacity: limits.capacity_bytes });
        }
        let unspoken = free.saturating_sub(self.unreserved);
        if wanted.saturating_add(limits.min_free_bytes) > unspoken {
            return Err(NoRoom::FileSystem { wanted, free: unspoken, min_free: limits.min_free_bytes });
        }
        self.promised += wanted;
        self.unreserved += wanted;
        Ok(())
    }

    /// How many bytes are too many for `wanted` more to fit.
    pub fn shortage(&self, wanted: u64, free: u64, limits: &Limits) -> u64 {
        let taken = self.held.saturating_add(self.promised).saturating_add(wanted);
        let unspoken = free.saturating_sub(self.unreserved);
        let left = wanted.saturating_add(limits.min_free_bytes);
        taken.saturating_sub(limits.capacity_bytes).max(left.saturating_sub(unspoken))
    }

    /// Notes that the file system has set aside so many of the promised bytes: they are not free any more.
    pub fn reserve(&mut self, bytes: u64) {
        self.unreserved = self.unreserved.saturating_sub(bytes);
    }

    /// Ends a promise of `promised` bytes, `unreserved` of them without room set aside; `held` are in the store now.
    pub fn settle(&mut self, promised: u64, unreserved: u64, held: u64) {
        self.promised = self.promised.saturating_sub(promised);
        self.unreserved = self.unreserved.saturating_sub(unreserved);
        self.held = self.held.saturating_add(held);
    }

    /// Notes that so many bytes left the store.
    pub fn release(&mut self, bytes: u64) {
        self.held = self.held.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use crate::ledger::account::{Account, Limits, NoRoom};

    const LIMITS: Limits = Limits { capacity_bytes: 100, min_free_bytes: 10 };

    /// T23
    #[test]
    fn promises_count_as_if_they_were_held() {
        let mut account = Account::new(50);
        assert_eq!(account.promise(30, 1000, &LIMITS), Ok(()));
        assert_eq!(account.promise(21, 1000, &LIMITS), Err(NoRoom::Capacity { wanted: 21, taken: 80, capacity: 100 }));
        assert_eq!(account.promise(20, 1000, &LIMITS), Ok(()));
        account.settle(30, 30, 30);
        account.settle(20, 20, 0);
        assert_eq!(account, Account { held: 80, promised: 0, unreserved: 0 });
    }

    #[test]
    fn the_file_systems_reserve_is_never_eaten() {
        let mut account = Account::new(0);
        assert_eq!(account.promise(20, 30, &LIMITS), Ok(()));
        assert_eq!(account.promise(1, 30, &LIMITS), Err(NoRoom::FileSystem { wanted: 1, free: 10, min_free: 10 }));
        account.reserve(20);
        assert_eq!(account.promise(1, 11, &LIMITS), Ok(()), "what is set aside is not counted twice");
    }

    #[test]
    fn what_is_short_is_what_would_have_to_go_first() {
        let mut account = Account::new(80);
        assert_eq!(account.shortage(20, 1000, &LIMITS), 0);
        assert_eq!(account.shortage(25, 1000, &LIMITS), 5, "of the capacity");
        assert_eq!(account.shortage(20, 25, &LIMITS), 5, "of the file system, for min_free is never eaten");
        account.promise(20, 1000, &LIMITS).unwrap();
        assert_eq!(account.shortage(1, 31, &LIMITS), 1, "promises count");
    }

    proptest! {
        #[test]
        fn no_order_of_events_goes_over_the_capacity(events in proptest::collection::vec((0_u64..60, any::<bool>()), 0..50)) {
            let mut account = Account::new(0);
            let mut promises = Vec::new();
            for (bytes, begins) in events {
                if begins && account.promise(bytes, u64::MAX, &LIMITS).is_ok() {
                    promises.push(bytes);
                } else if let Some(promised) = promises.pop() {
                    account.settle(promised, promised, promised);
                }
                assert!(account.held + account.promised <= LIMITS.capacity_bytes);
            }
        }
    }
}
