//! `cistern serve`

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::app::outside::Outside;
use crate::cli::exit::{FAILED, Failure};
use crate::cli::logging;
use crate::clock::SystemClock;
use crate::config::error::ConfigError;
use crate::config::{Config, files};
use crate::disk::OsDisk;

/// Runs the server until it is told to stop.
pub fn run(path: Option<&Path>) -> Result<(), Failure> {
    let config = load(path)?;
    logging::start(config.log());
    raise_descriptor_limit();
    let runtime = runtime(config.file.limits.fetches)?;
    let ended = runtime.block_on(serve(config, path.map(Path::to_owned)));
    runtime.shutdown_timeout(DISK_TIMEOUT);
    ended
}

/// A thread that waits for a disk which does not answer is not waited for any longer than this: it would be for ever.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the configuration, and looks at the files that it names.
fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
    let config = Config::load(&OsDisk, path)?;
    files::check(&config, &OsDisk)?;
    Ok(config)
}

/// Every host that downloads takes a connection and perhaps a file; shells give 1024 descriptors and keep more in reserve.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
}

/// How many threads may wait for the disk beside those that write downloads.
const BLOCKING_THREADS: usize = 256;

/// Threads for everything that is async, and one for each download.
pub fn runtime(fetches: usize) -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(BLOCKING_THREADS + fetches).enable_all().build();
    runtime.map_err(|error| Failure::new(FAILED, format!("cannot start threads: {error}")))
}

/// The real disk and clock.
pub fn outside() -> Outside {
    Outside { disk: Arc::new(OsDisk), clock: Arc::new(SystemClock), upstreams: HashMap::new() }
}

async fn serve(config: Config, path: Option<PathBuf>) -> Result<(), Failure> {
    let app = App::start(config, outside()).await?;
    // Whoever learns that it listens may send one at once.
    let signals = listen_to_signals();
    let addresses: Vec<String> = app.addresses().iter().map(ToString::to_string).collect();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), addresses = addresses.join(", "), "listening");
    tell_systemd(&[NotifyState::Ready]);
    let stop = CancellationToken::new();
    let (reload, reloads) = mpsc::channel(1);
    let signals = tokio::spawn(follow_signals(signals, path, reload, stop.clone()));
    let ended = app.run(reloads, stop).await;
    signals.abort();
    ended.map_err(|error| Failure::new(FAILED, error))
}

/// From now on these end the program no more by themselves: SIGHUP, SIGTERM and SIGINT.
fn listen_to_signals() -> [io::Result<Signal>; 3] {
    [SignalKind::hangup(), SignalKind::terminate(), SignalKind::interrupt()].map(signal)
}

/// SIGHUP reads the configuration again, SIGTERM and SIGINT end the program.
async fn follow_signals(
    signals: [io::Result<Signal>; 3],
    path: Option<PathBuf>,
    reload: mpsc::Sender<Result<Config, ConfigError>>,
    stop: CancellationToken,
) {
    let [Ok(mut hangup), Ok(mut terminate), Ok(mut interrupt)] = signals else {
        tracing::error!("cannot listen to signals; only SIGKILL ends this program");
        return;
    };
    // The files may be on a disk that does not answer; signals are still to be heard.
    let begin = || {
        let path = path.clone();
        tokio::task::spawn_blocking(move || load(path.as_deref()))
    };
    let (mut loading, mut is_wanted_again): (Option<JoinHandle<_>>, _) = (None, false);
    // The last one that was read, while the program is busy with one before.
    let mut loaded = None;
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                is_wanted_again = loading.is_some();
                loading = loading.or_else(|| Some(begin()));
            }
            Some(read) = done(&mut loading) => {
                match read {
                    Ok(read) => loaded = Some(read),
                    Err(error) => tracing::error!(%error, "reading the configuration ended badly; this is a bug"),
                }
                loading = std::mem::take(&mut is_wanted_again).then(&begin);
            }
            Ok(turn) = reload.reserve(), if loaded.is_some() => {
                if let Some(loaded) = loaded.take() {
                    turn.send(loaded);
                }
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("stopping");
    tell_systemd(&[NotifyState::Stopping]);
    stop.cancel();
}

/// What came of a task, if there is one.
async fn done<T>(task: &mut Option<JoinHandle<T>>) -> Option<Result<T, JoinError>> {
    Some(task.as_mut()?.await)
}

fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use crate::cli::serve::{follow_signals, listen_to_signals};

    #[tokio::test]
    async fn a_program_that_is_busy_with_a_reload_hears_that_it_is_to_stop() {
        let signals = listen_to_signals();
        let (reload, mut reloads) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let following = tokio::spawn(follow_signals(signals, Some("/nonexistent/cistern.toml".into()), reload, stop.clone()));
        for _ in 0..4 {
            kill_process(getpid(), Signal::HUP).unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        kill_process(getpid(), Signal::TERM).unwrap();
        tokio::time::timeout(Duration::from_secs(5), stop.cancelled()).await.expect("it hears that");
        following.await.unwrap();
        assert!(reloads.recv().await.is_some_and(|reload| reload.is_err()), "and the first one had come");
    }
}
