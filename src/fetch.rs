//! Brings blobs in: one download each, however many hosts ask.
//!
//! A download belongs to the cache. It goes on when the host that began it leaves, it is resumed at the next URL when
//! one breaks, and it ends in a verified blob or in one error that every reader gets. There is no limit on how long it
//! may take, only on how long upstream may be silent.

pub mod allowance;
pub mod attempts;
pub mod download;
pub mod holding;
pub mod shares;
pub mod sink;
pub mod source;
pub mod writer;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::Boarding;
use crate::cache::error::FetchError;
use crate::cache::flight::Pilot;
use crate::cache::lease::Lent;
use crate::cache::reader::Reader;
use crate::digest::Expected;
use crate::fetch::download::{Download, Wanted};
use crate::fetch::shares::{Shares, Turn, holder};
use crate::fetch::sink::Means;
use crate::fetch::source::Source;

/// How a file is had.
#[derive(Debug)]
pub enum Found {
    /// It is held.
    Held(Lent),
    /// It is fetched for this reader.
    Fetched(Reader),
    /// It is fetched for somebody else already.
    Collapsed(Reader),
}

/// Why a file is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// It turned out lately that it cannot be had.
    #[error("it could not be had a moment ago: {0}")]
    Refused(FetchError),
    /// The disk does not say whether it is held.
    #[error("cannot read the store: {0}")]
    Disk(#[from] std::io::Error),
    /// Its host has begun as many downloads as it may.
    #[error("the host has begun as many downloads as it may")]
    Busy,
    /// It belongs to a remote that is not configured any more.
    #[error("its remote is not configured any more")]
    NoRemote,
}

/// Finds files, in the store or upstream.
#[derive(Debug)]
pub struct Fetcher {
    sources: ArcSwap<HashMap<Arc<str>, Arc<Source>>>,
    means: Arc<Means>,
    /// Downloads that hosts have begun.
    hosts: Shares<IpAddr>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Fetcher {
    /// A fetcher without remotes.
    pub fn new(means: Means) -> Self {
        let hosts = Shares::new(means.options.client_fetches);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Self { sources: ArcSwap::default(), means: Arc::new(means), hosts, tasks, stop }
    }

    /// Takes these remotes in the place of the ones before. Nobody is asked any more for one that is not among them; what is
    /// being sent already comes to its end, for hosts may be waiting for it.
    pub fn set_sources(&self, sources: HashMap<Arc<str>, Arc<Source>>) {
        let old = self.sources.swap(Arc::new(sources));
        let new = self.sources.load();
        old.iter().filter(|(name, _)| !new.contains_key(*name)).for_each(|(_, source)| source.close());
        for (name, source) in new.iter() {
            let urls = source.upstream().urls();
            if old.get(name).is_none_or(|before| before.upstream().urls() != urls) {
                self.means.cache.refusals().forget(name);
            }
        }
    }

    /// Finds a file for a reader that begins at byte `start`.
    pub async fn find(&self, wanted: &Wanted, start: u64) -> Result<Found, NotFound> {
        self.find_within(wanted, start, self.means.options.turn).await
    }

    /// The same, if the host has to wait no longer than that for a turn to begin a download.
    pub async fn find_within(&self, wanted: &Wanted, start: u64, patience: Duration) -> Result<Found, NotFound> {
        let cache = &self.means.cache;
        // Before the look, too: whoever adopts it in between would make it seem absent.
        let was_stranger = cache.is_stranger(wanted.expected);
        let joined =
            if was_stranger { cache.follow(wanted.expected, start).map(Found::Collapsed) } else { self.join(wanted, start).await? };
        if let Some(found) = joined {
            return Ok(found);
        }
        // What is here and has to be read first is a flight like a download: once for all who wait, whoever else can be asked.
        let is_here = was_stranger || cache.is_stranger(wanted.expected);
        let source = match self.askable(wanted) {
            Ok(source) => Some(source),
            Err(_) if is_here => None,
            Err(error) => return Err(error),
        };
        // Whoever waits for a turn has nothing begun yet, and so nobody waits for him.
        let turn = match self.turn(wanted.host, patience).await {
            Ok(turn) => turn,
            // Another host may have begun it, or ended it, meanwhile.
            Err(busy) => return self.join(wanted, start).await?.ok_or(busy),
        };
        match cache.board(wanted.expected, start) {
            Boarding::Following(reader) => Ok(Found::Collapsed(reader)),
            Boarding::Leading(reader, pilot) => {
                match source {
                    Some(source) => self.begin(wanted.clone(), source, pilot, turn),
                    None => self.adopt(wanted.expected, pilot, turn),
                }
                Ok(Found::Fetched(reader))
            }
        }
    }

    /// Who can be asked for a file, unless it turned out lately that it cannot be had.
    fn askable(&self, wanted: &Wanted) -> Result<Arc<Source>, NotFound> {
        if let Some(error) = self.means.cache.refusals().find(&wanted.place()) {
            return Err(NotFound::Refused(error));
        }
        let source = self.sources.load().get(&wanted.remote).cloned().ok_or(NotFound::NoRemote)?;
        if let Some(rest) = source.rest() {
            let reason = "it asked to be left alone".to_owned();
            return Err(NotFound::Refused(FetchError::Upstream { reason, retry_after: Some(rest) }));
        }
        Ok(source)
    }

    /// Reads a blob for a flight that nobody can bring in from elsewhere.
    fn adopt(&self, expected: Expected, pilot: Pilot, turn: Option<Turn>) {
        let (cache, stop) = (Arc::clone(&self.means.cache), self.stop.clone());
        self.tasks.spawn(async move {
            let adopted = stop.run_until_cancelled(cache.find_or_adopt(expected)).await;
            match adopted {
                Some(Ok(Some(blob))) => pilot.landed(blob),
                Some(Ok(None)) => pilot.failed(FetchError::Disk("its bytes were wrong, and there is nobody to have it from".to_owned())),
                Some(Err(error)) => pilot.failed(FetchError::Disk(error.to_string())),
                None => {}
            }
            cache.land(pilot.flight());
            drop(turn);
        });
    }

    /// Breaks off the downloads under way. What they have stays in partial files, to be gone on with.
    pub async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A file that is held, or that somebody fetches already.
    async fn join(&self, wanted: &Wanted, start: u64) -> Result<Option<Found>, NotFound> {
        let cache = &self.means.cache;
        if let Some(blob) = cache.find(wanted.expected).await? {
            return Ok(Some(Found::Held(blob)));
        }
        Ok(cache.follow(wanted.expected, start).map(Found::Collapsed))
    }

    /// A turn to begin a download, for a host that has not begun too many.
    async fn turn(&self, host: Option<IpAddr>, patience: Duration) -> Result<Option<Turn>, NotFound> {
        let Some(host) = host else { return Ok(None) };
        let turn = self.hosts.take(holder(host), patience).await;
        turn.map(Some).ok_or(NotFound::Busy)
    }

    fn begin(&self, wanted: Wanted, source: Arc<Source>, pilot: Pilot, turn: Option<Turn>) {
        let means = Arc::clone(&self.means);
        let stop = self.stop.clone();
        let (cache, flight) = (Arc::clone(&means.cache), Arc::clone(pilot.flight()));
        let download = Download::new(means, wanted, source, pilot);
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = download.run() => {}
            }
            // Also one that was given up is on its way no longer.
            cache.land(&flight);
            drop(turn);
        });
    }
}
