//! Takes in bytes that a command sends, on the one way by which anything comes into the store.

use std::sync::Arc;

use crate::cache::flight::Pilot;
use crate::cache::lease::Lent;
use crate::cache::{Boarding, Cache, blocking};
use crate::digest::{Claim, Digest, Expected};
use crate::fetch::allowance::Allowance;
use crate::fetch::writer::{Writer, Written};
use crate::library::error::LibraryError;
use crate::library::supply::Supply;
use crate::store::partial::NotCommitted;

/// So often is a file read that failed for what others did.
const MOST_ATTEMPTS: u32 = 3;

/// A file that somebody sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// What it is said to be.
    pub digest: Digest,
    /// How many bytes it is said to have.
    pub size: u64,
}

/// Takes in one file. What is held already is read past. What failed for what others left or sent is begun anew, where the bytes
/// can be had again.
pub async fn take(cache: &Arc<Cache>, remote: &Arc<str>, sent: Sent, supply: &mut Supply) -> Result<Lent, LibraryError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match try_to_take(cache, remote, sent, supply).await {
            Err(LibraryError::Leftover | LibraryError::SentByAnother(_)) if attempts < MOST_ATTEMPTS && supply.rewind() => {}
            taken => return taken,
        }
    }
}

async fn try_to_take(cache: &Arc<Cache>, remote: &Arc<str>, sent: Sent, supply: &mut Supply) -> Result<Lent, LibraryError> {
    let expected = Expected { claim: Claim::Sha256(sent.digest), size: Some(sent.size) };
    if let Some(blob) = cache.find(expected).await? {
        supply.skip(sent.size).await?;
        return Ok(blob);
    }
    match cache.board(expected, 0) {
        Boarding::Following(mut reader) => {
            supply.skip(sent.size).await?;
            reader.landed().await.map_err(|reason| LibraryError::SentByAnother(reason.to_string()))?;
            cache.find(expected).await?.ok_or(LibraryError::NoRoom)
        }
        Boarding::Leading(reader, pilot) => {
            let flight = Arc::clone(pilot.flight());
            let taken = write(cache, remote, expected, pilot, supply).await;
            cache.land(&flight);
            drop(reader);
            taken
        }
    }
}

/// Hands over what is sent, up to this size. Should the writing stop, whoever writes says why.
async fn pass_on(supply: &mut Supply, size: u64, writer: &mut Writer) -> Result<(), LibraryError> {
    while writer.len() < size {
        let bytes = supply.next(size - writer.len()).await?;
        if writer.send(vec![bytes]).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn write(cache: &Arc<Cache>, remote: &Arc<str>, expected: Expected, pilot: Pilot, supply: &mut Supply) -> Result<Lent, LibraryError> {
    let size = expected.size.unwrap_or_default();
    let store = Arc::clone(cache.store());
    let partial = blocking(move || store.partial(expected)).await?;
    cache.books().lost(partial.dropped());
    let left_over = partial.len();
    let mut allowance = Allowance::new(Arc::clone(cache.books()), left_over);
    pilot.opened(partial.file(), left_over);
    allowance.ensure(cache, size, Some(size)).await?;
    pilot.flowing(Some(size));
    // What was left of an attempt before is sent again, and is here already.
    supply.skip(left_over).await?;
    let pilot = Arc::new(pilot);
    let mut writer = Writer::start(partial, Arc::clone(&pilot));
    let sent = pass_on(supply, size, &mut writer).await;
    let Written { partial, refused } = writer.finish().await?;
    allowance.reached(partial.len());
    if let Some((error, _)) = refused {
        return Err(error.into());
    }
    sent?;
    let verified = match blocking(move || Ok(partial.verify())).await? {
        Ok(verified) => verified,
        Err(mismatch) => {
            pilot.gave_up(allowance.forfeit());
            return Err(if left_over > 0 { LibraryError::Leftover } else { LibraryError::NotSent(mismatch.to_string()) });
        }
    };
    pilot.verified(verified.digest(), verified.size());
    let (holder, remote) = (Arc::clone(cache), Arc::clone(remote));
    let blob = match blocking(move || Ok(holder.commit(&remote, expected, verified))).await? {
        Ok(blob) => blob,
        Err(NotCommitted::Lost(error)) => {
            pilot.gave_up(allowance.forfeit());
            return Err(error.into());
        }
        Err(NotCommitted::Unnamed(error)) => return Err(error.into()),
    };
    pilot.landed(blob.clone());
    Ok(blob)
}
