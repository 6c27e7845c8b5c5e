//! Waits until a file is held, for whoever has no host to send it to.

use std::time::Duration;

use crate::cache::error::FetchError;
use crate::cache::reader::Reader;
use crate::fetch::download::Wanted;
use crate::fetch::{Fetcher, Found, NotFound};

/// How long an image server may take to accept to send a file.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long to wait until all that lies in the store is counted.
const COUNTING_PATIENCE: Duration = Duration::from_mins(1);
/// A file that came with wrong bytes is asked for again so often at most: few remotes have more URLs.
const MOST_TRIES: usize = 8;
/// How often it is said how far a download is.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a file is not held.
#[derive(Debug, thiserror::Error)]
pub enum NotHeld {
    /// It is not to be had.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// It could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The store does not take it.
    #[error(
        "the store does not take it: there is no room (storage.capacity, storage.min_free), or the disk failed, and then the log says so"
    )]
    NoRoom,
    /// Nobody knows whether it would.
    #[error("the store is still being looked through, and until then nobody knows how much room there is")]
    Uncounted,
}

/// Waits until a file is held, and tells how many bytes are here; its size.
pub async fn hold(fetcher: &Fetcher, wanted: &Wanted, tell: impl Fn(u64)) -> Result<u64, NotHeld> {
    let cache = &fetcher.means.cache;
    if let Ok(Some(blob)) = cache.find(wanted.expected).await {
        return Ok(blob.size);
    }
    // No host waits: not through memory, then, while nobody knows how much room there is.
    tokio::time::timeout(COUNTING_PATIENCE, cache.books().counted()).await.map_err(|_| NotHeld::Uncounted)?;
    let mut wrong = None;
    for _ in 0..MOST_TRIES {
        match (hold_at_once(fetcher, wanted, &tell).await, wrong.take()) {
            // Another URL may have it right; when none has, it is refused.
            (Err(NotHeld::Fetch(error @ FetchError::Wrong(_))), _) => wrong = Some(error),
            (Err(NotHeld::NotFound(NotFound::Refused(_))), Some(error)) => return Err(error.into()),
            (outcome, _) => return outcome,
        }
    }
    Err(wrong.unwrap_or(FetchError::Vanished).into())
}

async fn hold_at_once(fetcher: &Fetcher, wanted: &Wanted, tell: impl Fn(u64)) -> Result<u64, NotHeld> {
    match fetcher.find(wanted, 0).await? {
        Found::Held(blob) => Ok(blob.size),
        Found::Fetched(reader) | Found::Collapsed(reader) => landed(reader, tell).await,
    }
}

/// Whoever waits no longer holds nobody up.
async fn landed(mut reader: Reader, tell: impl Fn(u64)) -> Result<u64, NotHeld> {
    reader.answered(PATIENCE).await?;
    loop {
        match tokio::time::timeout(PAUSE, reader.landed()).await {
            Err(_) => tell(reader.received()),
            Ok(landed) => return if landed? { Ok(reader.received()) } else { Err(NotHeld::NoRoom) },
        }
    }
}
