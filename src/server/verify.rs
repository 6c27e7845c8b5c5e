//! Reads every file because a person wants to know now whether all are what they are called.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::api::Step;
use crate::cache::integrity::Verdict;
use crate::digest::Digest;
use crate::library::Library;
use crate::scrub::{self, Remedy};
use crate::server::reply::{Reply, steps};
use crate::store::blob::Blob;

/// How many lines may wait for a command to read them.
const QUEUED_STEPS: usize = 64;
/// It is said how far it is after so many bytes.
const STEP_BYTES: u64 = 64 << 20;

/// A file that is replaced while it is read is read so often.
const MOST_READINGS: usize = 3;

/// Reads every file, and says which are not what they are called; with `repair`, these leave the store and are fetched
/// again.
pub fn verify(library: &Arc<Library>, repair: bool) -> Reply {
    let (told, lines) = mpsc::channel(QUEUED_STEPS);
    let library = Arc::clone(library);
    tokio::task::spawn_blocking(move || {
        let last = read_all(&library, repair, &told)
            .unwrap_or_else(|reason| Step::Failed { error: format!("the store cannot be read: {reason}") });
        // Whoever asked may have left.
        drop(told.blocking_send(last));
    });
    steps(lines)
}

/// What a look at one name came to.
enum Look {
    /// There is no such file, and nobody said that there is one.
    Nothing,
    Right,
    /// It is wrong or missing, and this is what became of it.
    Broken(String),
    /// The same, and it could not be had again.
    Lost(String),
    /// It cannot be read, or not be removed.
    Trouble(String),
}

/// How many files there were of each kind.
#[derive(Default)]
struct Count {
    right: usize,
    broken: usize,
    lost: usize,
    in_trouble: usize,
}

fn read_all(library: &Library, repair: bool, told: &mpsc::Sender<Step>) -> io::Result<Step> {
    let blobs = all(library)?;
    let total = blobs.values().sum();
    let (mut count, mut done, mut shown) = (Count::default(), 0, 0);
    for (digest, size) in &blobs {
        if let Some(text) = count.add(look_at(library, *digest, repair)) {
            tracing::error!("{text}");
            drop(told.blocking_send(Step::Note { text }));
        }
        done += size;
        // A stop does not wait for a large store to be read.
        if library.is_ending() {
            return Ok(Step::Failed { error: "the server is stopping".to_owned() });
        }
        // Whoever asked has left, and nothing is to be repaired: there is no more to do.
        if told.is_closed() && !repair {
            break;
        }
        if done >= shown + STEP_BYTES {
            shown = done;
            drop(told.try_send(Step::Progress { done, total }));
        }
    }
    Ok(count.sum(repair))
}

/// All files that are in the store or that the ledger has, with their sizes as far as it knows them.
fn all(library: &Library) -> io::Result<BTreeMap<Digest, u64>> {
    let mut blobs = BTreeMap::new();
    library.cache.store().each_digest(|digest| blobs.extend([(digest, 0)]))?;
    library.cache.books().read(|ledger| blobs.extend(ledger.blobs().map(|(digest, held)| (digest, held.size))));
    Ok(blobs)
}

/// Looks at one name. Another file may take its place while it is read.
fn look_at(library: &Library, digest: Digest, repair: bool) -> Look {
    let look = (0..MOST_READINGS).find_map(|_| look_once(library, digest, repair));
    look.unwrap_or_else(|| Look::Trouble(format!("{digest} was replaced again and again while it was read")))
}

/// The same, if no other one did.
fn look_once(library: &Library, digest: Digest, repair: bool) -> Option<Look> {
    let cache = &library.cache;
    let is_held = || cache.books().read(|ledger| ledger.blob(digest).is_some());
    let was_held = is_held();
    Some(match cache.examine(digest) {
        Ok(None) if was_held => missing(library, digest, repair),
        Ok(Some(Verdict::Gone)) if is_held() => return None,
        // Of the latter somebody let go.
        Ok(None | Some(Verdict::Gone)) => Look::Nothing,
        Ok(Some(Verdict::Right(blob))) => match cache.vouch(&blob) {
            Ok(_) => Look::Right,
            Err(error) => Look::Trouble(format!("{digest} cannot be looked at again: {error}")),
        },
        Ok(Some(Verdict::Wrong(blob))) => wrong(library, blob, repair),
        Err(error) => Look::Trouble(format!("{digest} cannot be read: {error}")),
    })
}

fn missing(library: &Library, digest: Digest, repair: bool) -> Look {
    if !repair {
        return Look::Broken(format!("{digest} is not there any more"));
    }
    let claims = library.cache.books().read(|ledger| ledger.claims(digest).collect());
    // This thread may wait.
    let remedy = Handle::current().block_on(scrub::fetch_again(&library.cache, &library.fetcher, claims));
    Look::of(remedy, &format!("{digest} was not there any more"))
}

fn wrong(library: &Library, blob: Blob, repair: bool) -> Look {
    let said = format!("{} is not what it is called", blob.digest);
    if !repair {
        if let Err(error) = library.cache.withhold(&blob) {
            tracing::warn!(digest = %blob.digest, %error, "a file that is wrong cannot be looked at again; nobody gets it");
        }
        return Look::Broken(said);
    }
    match Handle::current().block_on(scrub::replace(&library.cache, &library.fetcher, blob)) {
        Ok(remedy) => Look::of(remedy, &said),
        Err(error) => Look::Trouble(format!("{said}, and cannot be removed: {error}")),
    }
}

impl Look {
    fn of(Remedy { is_good, text }: Remedy, what: &str) -> Self {
        let text = format!("{what}; it {text}");
        if is_good { Self::Broken(text) } else { Self::Lost(text) }
    }
}

impl Count {
    /// Counts a look; what is to be said of it.
    fn add(&mut self, look: Look) -> Option<String> {
        let (count, text) = match look {
            Look::Nothing => return None,
            Look::Right => (&mut self.right, None),
            Look::Broken(text) => (&mut self.broken, Some(text)),
            Look::Lost(text) => (&mut self.lost, Some(text)),
            Look::Trouble(text) => (&mut self.in_trouble, Some(text)),
        };
        *count += 1;
        text
    }

    fn sum(&self, repair: bool) -> Step {
        let Self { right, broken, lost, in_trouble } = self;
        let (bad, files) = (broken + lost, right + broken + lost + in_trouble);
        let error = match (in_trouble, lost, bad, repair) {
            (0, _, 0, _) => return Step::Done { text: format!("{files} files are what they are called") },
            (0, 0, _, true) => return Step::Done { text: format!("{bad} of {files} files were broken or missing") },
            (0, 0, _, false) => {
                format!(
                    "{bad} of {files} files are broken or missing; cistern cache verify --repair has them fetched again; where a bundle brought them, import that again"
                )
            }
            (0, ..) => format!("{bad} of {files} files were broken or missing, and {lost} could not be fetched again; try that later"),
            _ => format!("{in_trouble} of {files} files cannot be read or removed, and {bad} are broken or missing; look at the disk"),
        };
        Step::Failed { error }
    }
}
