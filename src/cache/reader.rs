//! One host's way through a flight.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::cache::books::Promise;
use crate::cache::chunk::Chunks;
use crate::cache::error::FetchError;
use crate::cache::flight::{Flight, Progress, Seat, Stage};
use crate::disk::File;
use crate::metrics::Metrics;

/// Reads a flight from some byte on, as fast as its host takes it.
#[derive(Debug)]
pub struct Reader {
    flight: Arc<Flight>,
    progress: watch::Receiver<Progress>,
    seat: Arc<Seat>,
    position: u64,
    end: Option<u64>,
    /// The last byte, which waits here until everything is verified: what a range needs may be forgotten meanwhile.
    last: Option<Bytes>,
    chunks: Chunks,
    metrics: Arc<Metrics>,
}

/// Where the next bytes of a flight are.
#[derive(Debug)]
pub enum Whereabouts {
    /// There in its file.
    File(Opened, Range<u64>),
    /// In memory, since there is no file or it is the last byte.
    Memory(Bytes),
}

/// A file that is being read, with its room if it was given up: that is free when the file is closed, and not before.
#[derive(Clone, Debug)]
pub struct Opened {
    file: File,
    _room: Option<Arc<Promise>>,
}

impl Deref for Opened {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Reader {
    /// Joins a flight; `None` if it has not got what a reader from `start` on needs.
    pub fn board(flight: &Arc<Flight>, start: u64, metrics: &Arc<Metrics>) -> Option<Self> {
        flight.take_seat(start).map(|seat| Self::seated(flight, seat, start, metrics))
    }

    /// The first reader of a new flight.
    pub fn first(flight: &Arc<Flight>, start: u64, metrics: &Arc<Metrics>) -> Self {
        let seat = flight.take_seat(start).expect("a flight that has not begun has forgotten nothing");
        Self::seated(flight, seat, start, metrics)
    }

    fn seated(flight: &Arc<Flight>, seat: Arc<Seat>, position: u64, metrics: &Arc<Metrics>) -> Self {
        metrics.fetch_readers.inc();
        Self {
            flight: Arc::clone(flight),
            progress: flight.watch(),
            seat,
            position,
            end: None,
            last: None,
            chunks: Chunks::default(),
            metrics: Arc::clone(metrics),
        }
    }

    /// Waits until an upstream has accepted to send the file, or none has: the size of the file, if that is known.
    pub async fn answered(&mut self, patience: Duration) -> Result<Option<u64>, FetchError> {
        let answered = self.progress.wait_for(|progress| !matches!(progress.stage, Stage::Asking));
        let progress = tokio::time::timeout(patience, answered).await.map_err(|_| FetchError::TimedOut)?;
        let progress = progress.map_err(|_| FetchError::Vanished)?;
        match &progress.stage {
            Stage::Failed(error) => Err(error.clone()),
            _ => Ok(progress.size),
        }
    }

    /// Waits until the whole file is verified; its size.
    pub async fn verified(&mut self) -> Result<u64, FetchError> {
        let ended = |progress: &Progress| progress.is_verified() || matches!(progress.stage, Stage::Failed(_));
        let progress = self.progress.wait_for(ended).await.map_err(|_| FetchError::Vanished)?;
        match &progress.stage {
            Stage::Failed(error) => Err(error.clone()),
            _ => Ok(progress.received),
        }
    }

    /// Waits until the file is held, or until it is known that it will not be; whether it is.
    pub async fn landed(&mut self) -> Result<bool, FetchError> {
        let ended = |progress: &Progress| progress.is_lost || matches!(progress.stage, Stage::Landed(_) | Stage::Failed(_));
        let progress = self.progress.wait_for(ended).await.map_err(|_| FetchError::Vanished)?;
        match &progress.stage {
            Stage::Failed(error) => Err(error.clone()),
            stage => Ok(matches!(stage, Stage::Landed(_))),
        }
    }

    /// How many bytes are here.
    pub fn received(&self) -> u64 {
        self.progress.borrow().received
    }

    /// Whether the bytes go to the disk, as far as is known yet.
    pub fn is_stored(&self) -> bool {
        self.progress.borrow().in_file == u64::MAX
    }

    /// Reads these bytes instead of the whole file.
    pub fn select(&mut self, range: Range<u64>) {
        self.position = self.position.max(range.start);
        self.end = Some(range.end);
        self.flight.moved(&self.seat, self.position);
    }

    /// The next bytes, `max` at most; `None` after the last one, which comes when the whole file is verified.
    pub async fn next(&mut self, max: usize) -> Option<Result<Bytes, FetchError>> {
        match self.whereabouts(max).await? {
            Ok(Whereabouts::File(file, range)) => Some(self.read(&file, range, max).await),
            Ok(Whereabouts::Memory(bytes)) => Some(Ok(bytes)),
            Err(error) => Some(Err(error)),
        }
    }

    /// Where the next bytes are; those in memory are `max` at most, and taken with that. `None` after the last one, as above.
    pub async fn whereabouts(&mut self, max: usize) -> Option<Result<Whereabouts, FetchError>> {
        loop {
            let progress = self.progress.borrow_and_update().clone();
            match self.step(&progress) {
                Step::Over => return None,
                Step::Failed(error) => return Some(Err(error)),
                Step::Read(limit) => return Some(self.find(&progress, limit, max)),
                Step::TakeLast => match self.take_last(&progress).await {
                    Ok(()) => continue,
                    Err(error) => return Some(Err(error)),
                },
                Step::GiveLast => return self.last.take().map(|last| Ok(Whereabouts::Memory(last))),
                Step::Wait => {}
            }
            if self.progress.changed().await.is_err() {
                return Some(Err(FetchError::Vanished));
            }
        }
    }

    /// How many bytes are left, if that is known.
    pub fn left(&self) -> Option<u64> {
        self.end.map(|end| end.saturating_sub(self.position) + u64::from(self.last.is_some()))
    }

    /// Notes that the file cannot be read: if it became a blob, it is none any more.
    pub fn note_failure(&self) {
        if let Stage::Landed(blob) = &self.progress.borrow().stage {
            blob.note_failure();
        }
    }

    /// Notes that so many bytes of those in the file were taken.
    pub fn advance(&mut self, bytes: u64) {
        self.position += bytes;
        self.flight.moved(&self.seat, self.position);
    }

    fn step(&self, progress: &Progress) -> Step {
        let end = self.end.or(progress.size);
        let limit = progress.readable(end);
        if let Stage::Failed(error) = &progress.stage {
            Step::Failed(error.clone())
        } else if matches!(&progress.stage, Stage::Landed(blob) if blob.is_broken()) {
            Step::Failed(FetchError::Broken)
        } else if self.seat.is_left_behind() {
            Step::Failed(FetchError::TooSlow)
        } else if self.position < limit {
            Step::Read(limit)
        } else if progress.is_verified() {
            if self.last.is_some() { Step::GiveLast } else { Step::Over }
        } else if end.is_some_and(|end| self.position + 1 == end && progress.received >= end) {
            Step::TakeLast
        } else {
            Step::Wait
        }
    }

    /// Finds the bytes up to `limit`, which are there.
    fn find(&mut self, progress: &Progress, limit: u64, max: usize) -> Result<Whereabouts, FetchError> {
        if let Some(file) = progress.file.as_ref().filter(|_| self.position < progress.in_file) {
            let opened = Opened { file: file.clone(), _room: progress.given_up.clone() };
            return Ok(Whereabouts::File(opened, self.position..limit.min(progress.in_file)));
        }
        let bytes = self.flight.read_ring(self.position, usize::try_from(limit - self.position).unwrap_or(max).min(max));
        self.take(bytes).map(Whereabouts::Memory)
    }

    async fn read(&mut self, file: &File, range: Range<u64>, max: usize) -> Result<Bytes, FetchError> {
        let len = usize::try_from(range.end - range.start).unwrap_or(max).min(max);
        let read = self.chunks.read(file, range.start, len).await.inspect_err(|_| self.note_failure());
        self.take(read.map_err(|error| FetchError::Disk(error.to_string()))?)
    }

    fn take(&mut self, bytes: Bytes) -> Result<Bytes, FetchError> {
        if bytes.is_empty() {
            return Err(FetchError::Vanished);
        }
        self.advance(bytes.len() as u64);
        Ok(bytes)
    }

    /// Takes the last byte, and needs nothing of the file any more.
    async fn take_last(&mut self, progress: &Progress) -> Result<(), FetchError> {
        let last = match self.find(progress, self.position + 1, 1)? {
            Whereabouts::File(file, range) => self.read(&file, range, 1).await?,
            Whereabouts::Memory(last) => last,
        };
        self.last = Some(last);
        self.flight.moved(&self.seat, u64::MAX);
        Ok(())
    }
}

enum Step {
    Read(u64),
    TakeLast,
    GiveLast,
    Wait,
    Over,
    Failed(FetchError),
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.metrics.fetch_readers.dec();
        self.flight.leave_seat(&self.seat);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::cache::books::Books;
    use crate::cache::flight::{Flight, Pilot};
    use crate::cache::reader::{Reader, Whereabouts};
    use crate::digest::{Claim, Digest, Expected};
    use crate::disk::{Disk as _, OsDisk};
    use crate::ledger::Ledger;
    use crate::ledger::account::Limits;
    use crate::metrics::Metrics;

    /// A disk may take its time with what was found, and the fetch may end meanwhile.
    #[tokio::test]
    async fn the_room_of_a_file_that_was_given_up_is_taken_while_somebody_looks_at_it() {
        let limits = Limits { capacity_bytes: 100, min_free_bytes: 0 };
        let books = Arc::new(Books::new(limits, Ledger::default(), Arc::default()));
        let taken = || books.need(limits.capacity_bytes, u64::MAX).least;
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::<Metrics>::default();
        let expected = Expected { claim: Claim::Sha256(Digest::of(b"1")), size: None };
        let pilot = Pilot::new(Arc::new(Flight::new(expected)), Arc::clone(&metrics));
        pilot.opened(&OsDisk.create(&folder.path().join("partial")).unwrap(), 10);
        pilot.gave_up(books.promise(80, u64::MAX).unwrap());
        let mut reader = Reader::first(pilot.flight(), 0, &metrics);
        let found = reader.whereabouts(usize::MAX).await.unwrap().unwrap();
        assert!(matches!(&found, Whereabouts::File(_, range) if *range == (0..9)));
        drop(pilot);
        // The file of all who do not look at it is closed beside.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(taken(), 80);
        drop(found);
        assert_eq!(taken(), 0);
    }
}
