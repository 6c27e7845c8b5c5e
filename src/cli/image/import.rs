//! Sends an image of our own to the server. The files are opened here: the server opens no path that a command names.

use std::path::{Path, PathBuf};

use clap::Args;
use hyper::Method;

use crate::cli::admin::{Target, bar, follow, send};
use crate::cli::exit::{FAILED, Failure, WRONG_USAGE};
use crate::cli::upload::{Outgoing, body};
use crate::digest::{Claim, Digest, Expected, Hasher};
use crate::disk::{Disk as _, OsDisk};
use crate::store::partial::rehash;

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

/// Sends it, and prints its fingerprint.
pub async fn run(socket: &Path, arguments: &Arguments) -> Result<(), Failure> {
    let (paths, properties) = split(&arguments.given)?;
    let mut files = Vec::new();
    for path in paths {
        files.push(tokio::task::spawn_blocking(move || open(path)).await.map_err(|error| Failure::new(FAILED, error))??);
    }
    let mut target = Target::new(&["1.0", "imports"])?;
    for (Outgoing { path, size, .. }, digest) in &files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        target = target.with("file", Some(&format!("{digest}:{size}:{name}")));
    }
    let target = arguments.alias.iter().fold(target, |target, alias| target.with("alias", Some(alias)));
    let target = properties.iter().fold(target, |target, property| target.with("property", Some(property)));
    let target = target.with("public", arguments.public.then_some("true"));
    let bar = bar("sending");
    let files: Vec<Outgoing> = files.into_iter().map(|(file, _)| file).collect();
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
fn open(path: PathBuf) -> Result<(Outgoing, Digest), Failure> {
    let unreadable = |error: std::io::Error| Failure::new(FAILED, format!("cannot read {}: {error}", path.display()));
    let file = OsDisk.open(&path).map_err(unreadable)?;
    let mut hasher = Hasher::new(Expected { claim: Claim::Sha256(Digest::of(b"")), size: None });
    rehash(&file, &mut hasher).map_err(unreadable)?;
    let (size, digest) = (hasher.len(), hasher.digest());
    Ok((Outgoing { path, file, size }, digest))
}
