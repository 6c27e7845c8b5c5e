//! Completions that know what the running server has: remotes, aliases, fingerprints, and names that people gave.
//!
//! Shells wait for these at every key, so that a server that does not answer at once counts as none.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;
use hyper::Method;
use serde::de::DeserializeOwned;

use crate::api::{Alias, Image, RemoteStatus};
use crate::cli::admin::{ask, socket};
use crate::cli::exit::{FAILED, Failure};
use crate::cli::serve::runtime;

/// The variable by which a shell asks this program for completions.
pub const VARIABLE: &str = "COMPLETE";
const PATIENCE: Duration = Duration::from_secs(1);
/// So many digits of a fingerprint tell images apart for people.
const DIGITS: usize = 12;

/// Prints what makes a shell ask this program.
pub fn register(shell: clap_complete::Shell) -> Result<(), Failure> {
    let shells = Shells::builtins();
    let completer =
        shells.completer(&shell.to_string()).ok_or_else(|| Failure::new(FAILED, format!("there are no completions for {shell}")))?;
    let written = completer.write_registration(VARIABLE, "cistern", "cistern", "cistern", &mut std::io::stdout());
    written.map_err(|error| Failure::new(FAILED, error))
}

/// Remotes.
pub fn remotes(current: &OsStr) -> Vec<CompletionCandidate> {
    let remotes: Vec<RemoteStatus> = answer("/1.0/remotes");
    beginning(current, remotes.into_iter().map(|remote| (remote.name, remote.mode)))
}

/// Images, as `REMOTE:ALIAS`, by their aliases alone, and by fingerprint once somebody began to type one.
pub fn images(current: &OsStr) -> Vec<CompletionCandidate> {
    let images: Vec<Image> = answer("/1.0/images");
    let typed = current.to_string_lossy();
    let names = images.into_iter().flat_map(|image| {
        let description = image.properties.get("description").cloned().unwrap_or_default();
        let remote = image.remote.clone();
        let aliases = image.aliases.into_iter().flat_map(move |alias| [format!("{remote}:{alias}"), alias]);
        let fingerprint = image.fingerprint.get(..DIGITS).map(ToOwned::to_owned);
        aliases
            .chain(fingerprint.filter(|digits| !typed.is_empty() && digits.starts_with(&*typed)))
            .map(move |name| (name, description.clone()))
    });
    beginning(current, names)
}

/// Names that people gave.
pub fn aliases(current: &OsStr) -> Vec<CompletionCandidate> {
    let aliases: Vec<Alias> = answer("/1.0/aliases");
    beginning(current, aliases.into_iter().map(|alias| (alias.name, alias.description)))
}

fn beginning(current: &OsStr, names: impl Iterator<Item = (String, String)>) -> Vec<CompletionCandidate> {
    let typed = current.to_string_lossy();
    let mut wanted: Vec<(String, String)> = names.filter(|(name, _)| name.starts_with(&*typed)).collect();
    wanted.sort();
    wanted.dedup_by(|one, other| one.0 == other.0);
    wanted.into_iter().map(|(name, help)| CompletionCandidate::new(name).help(Some(help.into()))).collect()
}

/// What the server says; nothing if it does not.
fn answer<T: DeserializeOwned>(target: &str) -> Vec<T> {
    let said = std::env::var_os("CISTERN_SOCKET").map(Into::into);
    let config = std::env::var_os("CISTERN_CONFIG");
    let (Ok(socket), Ok(runtime)) = (socket(said, config.as_deref().map(Path::new)), runtime(0)) else { return Vec::new() };
    let asked = async { tokio::time::timeout(PATIENCE, ask::<Vec<T>>(&socket, Method::GET, target, Vec::new())).await };
    runtime.block_on(asked).ok().and_then(Result::ok).unwrap_or_default()
}
