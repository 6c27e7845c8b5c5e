//! What is held, what is on its way, and what turned out not to be had.
//!
//! A blob is found by what its document claims of it. While it is fetched it is a [`flight::Flight`], which belongs to
//! the cache and not to the request that began it, and any number of readers follow it. Who fetches, and from where, is
//! decided above; nothing here knows of an upstream.

pub mod adoption;
pub mod begun;
pub mod books;
pub mod chunk;
pub mod current;
pub mod error;
pub mod eviction;
pub mod flight;
pub mod integrity;
pub mod lease;
pub mod news;
pub mod open;
pub mod reader;
pub mod reconcile;
pub mod refusals;
pub mod renamings;
pub mod restore;
pub mod ring;
pub mod scribe;
pub mod standing;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use moka::sync::Cache as Moka;
use tokio::sync::Semaphore;

use crate::cache::begun::Begun;
use crate::cache::books::{Books, Promise};
use crate::cache::current::Current;
use crate::cache::flight::{Flight, Pilot};
use crate::cache::lease::{Leases, Lent};
use crate::cache::news::News;
use crate::cache::open::OpenFiles;
use crate::cache::reader::Reader;
use crate::cache::refusals::Refusals;
use crate::cache::renamings::Renamings;
use crate::cache::standing::Standing;
use crate::clock::Clock;
use crate::digest::{Claim, Digest, Expected, Fingerprint};
use crate::disk::{Found, Space};
use crate::ledger::Ledger;
use crate::ledger::account::Limits;
use crate::metrics::Metrics;
use crate::retention::Rules;
use crate::store::Store;
use crate::store::blob::Blob;
use crate::store::facts;
use crate::store::partial::{NotCommitted, Verified};

/// The bounds of a cache.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How much may be held.
    pub limits: Limits,
    /// How many files are kept open for the next reader.
    pub open_files: u64,
    /// How long it is remembered that upstream has no such file.
    pub retry_gone: Duration,
    /// How long it is remembered that upstream sent wrong bytes.
    pub retry_wrong: Duration,
    /// What goes, and when.
    pub rules: Rules,
}

/// Blobs by what is claimed of them.
#[derive(Debug)]
pub struct Cache {
    store: Arc<Store>,
    books: Arc<Books>,
    leases: Arc<Leases>,
    current: Current,
    rules: ArcSwap<Rules>,
    open: OpenFiles,
    renamings: Renamings,
    refusals: Refusals,
    standing: Arc<Standing>,
    /// Blobs whose bytes are wrong and that could not be taken away.
    broken: Moka<Digest, ()>,
    /// Images that were taken away because their bytes were wrong.
    missed: Mutex<HashSet<Fingerprint>>,
    /// Images that are here and could not be recorded.
    unrecorded: Moka<Fingerprint, ()>,
    /// Turns to read strangers while hosts wait: small ones, and large ones.
    adopting: [Arc<Semaphore>; 2],
    begun: Begun,
    flights: Mutex<HashMap<Expected, Arc<Flight>>>,
    /// Held by whoever empties the trash, so that nothing is counted as lost twice.
    emptying: Mutex<()>,
    news: News,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// How a request comes to a blob that is not held.
#[derive(Debug)]
pub enum Boarding {
    /// It follows a fetch that is under way.
    Following(Reader),
    /// It is the first, and somebody has to fetch.
    Leading(Reader, Pilot),
}

/// The name of a blob may mean another file than the one that was opened.
struct Renamed;

/// So many blobs that the database did not know are read at once because hosts wait for them; other hosts wait for a turn.
const ADOPTING: usize = 2;
/// So often a blob is opened anew because others come and go.
const MOST_LOOKS: usize = 100;
/// How long a file stays open without being asked for.
const IDLE_FILE: Duration = Duration::from_mins(1);
/// How much is remembered of what went wrong.
const REMEMBERED: u64 = 65_536;

impl Cache {
    /// A cache over a store that holds this.
    pub fn new(store: Arc<Store>, ledger: Ledger, options: &Options, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        metrics.cache_limit.set(i64::try_from(options.limits.capacity_bytes).unwrap_or(i64::MAX));
        Self {
            books: Arc::new(Books::new(options.limits, ledger, Arc::clone(&metrics))),
            leases: Arc::default(),
            current: Current::default(),
            rules: ArcSwap::from_pointee(options.rules),
            store,
            renamings: Renamings::default(),
            open: OpenFiles::new(options.open_files, IDLE_FILE),
            refusals: Refusals::new(options.retry_gone, options.retry_wrong),
            standing: Arc::new(Standing::new(Arc::clone(&metrics))),
            broken: Moka::new(REMEMBERED),
            missed: Mutex::default(),
            unrecorded: Moka::new(REMEMBERED),
            adopting: [ADOPTING, ADOPTING].map(|turns| Arc::new(Semaphore::new(turns))),
            begun: Begun::default(),
            flights: Mutex::default(),
            emptying: Mutex::default(),
            news: News::default(),
            clock,
            metrics,
        }
    }

    /// What came in part.
    pub fn begun(&self) -> &Begun {
        &self.begun
    }

    /// The store below.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The metrics that it is counted in.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What it holds, and the room that is left.
    pub fn books(&self) -> &Arc<Books> {
        &self.books
    }

    /// What came and went.
    pub fn news(&self) -> &News {
        &self.news
    }

    /// What is served.
    pub fn current(&self) -> &Current {
        &self.current
    }

    /// What goes, and when.
    pub fn rules(&self) -> Rules {
        **self.rules.load()
    }

    /// Takes other rules.
    pub fn set_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// The time, no finer than it is written down.
    pub fn now(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    /// Notes that a host asked for a blob.
    pub fn used(&self, digest: Digest) {
        self.books.touch(digest, self.now());
    }

    /// Finds a blob that is held. An error means that nobody knows, and never that it is absent. A stranger has to be adopted
    /// first.
    pub async fn find(self: &Arc<Self>, expected: Expected) -> io::Result<Option<Lent>> {
        if let Some(blob) =
            self.digest(expected).and_then(|digest| self.open.get(digest)).filter(|blob| !blob.has_failed() && !blob.is_wrong())
        {
            return Ok(Some(blob).filter(|blob| expected.allows(blob.size)).map(|blob| self.leases.lend(blob)));
        }
        let cache = Arc::clone(self);
        blocking(move || cache.find_on_disk(expected)).await
    }

    /// The digest of a file, if its document or an earlier fetch told.
    pub fn digest(&self, expected: Expected) -> Option<Digest> {
        // Nearly every document does, and then nobody has to be asked.
        expected.digest().or_else(|| self.books.read(|ledger| ledger.digest_of(expected.claim)))
    }

    /// What a document may claim of the blob with this digest, if it is held: the digest itself, or what was learnt.
    pub fn claims(&self, digest: Digest) -> Vec<Claim> {
        self.books.read(|ledger| if ledger.blob(digest).is_some() { ledger.claims(digest).collect() } else { Vec::new() })
    }

    /// Finds a blob like [`Cache::find`], on a thread that may wait.
    pub fn find_on_disk(&self, expected: Expected) -> io::Result<Option<Lent>> {
        let Some(digest) = self.digest(expected) else { return Ok(None) };
        if self.broken.contains_key(&digest) {
            return Ok(None);
        }
        for _ in 0..MOST_LOOKS {
            let renamed = self.renamings.count(digest);
            let mut blob = self.store.blob(digest)?;
            if !self.correct(digest, blob.as_ref().map(|blob| blob.size))? {
                // It went, or came, meanwhile.
                blob = self.store.blob(digest)?;
            }
            // One of another size than its document says is damaged, or its document is wrong; either way it is fetched again, and
            // a good copy takes its place.
            let Some(blob) = blob.filter(|blob| expected.allows(blob.size)) else { return Ok(None) };
            if let Ok(given) = self.give(blob, renamed) {
                return Ok(given);
            }
        }
        Err(io::Error::other("the store changes faster than it can be looked at"))
    }

    /// Lends a blob that was opened after so many renamings; strangers, and those that were found to be wrong, to nobody. It
    /// waits for no disk, since every miss waits for this lock.
    fn give(&self, blob: Blob, renamed: u64) -> Result<Option<Lent>, Renamed> {
        let _flights = lock(&self.flights);
        let is_known = self.books.read(|ledger| ledger.blob(blob.digest).is_some() && !ledger.is_stranger(blob.digest));
        let is_good = is_known && !self.broken.contains_key(&blob.digest);
        // After that look: a commit, which does not wait for this lock, counts before it changes any of that.
        if self.renamings.count(blob.digest) != renamed {
            return Err(Renamed);
        }
        if !is_good {
            return Ok(None);
        }
        self.open.insert(blob.clone());
        Ok(Some(self.leases.lend(blob)))
    }

    /// Whether the store takes new files.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// What could not be had lately.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Whether an image is here and could not be recorded.
    pub fn is_unrecorded(&self, fingerprint: Fingerprint) -> bool {
        self.unrecorded.contains_key(&fingerprint)
    }

    /// Notes that an image is here and could not be recorded.
    pub fn note_unrecorded(&self, fingerprint: Fingerprint) {
        self.unrecorded.insert(fingerprint, ());
    }

    /// Forgets that: it is to be tried anew.
    pub fn forget_unrecorded(&self, fingerprint: Fingerprint) {
        self.unrecorded.invalidate(&fingerprint);
    }

    /// Joins the fetch of a blob, for a reader that begins at `start`, if there is one that it can join.
    pub fn follow(&self, expected: Expected, start: u64) -> Option<Reader> {
        lock(&self.flights).get(&expected).and_then(|flight| Reader::board(flight, start, &self.metrics))
    }

    /// Joins the fetch of a blob, for a reader that begins at `start`; or begins one. The reader has its place before
    /// the fetch can know that it has none.
    pub fn board(&self, expected: Expected, start: u64) -> Boarding {
        let mut flights = lock(&self.flights);
        if let Some(reader) = flights.get(&expected).and_then(|flight| Reader::board(flight, start, &self.metrics)) {
            return Boarding::Following(reader);
        }
        let flight = Arc::new(Flight::new(expected));
        flights.insert(expected, Arc::clone(&flight));
        let reader = Reader::first(&flight, start, &self.metrics);
        Boarding::Leading(reader, Pilot::new(flight, Arc::clone(&self.metrics)))
    }

    /// Takes a flight off the map, once whatever became of it can be found without it.
    pub fn land(&self, flight: &Arc<Flight>) {
        let mut flights = lock(&self.flights);
        if flights.get(&flight.expected()).is_some_and(|other| Arc::ptr_eq(other, flight)) {
            flights.remove(&flight.expected());
        }
    }

    /// Makes a verified file a blob that can be found. Waits for the disk.
    pub fn commit(&self, remote: &Arc<str>, expected: Expected, verified: Verified) -> Result<Lent, NotCommitted> {
        let digest = verified.digest();
        let committed = verified.commit();
        // Before anybody finds it, and also if only the last step failed.
        self.renamings.note(digest);
        let committed = committed.inspect_err(|error| {
            self.standing.refused(error.to_string());
            self.admit_anyway(remote, expected, digest);
        });
        let blob = self.leases.lend(committed?);
        // A good one has taken the place of whatever was there.
        self.broken.invalidate(&digest);
        if expected.digest().is_none()
            && let Err(error) = facts::learn(&**self.store.disk(), self.store.layout(), expected.claim, blob.digest)
        {
            tracing::warn!(%digest, %error, "what a file is called could not be noted; after a restart it is fetched again");
        }
        self.standing.took();
        self.open.insert(Blob::clone(&blob));
        self.admit(expected.claim, &blob);
        self.news.came(remote, expected);
        Ok(blob)
    }

    /// If only the last sync failed, the blob is there, and its bytes are counted: it is held for as long as it is there.
    fn admit_anyway(&self, remote: &Arc<str>, expected: Expected, digest: Digest) {
        if self.books.read(|ledger| ledger.blob(digest).is_none())
            && let Ok(Some(blob)) = self.store.blob(digest)
        {
            self.admit(expected.claim, &blob);
            self.news.came(remote, expected);
        }
    }

    /// Notes a blob that is held. The bytes of one that was there before are counted already, and count for as long as somebody
    /// reads them.
    fn admit(&self, claim: Claim, blob: &Blob) {
        let now = self.now();
        let before = self.books.change(|ledger| {
            ledger.learn(claim, blob.digest);
            ledger.admit(blob.digest, blob.size, now)
        });
        if let Some(before) = before {
            let mut room = Promise::none(Arc::clone(&self.books));
            room.becomes(0, before);
            self.leases.others(blob).take(room);
        }
    }

    /// Closes what nobody has asked for lately.
    pub fn close_idle_files(&self) {
        self.open.close_idle();
    }

    /// Has those remotes looked at anew that these blobs concern, and these themselves.
    fn tell(&self, digests: &[Digest], remotes: impl IntoIterator<Item = Arc<str>>) {
        let catalog = self.current.load();
        let claims: Vec<Claim> = self.books.read(|ledger| digests.iter().flat_map(|digest| ledger.claims(*digest)).collect());
        let concerned = claims.into_iter().flat_map(|claim| catalog.concerned_with(claim)).map(Arc::clone);
        self.news.concern(concerned.chain(remotes).collect());
    }

    /// Removes what was left of fetches that nobody came back for since `oldest`. Waits for the disk.
    pub fn sweep(&self, oldest: SystemTime) -> io::Result<()> {
        for partial in self.store.partials()? {
            if partial.modified < oldest {
                self.discard(&partial)?;
            }
        }
        self.empty_trash()
    }

    /// How many bytes are left of fetches that broke off. Waits for the disk.
    pub fn leftovers(&self) -> io::Result<u64> {
        let partials = self.store.partials()?;
        let flights = lock(&self.flights);
        let in_use: Vec<PathBuf> = flights.keys().map(|expected| self.store.layout().partial(*expected)).collect();
        Ok(partials.iter().filter(|partial| !in_use.contains(&partial.path)).map(|partial| partial.len).sum())
    }

    /// Whether somebody is bringing a blob in.
    pub fn is_coming(&self, expected: Expected) -> bool {
        lock(&self.flights).contains_key(&expected)
    }

    /// Takes a partial file away, unless a fetch has it. While it does, none can begin.
    fn discard(&self, partial: &Found) -> io::Result<()> {
        let flights = lock(&self.flights);
        let is_in_use = flights.keys().any(|expected| self.store.layout().partial(*expected) == partial.path);
        if !is_in_use {
            self.store.discard_partial(partial)?;
        }
        Ok(())
    }

    /// Looks at how much room the file system has.
    pub fn space(&self) -> io::Result<Space> {
        let space = self.store.space()?;
        self.metrics.filesystem_free.set(i64::try_from(space.free).unwrap_or(i64::MAX));
        Ok(space)
    }
}

/// Runs work that may wait for the disk where it delays nobody.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
