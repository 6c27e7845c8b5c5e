//! Reads a bundle from standard input, as it comes.
//!
//! Nobody can be asked for anything again, and nothing is kept here: what the server wants of a file is sent on at once.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::{Method, StatusCode};
use indicatif::ProgressBar;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::cli::admin::{bar, exchange, good};
use crate::cli::bundle::import::{Arguments, Offered, refuse, went};
use crate::cli::bundle::report::show;
use crate::cli::exit::{FAILED, Failure, TRY_AGAIN};
use crate::cli::table::Format;
use crate::digest::Digest;
use crate::manifest::{File, MANIFEST, MAX_MANIFEST_BYTES, Manifest, SIGNATURE};

const READ_BYTES: usize = 256 * 1024;
/// How many pieces may wait for the server.
const QUEUED_PIECES: usize = 4;
const MAX_SIGNATURE_BYTES: u64 = 4096;
const MAX_NAME_BYTES: u64 = 4096;

/// Reads it, sends what is wanted, and has the bundle listed.
pub async fn run(socket: &Path, format: Format, arguments: &Arguments) -> Result<(), Failure> {
    let (socket, handle, arguments) = (socket.to_owned(), Handle::current(), arguments.clone());
    // Standard input and the archive wait for each other, on a thread of their own.
    let reading = tokio::task::spawn_blocking(move || read(&socket, format, &arguments, &handle, io::stdin()));
    reading.await.map_err(|error| Failure::new(FAILED, error))?
}

fn read(socket: &Path, format: Format, arguments: &Arguments, handle: &Handle, input: impl Read) -> Result<(), Failure> {
    let mut archive = tar::Archive::new(input);
    // Long names are read here, for nobody has signed them yet.
    let mut entries = archive.entries().map_err(broken)?.raw(true);
    let signature = whole(next(&mut entries, SIGNATURE)?, SIGNATURE, MAX_SIGNATURE_BYTES)?;
    let text = whole(next(&mut entries, MANIFEST)?, MANIFEST, MAX_MANIFEST_BYTES)?;
    let manifest = Manifest::parse(&text).map_err(|reason| Failure::new(FAILED, format!("standard input: {MANIFEST}: {reason}")))?;
    let offered = handle.block_on(Offered::new(socket, text, &signature, arguments.allow_rollback))?;
    for document in &manifest.documents {
        let name = document.path.to_string();
        let bytes = whole(next(&mut entries, &name)?, &name, document.size)?;
        if bytes.len() as u64 != document.size || Digest::of(&bytes) != document.sha256 {
            return Err(Failure::new(FAILED, format!("standard input: {} is not what the manifest says; send it again", document.path)));
        }
        if offered.wants(&document.path) {
            handle.block_on(offered.send_document(&document.path, bytes))?;
        }
    }
    let outlook = handle.block_on(offered.look())?;
    if arguments.dry_run || !outlook.lacking.is_empty() {
        return show(format, &outlook, &offered.plan, true);
    }
    let bar = bar("importing");
    bar.set_length(manifest.blobs().map(|(_, file)| file.size).sum());
    let wanted: HashSet<&str> = offered.plan.blobs.iter().map(String::as_str).collect();
    let mut faults = Vec::new();
    for (_, blob) in manifest.blobs() {
        let name = blob.path.to_string();
        let entry = next(&mut entries, &name)?;
        if wanted.contains(name.as_str()) {
            faults.extend(pass_on(socket, &offered, blob, entry, handle, &bar)?);
        } else {
            bar.inc(blob.size);
        }
    }
    bar.finish_and_clear();
    refuse(&faults)?;
    let report = handle.block_on(offered.commit())?;
    show(format, &report, &offered.plan, false)?;
    went(&report, true)
}

/// The next file, which has to be this one.
fn next<'a, R: Read>(entries: &mut tar::Entries<'a, R>, name: &str) -> Result<tar::Entry<'a, R>, Failure> {
    let mut long = None;
    loop {
        let entry = entries.next().ok_or_else(|| ended(name))?.map_err(broken)?;
        if entry.header().entry_type().is_gnu_longname() {
            long = Some(whole(entry, name, MAX_NAME_BYTES)?);
            continue;
        }
        let found = long.unwrap_or_else(|| entry.path_bytes().into_owned());
        let found = String::from_utf8_lossy(&found);
        if found.trim_end_matches('\0') != name || !entry.header().entry_type().is_file() {
            let found = found.escape_debug();
            let reason = format!("standard input has '{found}' where {name} should be; is it what 'cistern bundle export --stdout' wrote?");
            return Err(Failure::new(FAILED, reason));
        }
        return Ok(entry);
    }
}

fn ended(name: &str) -> Failure {
    Failure::new(TRY_AGAIN, format!("standard input ended before the end of {name}; send it again"))
}

/// A small file, which is what tells what is to come.
fn whole<R: Read>(entry: tar::Entry<'_, R>, name: &str, most: u64) -> Result<Vec<u8>, Failure> {
    let size = entry.size();
    if size > most {
        return Err(Failure::new(FAILED, format!("standard input: {name} is larger than it may be")));
    }
    let mut bytes = Vec::new();
    entry.take(size).read_to_end(&mut bytes).map_err(broken)?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err(ended(name)) }
}

/// Sends a blob to the server while it is read; what is wrong with it, which keeps nothing else back.
fn pass_on(
    socket: &Path,
    offered: &Offered<'_>,
    blob: &File,
    mut entry: impl Read,
    handle: &Handle,
    bar: &ProgressBar,
) -> Result<Option<String>, Failure> {
    let (pieces, queue) = mpsc::channel::<io::Result<Frame<Bytes>>>(QUEUED_PIECES);
    let body = StreamBody::new(stream::unfold(queue, |mut queue| async move { Some((queue.recv().await?, queue)) }));
    let (socket, target) = (socket.to_owned(), offered.target(&blob.path)?.to_string());
    let sending = handle.spawn(async move {
        let answer = exchange(&socket, Method::PUT, &target, body, None).await?;
        let is_broken = answer.status() == StatusCode::BAD_REQUEST;
        match good(answer).await {
            Err(failure) if is_broken => Ok(Some(format!("standard input: {}", failure.message))),
            answer => answer.map(|_| None),
        }
    });
    let (mut buffer, mut left) = (vec![0; READ_BYTES], blob.size);
    let mut is_wanted = true;
    while left > 0 {
        let read = entry.read(&mut buffer).map_err(broken)?;
        if read == 0 {
            return Err(ended(&blob.path.to_string()));
        }
        left = left.saturating_sub(read as u64);
        // If nobody takes it, the server has said why; what comes after it is another file.
        is_wanted = is_wanted && pieces.blocking_send(Ok(Frame::data(Bytes::copy_from_slice(&buffer[..read])))).is_ok();
        bar.inc(read as u64);
    }
    drop(pieces);
    handle.block_on(sending).map_err(|error| Failure::new(FAILED, error))?
}

#[expect(clippy::needless_pass_by_value, reason = "errors are given away where they are turned into others")]
fn broken(error: io::Error) -> Failure {
    if error.raw_os_error().is_some() || error.kind() == io::ErrorKind::UnexpectedEof {
        return Failure::new(TRY_AGAIN, format!("standard input cannot be read: {error}; send it again"));
    }
    Failure::new(FAILED, "standard input is no archive; is it what 'cistern bundle export --stdout' wrote, and did it come as it was sent?")
}
