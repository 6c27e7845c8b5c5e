//! What people do with images: bring them in, change how they are held, let them go.
//!
//! What a person decides is written down before it counts ([`crate::store::decisions`]). Long work is a task of its own and
//! goes on when the command that began it leaves.

pub mod aliases;
pub mod copy;
pub mod deciding;
pub mod entry;
pub mod error;
pub mod inspect;
pub mod intake;
pub mod names;
pub mod publishing;
pub mod shelf;
pub mod supply;
pub mod unpack;

use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{ImageChange, RefreshReport, Step};
use crate::cache::scribe::Waiting;
use crate::cache::{Cache, blocking};
use crate::catalog::mode::Mode;
use crate::digest::Fingerprint;
use crate::fetch::download::Wanted;
use crate::fetch::{Fetcher, Found};
use crate::ledger::decision::Decision;
use crate::ledger::record::Record;
use crate::library::copy::Copy;
use crate::library::deciding::Decisions;
use crate::library::error::LibraryError;
use crate::library::names::Named;
use crate::library::publishing::Offer;
use crate::library::shelf::{Serving, Shelf};
use crate::library::supply::Supply;
use crate::publish::{Gone, Publisher};
use crate::refresh::desk::Desk;
use crate::simplestreams::file::ListedFile;
use crate::store::decisions;

/// How many steps of long work may wait for a command to read them; more are not told.
const QUEUED_STEPS: usize = 64;

/// The images, as people handle them.
#[derive(Debug)]
pub struct Library {
    /// What is held, and what is listed.
    pub cache: Arc<Cache>,
    /// Who brings files in.
    pub fetcher: Arc<Fetcher>,
    /// Who asks upstream for documents.
    pub desk: Arc<Desk>,
    /// Who serves what changed.
    pub publisher: Publisher,
    /// Images of our own, and names that people gave.
    pub shelf: Arc<Shelf>,
    /// Who writes down what changed, as soon as there is somebody.
    wishes: OnceLock<mpsc::Sender<Waiting>>,
    /// What people decide about images.
    decisions: Arc<Decisions>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Library {
    /// A library in which nothing is under way.
    pub fn new(cache: Arc<Cache>, fetcher: Arc<Fetcher>, desk: Arc<Desk>, publisher: Publisher, shelf: Shelf) -> Self {
        Self {
            decisions: Arc::new(Decisions::new(Arc::clone(&cache), publisher.clone())),
            cache,
            fetcher,
            desk,
            publisher,
            shelf: Arc::new(shelf),
            wishes: OnceLock::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Has what changed written down by this one before a person is answered.
    pub fn write_down_with(&self, scribe: mpsc::Sender<Waiting>) {
        // There is one scribe, and this is called once.
        drop(self.wishes.set(scribe));
    }

    /// Waits until what changed is written down. Without a database it is not, and the files of images have to do.
    pub async fn written_down(&self) {
        let (waiting, written) = oneshot::channel();
        if let Some(scribe) = self.wishes.get()
            && scribe.send(waiting).await.is_ok()
        {
            drop(written.await);
        }
    }

    /// Publishes an image of our own; its fingerprint.
    pub async fn publish(&self, offer: Offer, supply: Supply) -> Result<Fingerprint, LibraryError> {
        let published = self.shelf.publish(&self.cache, offer, supply).await;
        self.written_down().await;
        published
    }

    /// Serves images of our own, and goes on doing so.
    pub async fn start(&self) -> Result<(), LibraryError> {
        self.shelf.settle().await?;
        self.shelf.serve(Serving::Anew).await?;
        self.tasks.spawn(Arc::clone(&self.shelf).follow(self.stop.clone()));
        Ok(())
    }

    /// Brings an image in, to stay until a person says otherwise.
    pub fn copy(&self, named: Named, auto_update: bool) -> mpsc::Receiver<Step> {
        self.bring(named, Some(auto_update))
    }

    /// Asks upstream for newer versions of an image, and brings in what is held back.
    pub async fn refresh(&self, named: Named) -> Result<(RefreshReport, Option<mpsc::Receiver<Step>>), LibraryError> {
        let report = self.desk.refresh(&named.remote, false).await?;
        let newer = names::held_back(&self.cache.current().load(), &named);
        Ok((report, newer.map(|newer| self.bring(newer, None))))
    }

    /// Opens a file of an image, held or not.
    pub async fn open(&self, named: &Named, file: &ListedFile) -> Result<Found, LibraryError> {
        self.fetcher.find(&Wanted::of(&named.remote, file), 0).await.map_err(|reason| LibraryError::not_had(file, &reason))
    }

    /// Has an image held whole, and its fingerprint computed. It is held as if a host had asked for it.
    pub async fn have(&self, named: &Named, tell: impl Fn(u64)) -> Result<(), LibraryError> {
        self.copier(None).bring(named, tell).await
    }

    fn bring(&self, named: Named, kept: Option<bool>) -> mpsc::Receiver<Step> {
        let (steps, told) = mpsc::channel(QUEUED_STEPS);
        self.begin(self.copier(kept).run(named, steps));
        told
    }

    fn copier(&self, kept: Option<bool>) -> Copy {
        Copy {
            cache: Arc::clone(&self.cache),
            fetcher: Arc::clone(&self.fetcher),
            publisher: self.publisher.clone(),
            decisions: Arc::clone(&self.decisions),
            kept,
        }
    }

    /// Does work that nobody has to wait for, until it is done or the program stops.
    pub fn begin(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(work).await });
    }

    /// Does what a person wants also if that person leaves in the middle: half of it would be worse than all or nothing.
    pub async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, LibraryError>> + Send + 'static,
    ) -> Result<T, LibraryError> {
        self.tasks.spawn(work).await.unwrap_or(Err(LibraryError::NotRecorded))
    }

    /// Goes on with work also if whoever began it leaves, until it is done or the program stops.
    pub async fn until_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, LibraryError>> + Send + 'static,
    ) -> Result<T, LibraryError> {
        let stop = self.stop.clone();
        let done = self.tasks.spawn(async move { stop.run_until_cancelled(work).await }).await;
        done.ok().flatten().unwrap_or(Err(LibraryError::Ending(Gone)))
    }

    /// Changes how an image is held. It is as it was if anything of that cannot be done.
    pub async fn change(&self, named: &Named, change: ImageChange) -> Result<(), LibraryError> {
        let record = self.held(named)?;
        let expires_at = change.expires_at.as_deref().map(names::end).transpose()?;
        if self.shelf.has(record.fingerprint) {
            self.shelf.change_image(&self.cache, record.fingerprint, change, expires_at).await?;
            self.written_down().await;
            return Ok(());
        }
        if let Some(key) = change.properties.keys().next() {
            return Err(LibraryError::NotEditable { key: key.clone(), remote: record.remote.to_string() });
        }
        if change.public.is_some_and(|public| public != record.public) {
            return Err(LibraryError::NotEditable { key: "public".to_owned(), remote: record.remote.to_string() });
        }
        let decide = move |decision: &mut Decision| {
            decision.auto_update = change.auto_update.or(decision.auto_update);
            decision.expires_at = expires_at.map(|at| at.map(jiff::Timestamp::as_millisecond)).or(decision.expires_at);
        };
        self.decisions.change(&record, decide).await?;
        self.written_down().await;
        Ok(())
    }

    /// Lets an image go. What upstream lists goes at once; what only we hold is listed no more and goes after grace.
    pub async fn delete(&self, named: &Named) -> Result<(), LibraryError> {
        let record = self.held(named)?;
        if self.cache.current().load().mode(&record.remote) == Some(Mode::Mirror) {
            return Err(LibraryError::Mirrored(record.remote.to_string()));
        }
        let cache = Arc::clone(&self.cache);
        let fingerprint = record.fingerprint;
        let went = blocking(move || {
            let went = cache.delete(&record);
            if went {
                decisions::remove(&**cache.store().disk(), cache.store().layout(), record.fingerprint)?;
            }
            Ok(went)
        });
        if !went.await? {
            return Err(LibraryError::InUse(fingerprint));
        }
        self.shelf.forget(&self.cache, fingerprint).await?;
        self.written_down().await;
        Ok(())
    }

    fn held(&self, named: &Named) -> Result<Record, LibraryError> {
        self.cache.books().image(named.image.fingerprint).ok_or_else(|| LibraryError::NotHeld(named.name.clone()))
    }

    /// Whether the program stops.
    pub fn is_ending(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Ends what is under way; what came of it stays in partial files.
    pub async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
