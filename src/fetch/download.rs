//! One download, from the first question to the blob.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};

use bytes::Bytes;
use tokio::time::Instant;

use crate::cache::blocking;
use crate::cache::error::FetchError;
use crate::cache::flight::Pilot;
use crate::cache::refusals::Place;
use crate::digest::{Expected, Hasher, Mismatch};
use crate::fetch::allowance::Allowance;
use crate::fetch::attempts::{Attempts, Fault, accept};
use crate::fetch::sink::{Aside, Means, Sink, Whole, give_up, leave_aside};
use crate::fetch::source::Source;
use crate::fetch::writer::{self, Batch};
use crate::http::path::StreamPath;
use crate::simplestreams::file::ListedFile;
use crate::store::partial::{NotCommitted, Partial};
use crate::upstream::{Answer, Failure, Kind, Request};

/// How much is gathered before it is written and readers are told; less when upstream pauses.
const BATCH_BYTES: u64 = 256 * 1024;

/// What an upstream sends.
type Body = BoxStream<'static, Result<Bytes, Failure>>;

/// A file that is to be had.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// From which remote.
    pub remote: Arc<str>,
    /// Its path there.
    pub path: StreamPath,
    /// What its document claims of it.
    pub expected: Expected,
    /// The host that asks for it; nobody, if it is fetched ahead of requests.
    pub host: Option<IpAddr>,
}

impl Wanted {
    /// A file that a remote lists.
    pub fn of(remote: &Arc<str>, file: &ListedFile) -> Self {
        Self { remote: Arc::clone(remote), path: file.path.clone(), expected: file.expected, host: None }
    }

    /// What is remembered of it, if it cannot be had.
    pub fn place(&self) -> Place {
        (Arc::clone(&self.remote), self.path.clone(), self.expected)
    }
}

/// Why one attempt did not bring the rest of a file.
enum Ended {
    /// Another one may.
    Fault(Fault),
    /// No other one will.
    Error(FetchError),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<FetchError> for Ended {
    fn from(error: FetchError) -> Self {
        Self::Error(error)
    }
}

/// A download that has its flight.
#[derive(Debug)]
pub struct Download {
    means: Arc<Means>,
    wanted: Wanted,
    source: Arc<Source>,
    pilot: Arc<Pilot>,
    /// The URL that sent bytes last, and its entity tag.
    last: Option<(usize, Option<String>)>,
    /// All that did, in the order of their first bytes.
    senders: Vec<usize>,
    began: Instant,
}

impl Download {
    /// A download for a flight that nobody else brings in.
    pub fn new(means: Arc<Means>, wanted: Wanted, source: Arc<Source>, pilot: Pilot) -> Self {
        Self { means, wanted, source, pilot: Arc::new(pilot), last: None, senders: Vec::new(), began: Instant::now() }
    }

    /// Brings the file in. The flight leaves the map when its outcome can be found without it.
    pub async fn run(mut self) {
        if let Err(error) = self.fly().await {
            let Wanted { remote, path, .. } = &self.wanted;
            tracing::warn!(%remote, %path, %error, "a file could not be fetched");
            // Another URL may have what one sent wrong.
            if !matches!(error, FetchError::Wrong(_)) || self.source.has_only_wrong(self.wanted.expected, self.began, self.lately()) {
                self.means.cache.refusals().note(self.wanted.place(), &error);
            }
            if error == FetchError::Gone {
                drop(self.means.gone.try_send(Arc::clone(remote)));
            }
            self.pilot.failed(error);
        }
        self.means.cache.land(self.pilot.flight());
    }

    async fn fly(&mut self) -> Result<(), FetchError> {
        if self.is_here_already().await? {
            return Ok(());
        }
        let turns = Arc::clone(&self.means.fetches);
        let turn = tokio::time::timeout(self.means.options.turn, turns.acquire_owned()).await;
        let _turn = turn.ok().and_then(Result::ok).ok_or(FetchError::Busy)?;
        let mut sink = Sink::open(Arc::clone(&self.means), Arc::clone(&self.pilot), self.wanted.expected).await?;
        let adopted = sink.len();
        if let Err(error) = self.receive(&mut sink).await {
            sink.leave().await;
            return Err(error);
        }
        match sink.finish().await? {
            Whole::File(partial, allowance) => self.commit(*partial, allowance).await,
            Whole::Ring(hasher, aside) => self.verify(*hasher, aside, adopted).await,
        }
    }

    /// Ends a download that went through memory. What was set aside of it is left for a later one, unless it may be what is wrong.
    async fn verify(&self, hasher: Hasher, aside: Option<Aside>, adopted: u64) -> Result<(), FetchError> {
        let size = hasher.len();
        match (hasher.verify(), aside) {
            (Ok(digest), aside) => {
                leave_aside(aside).await;
                self.proved();
                self.pilot.verified(digest, size);
                Ok(())
            }
            (Err(mismatch), aside) => {
                if let Some(aside) = aside {
                    give_up(&self.pilot, *aside).await?;
                }
                Err(self.wrong(mismatch, adopted))
            }
        }
    }

    /// Between a look into the store and the flight's beginning another one may have landed.
    async fn is_here_already(&self) -> Result<bool, FetchError> {
        let (cache, expected) = (&self.means.cache, self.wanted.expected);
        let blob = match cache.find_or_adopt(expected).await {
            // It was nobody's, and a good one takes its place.
            Err(error) if cache.is_stranger(expected) => {
                tracing::warn!(%expected, %error, "a file that the database did not know cannot be read; it is fetched again");
                None
            }
            found => found.map_err(|error| FetchError::Disk(error.to_string()))?,
        };
        let is_here = blob.is_some();
        blob.into_iter().for_each(|blob| self.pilot.landed(blob));
        Ok(is_here)
    }

    /// Receives the whole file, from one URL or several.
    async fn receive(&mut self, sink: &mut Sink) -> Result<(), FetchError> {
        let order = self.source.order_for(self.wanted.expected, self.lately());
        let is_partial = order.len() < self.source.upstream().urls().len();
        let mut attempts = Attempts::new(order, self.means.options.extra_rounds);
        while self.pilot.size().is_none_or(|size| sink.len() < size) {
            let (url, wait) = attempts.next_url().ok_or_else(|| verdict(&attempts, is_partial))?;
            tokio::time::sleep(wait).await;
            if self.source.is_closed() {
                return Err(FetchError::Upstream { reason: "its remote is not asked any more".to_owned(), retry_after: None });
            }
            match self.attempt(url, sink, &mut attempts).await {
                Ok(()) => return Ok(()),
                Err(Ended::Fault(fault)) => self.note(url, fault, &mut attempts),
                Err(Ended::Error(error)) => return Err(error),
            }
        }
        self.pilot.flowing(None);
        Ok(())
    }

    /// Asks one URL for what is missing. What came stays in the sink.
    async fn attempt(&mut self, url: usize, sink: &mut Sink, attempts: &mut Attempts) -> Result<(), Ended> {
        let from = sink.len();
        let if_range = self.last.as_ref().filter(|(last, _)| *last == url).and_then(|(_, etag)| etag.clone());
        let request = Request { url, path: self.wanted.path.clone(), kind: Kind::Blob { from, if_range } };
        let answer = match self.source.upstream().get(request).await {
            // Nobody knew how long the file is, and there is nothing after what we have: the hash says whether that is all.
            Err(Failure::Status { code: 416, .. }) if from > 0 && self.pilot.size().is_none() => {
                self.pilot.flowing(Some(from));
                return Ok(());
            }
            answer => answer.map_err(Fault::from)?,
        };
        // What hosts were told is the size from then on, whoever sends the rest.
        let skip = accept(answer.status, answer.length, answer.range, from, self.pilot.size())?;
        if from > 0 {
            self.means.cache.metrics().upstream_resumed(&self.wanted.remote);
        }
        let size = self.pilot.size().or_else(|| total(&answer));
        sink.make_room(size).await?;
        self.pilot.flowing(size);
        self.last = Some((url, answer.etag));
        self.pump(url, answer.body, skip, sink, attempts).await
    }

    async fn pump(&mut self, url: usize, mut body: Body, mut skip: u64, sink: &mut Sink, attempts: &mut Attempts) -> Result<(), Ended> {
        let size = self.pilot.size();
        loop {
            let (batch, end) = gather(&mut body, self.means.options.silence).await;
            let batch = without_first(batch, &mut skip);
            if !batch.is_empty() {
                if !self.senders.contains(&url) {
                    self.senders.push(url);
                }
                let actual = sink.len() + writer::len(&batch);
                if let Some(expected) = size.filter(|size| actual > *size) {
                    sink.discard().await?;
                    return Err(self.wrong(Mismatch::Size { expected, actual }, 0).into());
                }
                sink.put(batch).await?;
                attempts.progressed(url);
            }
            match end {
                None => {}
                Some(Err(failure)) => return Err(Fault::from(failure).into()),
                Some(Ok(())) if size.is_some_and(|size| sink.len() < size) => {
                    return Err(Fault::from(Failure::Cut("it ended early".to_owned())).into());
                }
                Some(Ok(())) => {
                    self.source.succeeded(url);
                    return Ok(());
                }
            }
        }
    }

    fn note(&self, url: usize, fault: Fault, attempts: &mut Attempts) {
        match &fault {
            Fault::Failure(failure) => self.source.failed(url, failure),
            Fault::Wrong(_) => self.source.sent_wrong_bytes(url, self.wanted.expected),
        }
        attempts.failed(fault);
    }

    /// Whoever sent the last of a file that is right is good for another.
    fn proved(&self) {
        if let Some((url, _)) = &self.last {
            self.source.proved(*url);
        }
    }

    /// What was left by a process that was killed may be damaged; then it is not upstream's fault, and the next fetch
    /// begins anew.
    fn wrong(&self, mismatch: Mismatch, adopted: u64) -> FetchError {
        if adopted > 0 {
            return FetchError::Upstream {
                reason: format!("what was left of an earlier download was damaged: {mismatch}"),
                retry_after: None,
            };
        }
        match *self.senders {
            [] => {}
            [url] => self.source.sent_wrong_bytes(url, self.wanted.expected),
            // It may have been any of them. Another one begins next, and if that one brings all of it, it is known.
            [first, ..] => self.source.note_doubtful(first, self.wanted.expected),
        }
        FetchError::Wrong(mismatch)
    }

    /// How long a URL is not asked again for a file that it sent wrong.
    fn lately(&self) -> Duration {
        self.means.cache.refusals().wrong_for()
    }

    async fn commit(&self, partial: Partial, allowance: Allowance) -> Result<(), FetchError> {
        let adopted = allowance.adopted();
        // One that is wrong is removed, and that may take a while.
        let verified = match blocking(move || Ok(partial.verify())).await.map_err(|error| FetchError::Disk(error.to_string()))? {
            Ok(verified) => verified,
            Err(mismatch) => {
                self.pilot.gave_up(allowance.forfeit());
                return Err(self.wrong(mismatch, adopted));
            }
        };
        self.proved();
        self.pilot.verified(verified.digest(), verified.size());
        let (cache, remote, expected) = (Arc::clone(&self.means.cache), Arc::clone(&self.wanted.remote), self.wanted.expected);
        match blocking(move || Ok(cache.commit(&remote, expected, verified))).await {
            Ok(Ok(blob)) => self.pilot.landed(blob),
            // The readers have it, whole and right; the next one fetches it again.
            Ok(Err(error)) => {
                tracing::error!(%expected, %error, "a file could not be kept");
                if matches!(error, NotCommitted::Lost(_)) {
                    self.pilot.gave_up(allowance.forfeit());
                }
            }
            Err(error) => tracing::error!(%expected, %error, "a file could not be kept"),
        }
        Ok(())
    }
}

/// What came of all attempts. Nothing is gone that a URL has which was not asked, since it sent it wrong.
fn verdict(attempts: &Attempts, is_partial: bool) -> FetchError {
    match attempts.verdict() {
        FetchError::Gone if is_partial => {
            FetchError::Upstream { reason: "one URL has sent it wrong, and no other has it".to_owned(), retry_after: None }
        }
        verdict => verdict,
    }
}

fn total(answer: &Answer) -> Option<u64> {
    if answer.status == 206 { answer.range.and_then(|range| range.total) } else { answer.length }
}

/// Waits for the next bytes, for as long as upstream may be silent, and takes all that came with them; `Some` if there
/// will be no more. The wait is ours and not the client's: its clock would go on while the body waits for a slow reader.
async fn gather(body: &mut Body, silence: Duration) -> (Batch, Option<Result<(), Failure>>) {
    let mut batch = Batch::new();
    let mut next = match tokio::time::timeout(silence, body.next()).await {
        Ok(next) => Some(next),
        Err(_) => return (batch, Some(Err(Failure::Silent("in the middle")))),
    };
    while let Some(piece) = next {
        match piece {
            Some(Ok(piece)) => batch.extend(Some(piece).filter(|piece| !piece.is_empty())),
            Some(Err(failure)) => return (batch, Some(Err(failure))),
            None => return (batch, Some(Ok(()))),
        }
        next = if writer::len(&batch) < BATCH_BYTES { body.next().now_or_never() } else { None };
    }
    (batch, None)
}

/// Drops the first `skip` bytes of a batch, as far as it goes.
fn without_first(batch: Batch, skip: &mut u64) -> Batch {
    let rest = batch.into_iter().map(|mut piece| {
        let dropped = usize::try_from(*skip).unwrap_or(usize::MAX).min(piece.len());
        *skip -= dropped as u64;
        piece.split_off(dropped)
    });
    rest.filter(|piece| !piece.is_empty()).collect()
}
