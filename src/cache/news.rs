//! What came and went, until those above have read it.
//!
//! Whoever brings news waits for nobody. What is not read has a bound, and nothing is lost by it: of what does not fit it is known
//! that there is more, and then everything is looked at.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::digest::Expected;

/// So many files wait one by one.
const MOST_FILES: usize = 4096;

/// What came and went and was not read yet.
#[derive(Debug, Default)]
pub struct News {
    unread: Mutex<Unread>,
    came: Notify,
}

/// What came and went since it was last asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Files that are held from now on, each with the remote that it was fetched for.
    pub files: Vec<(Arc<str>, Expected)>,
    /// Whether there are more of them than are named.
    pub is_more: bool,
    /// Remotes whose documents may be others now.
    pub remotes: BTreeSet<Arc<str>>,
}

impl News {
    /// A file came.
    pub fn came(&self, remote: &Arc<str>, file: Expected) {
        let mut unread = self.unread();
        if unread.files.len() < MOST_FILES {
            unread.files.push((Arc::clone(remote), file));
        } else {
            unread.is_more = true;
        }
        self.came.notify_one();
    }

    /// Something came or went that concerns these remotes.
    pub fn concern(&self, remotes: BTreeSet<Arc<str>>) {
        self.unread().remotes.extend(remotes);
        self.came.notify_one();
    }

    /// Waits for news. One task reads them.
    pub async fn read(&self) -> Unread {
        loop {
            let unread = std::mem::take(&mut *self.unread());
            if unread != Unread::default() {
                return unread;
            }
            self.came.notified().await;
        }
    }

    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::cache::news::{MOST_FILES, News};
    use crate::digest::{Claim, Digest, Expected};

    #[tokio::test]
    async fn what_does_not_fit_is_known_to_be_more_and_nobody_waits() {
        let (news, remote) = (News::default(), Arc::from("lab"));
        let file = |number: usize| Expected { claim: Claim::Sha256(Digest::of(&number.to_le_bytes())), size: None };
        for (files, is_more) in [(MOST_FILES, false), (MOST_FILES + 1, true), (1, false)] {
            (0..files).for_each(|number| news.came(&remote, file(number)));
            let unread = news.read().await;
            assert_eq!((unread.files.len(), unread.is_more), (files.min(MOST_FILES), is_more));
        }
        news.concern([Arc::clone(&remote)].into());
        news.concern([remote].into());
        assert_eq!(news.read().await.remotes.len(), 1);
    }
}
