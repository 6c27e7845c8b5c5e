//! A blob on its way: what its writer tells its readers.
//!
//! The writer publishes how far it got; readers read up to there, at their own speed, out of the partial file or out of
//! a ring in memory. Three things end it: *verified* releases the last byte, *committed* makes a hit, *failed* aborts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::cache::books::Promise;
use crate::cache::error::FetchError;
use crate::cache::lease::Lent;
use crate::cache::ring::Ring;
use crate::digest::{Digest, Expected};
use crate::disk::File;
use crate::metrics::Metrics;

/// A fetch that is under way, shared by its writer and its readers.
#[derive(Debug)]
pub struct Flight {
    expected: Expected,
    progress: watch::Sender<Progress>,
    cabin: Mutex<Cabin>,
    moved: Notify,
    began: Instant,
}

/// How far a flight is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What happens now.
    pub stage: Stage,
    /// So many bytes can be read.
    pub received: u64,
    /// How many there will be, by the document's word or upstream's.
    pub size: Option<u64>,
    /// Where they are; those from `in_file` on are in the ring.
    pub file: Option<File>,
    /// The room of that file if it was given up: it takes it until the last one who knows of that has closed it.
    pub given_up: Option<Arc<Promise>>,
    /// So many of them are in the file.
    pub in_file: u64,
    /// Whether it is known that no blob will come of it.
    pub is_lost: bool,
}

/// The stages of a flight, in their order.
#[derive(Clone, Debug)]
pub enum Stage {
    /// No upstream has accepted to send it yet.
    Asking,
    /// Bytes come in.
    Flowing,
    /// All are here and right.
    Verified(Digest),
    /// It was here already, or has become a blob.
    Landed(Lent),
    /// There will be no more.
    Failed(FetchError),
}

/// Those who read, and what they read when there is no file.
#[derive(Debug, Default)]
struct Cabin {
    seats: Vec<Arc<Seat>>,
    ring: Option<Ring>,
}

/// A reader's place.
#[derive(Debug)]
pub struct Seat {
    position: AtomicU64,
    /// Since when it could have moved on, in milliseconds of the flight.
    since: AtomicU64,
    is_left_behind: AtomicBool,
}

impl Flight {
    /// A flight whose writer has not begun.
    pub fn new(expected: Expected) -> Self {
        let (size, in_file) = (expected.size, u64::MAX);
        let progress = Progress { stage: Stage::Asking, received: 0, size, file: None, given_up: None, in_file, is_lost: false };
        Self { expected, progress: watch::Sender::new(progress), cabin: Mutex::default(), moved: Notify::new(), began: Instant::now() }
    }

    /// What it is to bring.
    pub fn expected(&self) -> Expected {
        self.expected
    }

    /// How far it is, from now on.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Takes a place for a reader that begins at `start`; `None` if what it needs is forgotten already, or it is over.
    pub fn take_seat(&self, start: u64) -> Option<Arc<Seat>> {
        let mut cabin = self.cabin();
        let is_over = matches!(self.progress.borrow().stage, Stage::Failed(_));
        if is_over || cabin.ring.as_ref().is_some_and(|ring| !ring.has_all_from(start)) {
            return None;
        }
        let (position, since) = (AtomicU64::new(start), AtomicU64::new(self.millis()));
        let seat = Arc::new(Seat { position, since, is_left_behind: AtomicBool::new(false) });
        cabin.seats.push(Arc::clone(&seat));
        Some(seat)
    }

    /// Gives a reader's place back.
    pub fn leave_seat(&self, seat: &Arc<Seat>) {
        self.cabin().seats.retain(|other| !Arc::ptr_eq(other, seat));
        self.moved.notify_one();
    }

    /// Bytes out of the ring.
    pub fn read_ring(&self, position: u64, len: usize) -> Bytes {
        self.cabin().ring.as_ref().map(|ring| ring.read(position, len)).unwrap_or_default()
    }

    /// Notes how far a reader got.
    pub fn moved(&self, seat: &Seat, position: u64) {
        seat.position.store(position, Ordering::Relaxed);
        seat.since.store(self.millis(), Ordering::Relaxed);
        self.moved.notify_one();
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn cabin(&self) -> MutexGuard<'_, Cabin> {
        self.cabin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Whether the others went on without this reader.
    pub fn is_left_behind(&self) -> bool {
        self.is_left_behind.load(Ordering::Relaxed)
    }
}

impl Progress {
    /// Whether all bytes are here and right.
    pub fn is_verified(&self) -> bool {
        matches!(self.stage, Stage::Verified(_) | Stage::Landed(_))
    }

    /// How far a response that ends at `end` may be sent. Its last byte waits until everything is verified, so that a
    /// host can see a short body and never a complete wrong one.
    pub fn readable(&self, end: Option<u64>) -> u64 {
        if self.is_verified() {
            return end.unwrap_or(self.received).min(self.received);
        }
        let last = end.unwrap_or(self.received).saturating_sub(1);
        self.received.min(last)
    }
}

/// The writer's side of a flight. If it is dropped before the end, its readers get an error.
#[derive(Debug)]
pub struct Pilot {
    flight: Arc<Flight>,
    metrics: Arc<Metrics>,
}

impl Pilot {
    /// Takes over a flight.
    pub fn new(flight: Arc<Flight>, metrics: Arc<Metrics>) -> Self {
        metrics.fetches_in_flight.inc();
        Self { flight, metrics }
    }

    /// The flight.
    pub fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// How many bytes there will be, if anybody said so.
    pub fn size(&self) -> Option<u64> {
        self.flight.progress.borrow().size
    }

    /// Where the bytes will be, and how many are there already.
    pub fn opened(&self, file: &File, received: u64) {
        self.flight.progress.send_modify(|progress| {
            progress.file = Some(file.clone());
            progress.received = received;
        });
    }

    /// The file with what came so far was removed, and takes this room until its readers have closed it.
    pub fn gave_up(&self, room: Promise) {
        self.flight.progress.send_modify(|progress| progress.given_up = Some(Arc::new(room)));
    }

    /// An upstream accepted to send it; `size` is what it says, if the document does not.
    pub fn flowing(&self, size: Option<u64>) {
        self.flight.progress.send_modify(|progress| {
            progress.size = progress.size.or(size);
            if matches!(progress.stage, Stage::Asking) {
                progress.stage = Stage::Flowing;
            }
        });
    }

    /// So many bytes are in the file now.
    pub fn received(&self, received: u64) {
        self.flight.progress.send_modify(|progress| progress.received = received);
    }

    /// From the byte `first` on, bytes go through a ring of `capacity` bytes.
    pub fn open_ring(&self, first: u64, capacity: u64) {
        self.flight.cabin().ring = Some(Ring::new(first, capacity));
        self.flight.progress.send_modify(|progress| {
            progress.in_file = first;
            progress.is_lost = true;
        });
    }

    /// Puts bytes into the ring. Waits while it is full, and leaves behind whoever is slowest and has not moved for `patience`. An
    /// error means that nobody reads any more.
    pub async fn push(&self, chunk: Bytes, patience: Duration) -> Result<(), FetchError> {
        let len = chunk.len() as u64;
        // Others may move while the slowest does not: only its own moves give it more time. Of several that have stopped each was
        // waited for together with the first.
        while let Some(since) = self.try_push(&chunk)? {
            let until = self.flight.began + Duration::from_millis(since) + patience;
            if tokio::time::timeout_at(until, self.flight.moved.notified()).await.is_err() {
                self.leave_slowest_behind();
            }
        }
        self.flight.progress.send_modify(|progress| progress.received += len);
        Ok(())
    }

    /// Puts bytes into the ring if they fit; otherwise says since when the slowest reader could have moved on.
    fn try_push(&self, chunk: &Bytes) -> Result<Option<u64>, FetchError> {
        let now = self.flight.millis();
        let Cabin { seats, ring } = &mut *self.flight.cabin();
        let slowest = seats.iter().min_by_key(|seat| seat.position.load(Ordering::Relaxed)).ok_or(FetchError::Abandoned)?;
        let (position, since) = (slowest.position.load(Ordering::Relaxed), slowest.since.load(Ordering::Relaxed));
        let ring = ring.get_or_insert_with(|| Ring::new(0, 0));
        // What everybody has is kept while there is room: a reader who comes later can share it.
        if !ring.has_room(chunk.len()) {
            ring.forget_before(position);
        }
        if !ring.has_room(chunk.len()) {
            return Ok(Some(since));
        }
        // Whoever has everything so far had nothing to take until now.
        let waiting = seats.iter().filter(|seat| seat.position.load(Ordering::Relaxed) >= ring.end());
        waiting.for_each(|seat| seat.since.store(now, Ordering::Relaxed));
        ring.push(chunk.clone());
        Ok(None)
    }

    fn leave_slowest_behind(&self) {
        let slowest = {
            let seats = &mut self.flight.cabin().seats;
            let slowest = seats.iter().enumerate().min_by_key(|(_, seat)| seat.position.load(Ordering::Relaxed)).map(|(place, _)| place);
            slowest.map(|place| seats.swap_remove(place))
        };
        slowest.into_iter().for_each(|seat| seat.is_left_behind.store(true, Ordering::Relaxed));
        // The reader may wait for progress that does not come while the ring is full.
        self.flight.progress.send_modify(|_| {});
    }

    /// All bytes are here and right.
    pub fn verified(&self, digest: Digest, size: u64) {
        self.flight.progress.send_modify(|progress| {
            progress.size = Some(size);
            progress.received = size;
            progress.stage = Stage::Verified(digest);
        });
    }

    /// The blob can be found from now on.
    pub fn landed(&self, blob: Lent) {
        self.flight.progress.send_modify(|progress| {
            progress.size = Some(blob.size);
            progress.received = blob.size;
            progress.in_file = u64::MAX;
            progress.file = Some(blob.file().clone());
            progress.stage = Stage::Landed(blob);
        });
    }

    /// There will be no more, and nobody reads what came. What was verified stays so.
    pub fn failed(&self, error: FetchError) {
        let mut unread = (None, None);
        self.flight.progress.send_modify(|progress| {
            if !progress.is_verified() {
                progress.stage = Stage::Failed(error);
                unread = (progress.file.take(), progress.given_up.take());
            }
        });
        // The file first, and its room then. Whoever closes a file without a name waits until it is gone.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(unread))),
            Err(_) => drop(unread),
        }
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        self.metrics.fetches_in_flight.dec();
        let is_under_way = matches!(self.flight.progress.borrow().stage, Stage::Asking | Stage::Flowing);
        if is_under_way {
            self.failed(FetchError::Vanished);
        }
        self.flight.progress.send_modify(|progress| progress.is_lost |= !matches!(progress.stage, Stage::Landed(_)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;

    use crate::cache::books::Books;
    use crate::cache::error::FetchError;
    use crate::cache::flight::{Flight, Pilot};
    use crate::digest::{Claim, Digest, Expected};
    use crate::disk::{Disk as _, OsDisk};
    use crate::ledger::Ledger;
    use crate::ledger::account::Limits;
    use crate::metrics::Metrics;

    const LIMITS: Limits = Limits { capacity_bytes: 100, min_free_bytes: 0 };

    fn books() -> Arc<Books> {
        Arc::new(Books::new(LIMITS, Ledger::default(), Arc::default()))
    }

    /// A flight whose file was removed, and its room.
    fn given_up(books: &Arc<Books>, folder: &std::path::Path) -> Pilot {
        let expected = Expected { claim: Claim::Sha256(Digest::of(b"1")), size: None };
        let pilot = Pilot::new(Arc::new(Flight::new(expected)), Arc::<Metrics>::default());
        pilot.opened(&OsDisk.create(&folder.join("partial")).unwrap(), 10);
        pilot.gave_up(books.promise(80, u64::MAX).unwrap());
        pilot
    }

    fn taken(books: &Books) -> u64 {
        books.need(LIMITS.capacity_bytes, u64::MAX).least
    }

    #[test]
    fn the_room_of_a_file_that_was_given_up_is_free_when_its_last_reader_has_closed_it() {
        let (books, folder) = (books(), tempfile::tempdir().unwrap());
        let pilot = given_up(&books, folder.path());
        let (reader, other) = (pilot.flight().watch(), pilot.flight().watch());
        let reading = reader.borrow().clone();
        drop((pilot, reader));
        assert_eq!(taken(&books), 80, "what was read in that moment");
        drop(reading);
        assert_eq!((taken(&books), other.borrow().file.is_none()), (0, true), "nobody else reads it");
    }

    #[test]
    fn what_was_verified_is_read_to_its_end() {
        let (books, folder) = (books(), tempfile::tempdir().unwrap());
        let pilot = given_up(&books, folder.path());
        let reader = pilot.flight().watch();
        pilot.verified(Digest::of(b"1"), 10);
        pilot.failed(FetchError::Vanished);
        drop(pilot);
        assert_eq!((taken(&books), reader.borrow().file.is_some()), (80, true));
        drop(reader);
        assert_eq!(taken(&books), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_had_nothing_to_take_has_all_its_time_when_something_comes() {
        const PATIENCE: Duration = Duration::from_secs(1);
        let expected = Expected { claim: Claim::Sha256(Digest::of(b"1")), size: None };
        let pilot = Pilot::new(Arc::new(Flight::new(expected)), Arc::<Metrics>::default());
        let seat = pilot.flight().take_seat(0).unwrap();
        pilot.open_ring(0, 4);
        tokio::time::sleep(10 * PATIENCE).await;
        pilot.push(Bytes::from_static(b"abc"), PATIENCE).await.unwrap();
        let moves = async {
            tokio::time::sleep(PATIENCE / 2).await;
            pilot.flight().moved(&seat, 3);
        };
        let (pushed, ()) = tokio::join!(pilot.push(Bytes::from_static(b"def"), PATIENCE), moves);
        assert!(pushed.is_ok() && !seat.is_left_behind());
        assert!(pilot.push(Bytes::from_static(b"ghi"), PATIENCE).await.is_err() && seat.is_left_behind(), "and then no more");
    }
}
