//! Sends an image of our own to the server. The files are opened here: the server opens no path that a command names.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::Method;
use hyper::body::Frame;
use indicatif::ProgressBar;

use crate::cli::admin::{Target, bar, follow, send};
use crate::cli::exit::{FAILED, Failure, WRONG_USAGE};
use crate::digest::{Claim, Digest, Expected, Hasher};
use crate::disk::{Disk as _, File, OsDisk};
use crate::store::partial::rehash;

const READ_BYTES: usize = 256 * 1024;
/// No client takes more files for an image.
const MOST_FILES: usize = 2;

/// What is imported, and as what.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A unified tarball, or metadata and root; then properties
    #[arg(required = true, value_name = "META [ROOT] [KEY=VALUE]")]
    given: Vec<String>,
    /// A name for it; may be given several times
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Let hosts see it
    #[arg(long)]
    public: bool,
}

/// A file that is to be sent.
struct Outgoing {
    path: PathBuf,
    file: File,
    size: u64,
    digest: Digest,
}

/// Sends it, and prints its fingerprint.
pub async fn run(socket: &Path, arguments: &Arguments) -> Result<(), Failure> {
    let (paths, properties) = split(&arguments.given)?;
    let mut files = Vec::new();
    for path in paths {
        files.push(tokio::task::spawn_blocking(move || open(path)).await.map_err(|error| Failure::new(FAILED, error))??);
    }
    let mut target = Target::new(&["1.0", "imports"])?;
    for Outgoing { path, size, digest, .. } in &files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        target = target.with("file", Some(&format!("{digest}:{size}:{name}")));
    }
    let target = arguments.alias.iter().fold(target, |target, alias| target.with("alias", Some(alias)));
    let target = properties.iter().fold(target, |target, property| target.with("property", Some(property)));
    let target = target.with("public", arguments.public.then_some("true"));
    let bar = bar("sending");
    bar.set_length(files.iter().map(|file| file.size).sum());
    let reply = send(socket, Method::POST, &target.to_string(), body(files, bar.clone())).await?;
    bar.finish_and_clear();
    println!("{}", follow(reply, "importing").await?);
    Ok(())
}

/// Files come first; what has an equals sign and is no file is a property.
fn split(arguments: &[String]) -> Result<(Vec<PathBuf>, &[String]), Failure> {
    let is_file = |argument: &String| !argument.contains('=') || OsDisk.open(Path::new(argument)).is_ok();
    let files = arguments.iter().take_while(|argument| is_file(argument)).count();
    let (paths, properties) = arguments.split_at(files);
    if let Some(wrong) = properties.iter().find(|property| !property.contains('=')) {
        return Err(Failure::new(WRONG_USAGE, format!("'{wrong}' comes after properties; files come first")));
    }
    if !(1..=MOST_FILES).contains(&files) {
        return Err(Failure::new(WRONG_USAGE, format!("an image has one file, or metadata and root; these are {files}")));
    }
    Ok((paths.iter().map(PathBuf::from).collect(), properties))
}

/// Opens a file and computes what it is called in the store.
fn open(path: PathBuf) -> Result<Outgoing, Failure> {
    let unreadable = |error: std::io::Error| Failure::new(FAILED, format!("cannot read {}: {error}", path.display()));
    let file = OsDisk.open(&path).map_err(unreadable)?;
    let mut hasher = Hasher::new(Expected { claim: Claim::Sha256(Digest::of(b"")), size: None });
    rehash(&file, &mut hasher).map_err(unreadable)?;
    let (size, digest) = (hasher.len(), hasher.digest());
    Ok(Outgoing { path, file, size, digest })
}

/// All bytes of all files, one after the other.
fn body(files: Vec<Outgoing>, bar: ProgressBar) -> StreamBody<impl futures_util::Stream<Item = std::io::Result<Frame<Bytes>>> + Send> {
    let first = (files.into_iter().filter(|file| file.size > 0), None::<Outgoing>, 0_u64, bar);
    StreamBody::new(stream::try_unfold(first, |(mut files, current, position, bar)| async move {
        let (current, position) = match current.filter(|current| position < current.size) {
            Some(current) => (current, position),
            None => match files.next() {
                Some(next) => (next, 0),
                None => return Ok(None),
            },
        };
        let mut buffer = vec![0; READ_BYTES];
        let read = current.file.read_at(&mut buffer, position)?;
        if read == 0 {
            return Err(std::io::Error::other(format!("{} became shorter", current.path.display())));
        }
        buffer.truncate(read);
        bar.inc(read as u64);
        Ok(Some((Frame::data(Bytes::from(buffer)), (files, Some(current), position + read as u64, bar))))
    }))
}
