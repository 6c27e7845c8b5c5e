//! Puts everything together: configuration → app → run → drained.

pub mod certificates;
pub mod housekeeping;
pub mod outside;
pub mod storage;
pub mod team;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::certificates::{CertificateError, Certificates};
use crate::app::outside::Outside;
use crate::app::storage::{Storage, StorageError};
use crate::app::team::{Means, Team, TeamError};
use crate::bundle::export::Exporter;
use crate::bundle::import::{Importer, Newcomers};
use crate::cache::books::Counting;
use crate::cache::{Cache, blocking, scribe};
use crate::catalog::mode::Mode;
use crate::config::Config;
use crate::config::error::ConfigError;
use crate::database::Database;
use crate::disk::Disk;
use crate::fetch::shares::Shares;
use crate::fetch::{Fetcher, sink};
use crate::library::Library;
use crate::library::shelf::Shelf;
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::publish::recorder::Recorder;
use crate::refresh::desk::Desk;
use crate::refresh::status::StatusBoard;
use crate::scrub::Scrubber;
use crate::server::access::Scribe;
use crate::server::admin::{self, Office};
use crate::server::connection::{self, Broken};
use crate::server::door::{Door, Peer};
use crate::server::listener::{self, CannotListen, Listener};
use crate::server::observe::{self, Readiness};
use crate::store::{Store, StoreError, facts, imports};

/// How often certificates are looked at, and what nobody came back for is removed.
const HOUSEKEEPING: Duration = Duration::from_hours(24);

/// How many wishes, for refreshes and for writing down, may wait until they are passed on.
const QUEUED_WISHES: usize = 1024;

/// How many imports may wait for the remotes that they bring.
const QUEUED_NEWCOMERS: usize = 16;

/// Why an app does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What people decided cannot be read; going on without it would lose it.
    #[error("what people decided cannot be read: {0}; mend or remove that file")]
    Intent(std::io::Error),
    /// What is held cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An address cannot be used.
    #[error(transparent)]
    Listen(#[from] CannotListen),
    /// The admin socket cannot be used.
    #[error("cannot listen on {path}: {source}; set server.admin_socket to a path in a folder that this user may write to")]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A remote cannot be used.
    #[error(transparent)]
    Team(#[from] TeamError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// A program that is listening.
#[derive(Debug)]
pub struct App {
    config: Config,
    door: Arc<Door>,
    team: Team,
    certificates: Certificates,
    tls: Arc<ArcSwap<ServerConfig>>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    connections: TaskTracker,
    /// Tasks that go on for as long as the program does.
    essential: JoinSet<&'static str>,
    /// Tasks that end when they are told to, or when they are done.
    tasks: Vec<JoinHandle<()>>,
    /// What people do with images.
    library: Arc<Library>,
    /// Remotes that bundles bring.
    newcomers: mpsc::Receiver<Newcomers>,
    /// Cancelled when nothing changes any more.
    closed: CancellationToken,
    /// Writes the ledger down, and ends after everything else.
    scribe: Option<JoinHandle<()>>,
}

/// A task that goes on for as long as the program does has ended: a bug of ours. It is better to start again than to
/// serve what is never renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task that must go on has ended ({0}); this is a bug, the log says more")]
pub struct Ended(&'static str);

/// What is bound before anything else: a port that is taken is the commonest mistake.
struct Sockets {
    hosts: Vec<TcpListener>,
    metrics: TcpListener,
    admin: UnixListener,
}

impl Sockets {
    async fn bind(config: &Config, disk: &dyn Disk) -> Result<Self, StartError> {
        let server = &config.file.server;
        let mut hosts = Vec::new();
        for address in &server.listen {
            hosts.push(listener::bind(*address).await?);
        }
        let metrics = listener::bind(server.metrics).await?;
        let path = &server.admin_socket;
        let admin = admin::bind(disk, path).await.map_err(|source| StartError::Socket { path: path.clone(), source })?;
        Ok(Self { hosts, metrics, admin })
    }
}

impl App {
    /// Starts: the last good documents are served as soon as this returns, upstream or none.
    pub async fn start(mut config: Config, outside: Outside) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let store = Arc::new(Store::open(Arc::clone(&outside.disk), &config.file.storage.path)?);
        config.feed(imports::remotes(&**store.disk(), store.layout()).map_err(StartError::Intent)?)?;
        let sockets = Sockets::bind(&config, &*outside.disk).await?;
        let certificates = Certificates::new(&config, store.layout().tls(), outside.clone(), Arc::clone(&metrics));
        let tls = Arc::new(ArcSwap::from_pointee(certificates.load(false)?));
        let Storage { store, cache, database, counting } = Storage::open(&config, store, &outside, &metrics)?;
        let wrong = facts::all_wrong(&**store.disk(), store.layout()).unwrap_or_default();
        let (publisher, publishing) = Publisher::new(Arc::clone(&cache), Arc::clone(&metrics), wrong.clone());
        let recorder = Recorder::new(Arc::clone(&cache), publisher.clone(), Arc::clone(&metrics), wrong);
        let (gone, listed_as_gone) = mpsc::channel(QUEUED_WISHES);
        let fetcher = Arc::new(Fetcher::new(sink::Means::new(Arc::clone(&cache), config.fetch(), gone)));
        let (status, desk) = (Arc::new(StatusBoard::default()), Arc::new(Desk::default()));
        let mut essential = JoinSet::new();
        essential.spawn(publishing.map(|()| "publisher"));
        essential.spawn(pass_on(listed_as_gone, Arc::clone(&desk)).map(|()| "messenger"));
        let means = Means {
            store,
            publisher: publisher.clone(),
            status,
            desk,
            fetcher: Arc::clone(&fetcher),
            cache: Arc::clone(&cache),
            outside: outside.clone(),
            metrics: Arc::clone(&metrics),
        };
        let shelf = Shelf::load(Arc::clone(&cache), publisher.clone()).map_err(StartError::Intent)?;
        let library = Arc::new(Library::new(Arc::clone(&cache), Arc::clone(&fetcher), Arc::clone(&means.desk), publisher.clone(), shelf));
        let (brought, newcomers) = mpsc::channel(QUEUED_NEWCOMERS);
        let importer = Arc::new(Importer::new(Arc::clone(&library), brought));
        importer.resume().map_err(StartError::Intent)?;
        let office = office(&means, Arc::clone(&library), Arc::clone(&importer));
        let team = Team::assemble(&config, means).await?;
        if let Err(error) = library.start().await {
            tracing::error!(%error, "images of our own are not listed");
        }
        library.begin(settle(importer));
        essential.spawn(recorder.run().map(|()| "recorder"));
        let door = Arc::new(door(&config, fetcher, &cache, &outside));
        let closed = CancellationToken::new();
        let scribe = database.map(|database| write_down(&library, database, closed.clone()));
        let readiness = Arc::new(Readiness::new(Arc::clone(cache.standing())));
        let tasks = keepers(&config, cache, counting, &door, &metrics);
        let mut app = Self {
            addresses: sockets.hosts.iter().filter_map(|socket| socket.local_addr().ok()).collect(),
            config,
            door,
            team,
            certificates,
            tls,
            metrics,
            readiness,
            stop: CancellationToken::new(),
            connections: TaskTracker::new(),
            essential,
            tasks,
            closed,
            scribe,
            library,
            newcomers,
        };
        app.listen(sockets, office);
        Ok(app)
    }

    fn listen(&mut self, sockets: Sockets, office: Office) {
        let turns = Arc::new(Semaphore::new(self.door.bounds.connections));
        let listener = Listener {
            door: Arc::clone(&self.door),
            tls: Arc::clone(&self.tls),
            stop: self.stop.clone(),
            connections: self.connections.clone(),
            turns,
        };
        self.tasks.extend(sockets.hosts.into_iter().map(|socket| tokio::spawn(listener.clone().run(socket))));
        // Whoever watches is to see the drain: this one is stopped last.
        let observing = observe::run(sockets.metrics, Arc::clone(&self.metrics), Arc::clone(&self.readiness));
        self.tasks.push(tokio::spawn(observing));
        self.tasks.push(tokio::spawn(admin::run(sockets.admin, Arc::new(office), self.stop.clone())));
        self.readiness.set(true);
    }

    /// Where hosts connect.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Serves a connection that came in by other means than a listener, until it ends.
    pub fn serve<IO>(&self, io: IO, peer: Peer) -> impl Future<Output = Result<(), Broken>> + Send + use<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        connection::serve(Arc::clone(&self.door), io, peer, self.tls.load_full(), self.stop.clone())
    }

    /// Goes on until `stop` is cancelled, and takes each configuration that comes; then ends what is under way.
    pub async fn run(mut self, mut reloads: mpsc::Receiver<Result<Config, ConfigError>>, stop: CancellationToken) -> Result<(), Ended> {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        // At the start both were done already.
        housekeeping.tick().await;
        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                Some(ended) = self.essential.join_next() => break Err(Ended(ended.unwrap_or("it panicked"))),
                // What these wait for may never come, and whoever stops does not wait for it.
                Some(newcomers) = self.newcomers.recv() => drop(stop.run_until_cancelled(self.house(newcomers)).await),
                Some(reload) = reloads.recv() => drop(stop.run_until_cancelled(self.reload(reload)).await),
                _ = housekeeping.tick() => drop(stop.run_until_cancelled(self.keep_house()).await),
            }
        };
        self.drain().await;
        ended
    }

    /// Takes a new configuration, or keeps the old one whole.
    async fn reload(&mut self, config: Result<Config, ConfigError>) {
        let taken = match config {
            Ok(config) => self.take(config).await,
            Err(error) => Err(error.into()),
        };
        self.metrics.last_reload_successful.set(i64::from(taken.is_ok()));
        match taken {
            Ok(()) => tracing::info!("the new configuration is in force"),
            Err(error) => tracing::error!(%error, "the new configuration is refused; the old one stays"),
        }
    }

    /// Has the remotes there that a bundle brings.
    async fn house(&mut self, Newcomers { names, is_trial, reply }: Newcomers) {
        let housed = match self.newcomers_of(&names) {
            Ok(newcomers) if is_trial => Ok(newcomers),
            Ok(newcomers) => self.have(names, newcomers.clone()).await.map(|()| newcomers).map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        };
        // Whoever asked may have left.
        drop(reply.send(housed));
    }

    /// Those remotes that are not offline yet; why one of them cannot be.
    fn newcomers_of(&self, names: &[String]) -> Result<Vec<String>, String> {
        if let Some(name) = names.iter().find(|name| !self.config.is_feedable(name)) {
            return Err(format!(
                "it has images of remote '{name}', which is not offline here; set remotes.{name}.mode to \"offline\" for it to be fed by bundles"
            ));
        }
        let is_there = |name: &&String| self.config.remotes.iter().any(|remote| **remote.name() == **name && remote.mode == Mode::Offline);
        Ok(names.iter().filter(|name| !is_there(name)).cloned().collect())
    }

    /// Notes that these remotes came in a bundle, and has those of them that are new.
    async fn have(&mut self, names: Vec<String>, newcomers: Vec<String>) -> Result<(), StartError> {
        let store = Arc::clone(self.door.cache.store());
        let note = move || names.iter().try_for_each(|name| imports::note_remote(&**store.disk(), store.layout(), name));
        blocking(note).await.map_err(StartError::Intent)?;
        if newcomers.is_empty() {
            return Ok(());
        }
        let mut config = self.config.clone();
        config.feed(newcomers.clone())?;
        self.team.expect(newcomers).await;
        self.team.reassemble(&config).await?;
        self.config = config;
        Ok(())
    }

    async fn take(&mut self, mut config: Config) -> Result<(), StartError> {
        config.is_successor_of(&self.config)?;
        let store = Arc::clone(self.door.cache.store());
        let fed = blocking(move || imports::remotes(&**store.disk(), store.layout())).await.map_err(StartError::Intent)?;
        config.feed(fed)?;
        let certificates = self.certificates.with(&config);
        let tls = load(&certificates).await?;
        // What is rendered depends on the rules.
        let rules = self.door.cache.rules();
        self.door.cache.set_rules(config.rules());
        if let Err(error) = self.team.reassemble(&config).await {
            self.door.cache.set_rules(rules);
            return Err(error.into());
        }
        self.tls.store(Arc::new(tls));
        self.certificates = certificates;
        self.door.policy.store(Arc::new(config.policy()));
        for key in config.needs_restart(&self.config) {
            tracing::warn!(key, "this key is read at the start only; restart to change it");
        }
        self.config = config;
        Ok(())
    }

    async fn keep_house(&self) {
        self.renew().await;
        self.door.scribe.report_lost();
        housekeeping::sweep(Arc::clone(&self.door.cache), self.door.clock.now()).await;
    }

    async fn renew(&self) {
        match load(&self.certificates).await {
            Ok(tls) => self.tls.store(Arc::new(tls)),
            Err(error) => tracing::error!(%error, "the certificate could not be looked at; the one in use stays"),
        }
    }

    /// Accepts no more, lets answers under way finish for as long as the operator allows, and stops.
    async fn drain(mut self) {
        // Whoever waits for remotes gets none any more.
        drop(self.newcomers);
        self.readiness.set(false);
        self.stop.cancel();
        self.connections.close();
        let patience = self.config.drain();
        if tokio::time::timeout(patience, self.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "stopping in the middle of answers; server.drain is over");
        }
        self.library.end().await;
        self.door.fetcher.end().await;
        self.team.dismiss().await;
        self.essential.shutdown().await;
        for task in self.tasks {
            task.abort();
            // An aborted task ends with an error, which is what was wanted.
            drop(task.await);
        }
        self.closed.cancel();
        if let Some(scribe) = self.scribe
            && let Err(error) = scribe.await
        {
            tracing::error!(%error, "the ledger was not written to the end");
        }
        tracing::info!("stopped");
    }
}

/// Looks at certificates where that delays nobody: a disk may be slow, and the operator's may be on another machine.
async fn load(certificates: &Certificates) -> Result<ServerConfig, CertificateError> {
    let certificates = certificates.clone();
    let loaded = tokio::task::spawn_blocking(move || certificates.load(false)).await;
    loaded.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Who looks after the store for as long as the program runs.
fn keepers(config: &Config, cache: Arc<Cache>, counting: Option<Counting>, door: &Door, metrics: &Arc<Metrics>) -> Vec<JoinHandle<()>> {
    let within = config.file.storage.scrub.0;
    let scrubber = Scrubber { cache: Arc::clone(&cache), fetcher: Arc::clone(&door.fetcher), metrics: Arc::clone(metrics), within };
    let scrubs = (!within.is_zero()).then(|| tokio::spawn(scrubber.run()));
    let counts = counting.map(|counting| tokio::spawn(housekeeping::reconcile(Arc::clone(&cache), counting)));
    [tokio::spawn(housekeeping::run(cache, Arc::clone(metrics)))].into_iter().chain(scrubs).chain(counts).collect()
}

/// Where hosts come in.
fn door(config: &Config, fetcher: Arc<Fetcher>, cache: &Arc<Cache>, outside: &Outside) -> Door {
    let bounds = config.bounds();
    Door {
        current: cache.current().clone(),
        fetcher,
        cache: Arc::clone(cache),
        metrics: Arc::clone(cache.metrics()),
        clock: Arc::clone(&outside.clock),
        scribe: Scribe::default(),
        readers: Shares::new(bounds.file_readers),
        bounds,
        policy: ArcSwap::from_pointee(config.policy()),
    }
}

/// Goes on where an import ended.
async fn settle(importer: Arc<Importer>) {
    if let Err(error) = importer.settle().await {
        tracing::error!(%error, "remotes that are fed by bundles list what they listed before");
    }
}

/// Where people's commands come in.
fn office(means: &Means, library: Arc<Library>, importer: Arc<Importer>) -> Office {
    let exporter = Arc::new(Exporter::new(Arc::clone(&library), Arc::clone(&means.outside.clock)));
    Office {
        status: Arc::clone(&means.status),
        desk: Arc::clone(&means.desk),
        cache: Arc::clone(&means.cache),
        library,
        exporter,
        importer,
    }
}

/// Writes the ledger down, and whenever a person waits for it.
fn write_down(library: &Library, database: Database, closed: CancellationToken) -> JoinHandle<()> {
    let (wishes, wished) = mpsc::channel(QUEUED_WISHES);
    library.write_down_with(wishes);
    tokio::spawn(scribe::run(Arc::clone(library.cache.books()), database, wished, closed))
}

async fn pass_on(mut gone: mpsc::Receiver<Arc<str>>, desk: Arc<Desk>) {
    while let Some(remote) = gone.recv().await {
        desk.gone(&remote);
    }
}
