//! Those who work for each remote: its source, its refresher and its prefetcher. A reload sends them home
//! and hires others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::RemoteStatus;
use crate::app::outside::Outside;
use crate::cache::Cache;
use crate::catalog::mode::Mode;
use crate::config::Config;
use crate::config::error::ConfigError;
use crate::config::remote::Remote;
use crate::fetch::Fetcher;
use crate::fetch::source::Source;
use crate::metrics::Metrics;
use crate::prefetch::Prefetcher;
use crate::publish::Publisher;
use crate::publish::command::{Documents, Settings};
use crate::refresh::desk::{Desk, Keeper};
use crate::refresh::status::StatusBoard;
use crate::refresh::{self, Refresher};
use crate::store::Store;
use crate::upstream::Upstream;
use crate::upstream::client::{BadOptions, HttpUpstream};

/// How many wishes may wait for a refresher.
const QUEUED_DEMANDS: usize = 16;
/// How long to wait before what could not be fetched ahead of requests is tried again.
const RETRY: Duration = Duration::from_mins(5);
const MAX_CA_BYTES: u64 = 4 << 20;

/// What they work with.
#[derive(Clone, Debug)]
pub struct Means {
    /// Where documents are kept.
    pub store: Arc<Store>,
    /// Who serves them.
    pub publisher: Publisher,
    /// Where people look.
    pub status: Arc<StatusBoard>,
    /// Where refreshes are asked for.
    pub desk: Arc<Desk>,
    /// Who draws files.
    pub fetcher: Arc<Fetcher>,
    /// Where they go.
    pub cache: Arc<Cache>,
    /// Disk and clock.
    pub outside: Outside,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Why a remote has nobody.
#[derive(Debug, thiserror::Error)]
pub enum TeamError {
    /// No client can be made for it.
    #[error(transparent)]
    Remote(#[from] BadOptions),
    /// Its CA cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// All who work for remotes.
#[derive(Debug)]
pub struct Team {
    means: Means,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Team {
    /// Hires everybody. Documents that are on the disk are served when this returns.
    pub async fn assemble(config: &Config, means: Means) -> Result<Self, TeamError> {
        let sources = sources(config, &means)?;
        let mut team = Self { means, stop: CancellationToken::new(), tasks: TaskTracker::new() };
        team.begin(config, sources).await;
        Ok(team)
    }

    /// Sends everybody home and hires anew, unless that cannot be done; then everything stays as it is.
    pub async fn reassemble(&mut self, config: &Config) -> Result<(), TeamError> {
        let sources = sources(config, &self.means)?;
        self.go_home().await;
        self.stop = CancellationToken::new();
        self.tasks = TaskTracker::new();
        self.begin(config, sources).await;
        Ok(())
    }

    /// Has it known of new remotes that nothing is there of yet: others are not to wait for them.
    pub async fn expect(&self, names: Vec<String>) {
        for name in names {
            if let Err(error) = self.means.publisher.replace(name.into(), Documents::default()).await {
                tracing::debug!(%error, "nothing can be published");
            }
        }
    }

    /// Sends everybody home.
    pub async fn dismiss(self) {
        self.go_home().await;
    }

    async fn go_home(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn begin(&mut self, config: &Config, sources: Vec<Arc<Source>>) {
        let Means { store, publisher, status, desk, fetcher, outside, metrics, .. } = &self.means;
        status.show(config.remotes.iter().zip(&sources).map(|(remote, source)| (status_of(remote, source), Arc::clone(source))).collect());
        // First of all, nobody is asked any more who may not be.
        let asked = config.remotes.iter().zip(&sources).filter(|(remote, _)| remote.mode.has_upstream());
        fetcher.set_sources(asked.map(|(_, source)| (Arc::clone(source.name()), Arc::clone(source))).collect());
        let settings = Settings { remotes: config.published_remotes() };
        if let Err(error) = publisher.configure(settings).await {
            tracing::error!(%error, "nothing can be published");
        }
        let mut keepers = HashMap::new();
        for (remote, source) in config.remotes.iter().zip(&sources) {
            let means = refresh::Means {
                store: Arc::clone(store),
                publisher: publisher.clone(),
                status: Arc::clone(status),
                clock: Arc::clone(&outside.clock),
                metrics: Arc::clone(metrics),
            };
            let refresher = Refresher::start(Arc::clone(source), remote.refresh, means).await;
            keepers.insert(Arc::clone(source.name()), self.keep(remote.mode, refresher));
            if remote.mode != Mode::Mirror {
                metrics.mirror_is_missing(remote.name(), 0);
            }
        }
        desk.staff(keepers);
        for (remote, source) in config.remotes.iter().zip(&sources).filter(|(remote, _)| remote.mode.has_upstream()) {
            self.tasks.spawn(self.prefetcher(config, remote, source).run(self.means.publisher.generations(), self.stop.clone()));
        }
    }

    /// Has the documents of a remote kept.
    fn keep(&self, mode: Mode, refresher: Refresher) -> Keeper {
        if mode.has_upstream() {
            let (demand, queue) = mpsc::channel(QUEUED_DEMANDS);
            self.tasks.spawn(refresher.run(queue, self.stop.clone()));
            return Keeper::Asking(demand);
        }
        let (fed, queue) = mpsc::channel(QUEUED_DEMANDS);
        self.tasks.spawn(refresher.be_fed(queue, self.stop.clone()));
        Keeper::Fed(fed)
    }

    fn prefetcher(&self, config: &Config, remote: &Remote, source: &Arc<Source>) -> Prefetcher {
        let Means { publisher, status, fetcher, cache, metrics, .. } = &self.means;
        Prefetcher {
            source: Arc::clone(source),
            mode: remote.mode,
            publisher: publisher.clone(),
            retry: remote.refresh.interval.min(RETRY),
            fetcher: Arc::clone(fetcher),
            cache: Arc::clone(cache),
            status: Arc::clone(status),
            metrics: Arc::clone(metrics),
            fetches: config.mirror_fetches(),
        }
    }
}

fn sources(config: &Config, means: &Means) -> Result<Vec<Arc<Source>>, TeamError> {
    config.remotes.iter().map(|remote| source(remote, means).map(Arc::new)).collect()
}

fn source(remote: &Remote, means: &Means) -> Result<Source, TeamError> {
    let upstream = means.outside.upstreams.get(remote.name()).cloned().map_or_else(|| over_http(remote, means), Ok)?;
    let (clock, metrics) = (Arc::clone(&means.outside.clock), Arc::clone(&means.metrics));
    Ok(Source::new(Arc::clone(remote.name()), upstream, clock, metrics))
}

fn over_http(remote: &Remote, means: &Means) -> Result<Arc<dyn Upstream>, TeamError> {
    let mut options = remote.upstream.clone();
    if let Some(path) = &remote.ca {
        let read = means.outside.disk.open(path).and_then(|file| file.read_all(MAX_CA_BYTES));
        let key = format!("remotes.{}.ca", remote.name());
        options.ca = Some(read.map_err(|error| ConfigError::of_key(&key, format!("cannot read {}: {error}", path.display())))?);
    }
    Ok(Arc::new(HttpUpstream::new(options, Arc::clone(&means.outside.clock), Arc::clone(&means.metrics))?))
}

fn status_of(remote: &Remote, source: &Source) -> RemoteStatus {
    RemoteStatus {
        name: remote.name().to_string(),
        urls: source.upstream().urls().to_vec(),
        mode: remote.mode.label().to_owned(),
        healthy: true,
        failing: Vec::new(),
        images: 0,
        missing: None,
        held_back: Vec::new(),
        documents_from: None,
        documents_taken_at: None,
        last_success_at: None,
        last_refresh: None,
    }
}
