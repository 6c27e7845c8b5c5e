//! Sends a bundle to the server of a site, which says what it wants of it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::{Method, Response, StatusCode};
use indicatif::ProgressBar;

use crate::api::{ImportPlan, ImportReport};
use crate::bundle::arrival::expected;
use crate::bundle::inspection::{Inspection, Told};
use crate::bundle::volume::{Sealed, open_all};
use crate::cli::admin::{Target, ask, bar, exchange, good};
use crate::cli::bundle::report::show;
use crate::cli::exit::{FAILED, Failure, TRY_AGAIN};
use crate::cli::table::Format;
use crate::cli::upload::{self, Outgoing};
use crate::digest::{Digest, Expected, Hasher};
use crate::disk::{self, Disk as _, OsDisk};
use crate::manifest::{BundlePath, File, Manifest};
use crate::store::partial::rehash;

/// So many files are sent at once.
const FILES_AT_ONCE: usize = 4;

/// What is imported.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The folders of a bundle, one or more of its volumes; or - for what 'bundle export --stdout' wrote
    #[arg(required = true, value_name = "DIR")]
    pub folders: Vec<PathBuf>,
    /// Say what would come of it, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take a bundle in the place of a newer one
    #[arg(long)]
    pub allow_rollback: bool,
}

impl Arguments {
    /// Whether it comes through standard input.
    pub fn is_stream(&self) -> bool {
        matches!(&self.folders[..], [only] if only.as_os_str() == "-")
    }
}

/// A bundle that the server knows of.
#[derive(Debug)]
pub struct Offered<'a> {
    socket: &'a Path,
    /// What it wants of it.
    pub plan: ImportPlan,
}

/// What became of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sent {
    /// It is held.
    Whole,
    /// It is on another disk.
    NotHere,
    /// It is not what the manifest says.
    Broken(String),
}

/// Sends what is wanted, and has the bundle listed.
pub async fn run(socket: &Path, format: Format, arguments: &Arguments) -> Result<(), Failure> {
    let folders = &arguments.folders;
    let Sealed { manifest, text, signature } = open_all(&OsDisk, folders, None)?;
    let offered = Offered::new(socket, text, &signature, arguments.allow_rollback).await?;
    glance(folders, &manifest)?;
    offered.send_documents(folders, &manifest).await?;
    let outlook = offered.look().await?;
    if arguments.dry_run || !outlook.lacking.is_empty() {
        return show(format, &outlook, &offered.plan, true);
    }
    let bar = bar("importing");
    let sent = offered.send_blobs(folders, &manifest, &bar).await;
    bar.finish_and_clear();
    let (is_all, faults) = sent?;
    refuse(&faults)?;
    let report = offered.commit().await?;
    show(format, &report, &offered.plan, false)?;
    went(&report, is_all)
}

/// What was sent and is not there any more had to make room for something.
pub fn went(report: &ImportReport, is_all_sent: bool) -> Result<(), Failure> {
    if is_all_sent && !report.listed {
        return Err(Failure::new(
            TRY_AGAIN,
            "some of what was held is not any more: it was on its way out, a file that was found in the store was damaged, or there is no room for all of it; run this again, and if that does not help, see storage.capacity and storage.min_free",
        ));
    }
    Ok(())
}

/// Names everything that is missing, too short, too long or too much, before anything is sent.
fn glance(folders: &[PathBuf], manifest: &Manifest) -> Result<(), Failure> {
    let mut faults = Vec::new();
    Inspection::at_a_glance(&OsDisk, folders, manifest.clone()).run(&mut |told| {
        if let Told::Wrong(finding) = told {
            faults.push(finding.to_string());
        }
    });
    refuse(&faults)
}

/// Nothing of a bundle is listed that has faults.
pub fn refuse(faults: &[String]) -> Result<(), Failure> {
    if faults.is_empty() {
        return Ok(());
    }
    faults.iter().for_each(|fault| println!("{fault}"));
    Err(Failure::new(FAILED, format!("the bundle has {} faults, and nothing of it is listed; copy or export it again", faults.len())))
}

impl<'a> Offered<'a> {
    /// Shows the server a manifest.
    pub async fn new(socket: &'a Path, text: Vec<u8>, signature: &[u8], allow_rollback: bool) -> Result<Self, Failure> {
        let target = Target::new(&["1.0", "bundles", "imports"])?.with("signature", Some(&BASE64.encode(signature)));
        let target = target.with("allow_rollback", allow_rollback.then_some("true"));
        let plan = ask(socket, Method::POST, &target.to_string(), text).await?;
        Ok(Self { socket, plan })
    }

    /// Sends a document whole.
    pub async fn send_document(&self, path: &BundlePath, bytes: Vec<u8>) -> Result<(), Failure> {
        ask(self.socket, Method::PUT, &self.target(path)?.to_string(), bytes).await
    }

    /// Where a file is sent to.
    pub fn target(&self, path: &BundlePath) -> Result<Target, Failure> {
        let path = path.to_string();
        let segments: Vec<&str> = ["1.0", "bundles", "imports", &self.plan.id].into_iter().chain(path.split('/')).collect();
        Target::new(&segments)
    }

    /// What would come of it.
    pub async fn look(&self) -> Result<ImportReport, Failure> {
        ask(self.socket, Method::GET, &self.own()?, Vec::new()).await
    }

    /// Has it listed.
    pub async fn commit(&self) -> Result<ImportReport, Failure> {
        ask(self.socket, Method::POST, &self.own()?, Vec::new()).await
    }

    fn own(&self) -> Result<String, Failure> {
        Ok(Target::new(&["1.0", "bundles", "imports", &self.plan.id])?.to_string())
    }

    /// Whether the server wants a document.
    pub fn wants(&self, path: &BundlePath) -> bool {
        self.plan.documents.contains(&path.to_string())
    }

    async fn send_documents(&self, folders: &[PathBuf], manifest: &Manifest) -> Result<(), Failure> {
        // All volumes have the same documents. Those that are not wanted are looked at all the same, unless the bundle is here already.
        let Some(folder) = folders.first().filter(|_| !self.plan.is_known) else { return Ok(()) };
        let mut faults = Vec::new();
        for document in &manifest.documents {
            let path = folder.join(document.path.to_string());
            match read(&path, document) {
                Ok(Some(bytes)) if self.wants(&document.path) => self.send_document(&document.path, bytes).await?,
                Ok(Some(_)) => {}
                Ok(None) => faults.push(format!("{}: is not what the manifest says", path.display())),
                Err(error) => faults.push(format!("{}: {error}", path.display())),
            }
        }
        refuse(&faults)
    }

    /// Sends what is wanted of these volumes; whether that is all that is wanted, and what is broken, which keeps nothing else back.
    async fn send_blobs(&self, folders: &[PathBuf], manifest: &Manifest, bar: &ProgressBar) -> Result<(bool, Vec<String>), Failure> {
        let wanted: HashSet<&str> = self.plan.blobs.iter().map(String::as_str).collect();
        let blobs = manifest.blobs().map(|(_, file)| (file, file.path.to_string())).filter(|(_, path)| wanted.contains(path.as_str()));
        let blobs: Vec<(&File, String)> = blobs.collect();
        bar.set_length(blobs.iter().map(|(file, _)| file.size).sum());
        // While one is made sure of on the disk, the next ones come.
        let sending = stream::iter(blobs).map(|(blob, name)| self.send_blob(folders, blob, name, bar));
        let sent: Vec<Sent> = sending.buffer_unordered(FILES_AT_ONCE).try_collect().await?;
        let is_all = !sent.contains(&Sent::NotHere);
        let mut faults: Vec<String> =
            sent.into_iter().filter_map(|sent| if let Sent::Broken(fault) = sent { Some(fault) } else { None }).collect();
        faults.sort();
        Ok((is_all, faults))
    }

    /// Hands a file over, or sends its bytes if something keeps open files from arriving.
    async fn send_file(&self, target: Target, file: Outgoing, bar: &ProgressBar) -> Result<Response<Incoming>, Failure> {
        let bytes = target.to_string();
        let open = target.with("handed", Some("true")).to_string();
        let handing = exchange(self.socket, Method::PUT, &open, Empty::new(), Some(file.file.clone()));
        let answer = upload::watch(&file, bar, handing).await?;
        if answer.status() != StatusCode::UNSUPPORTED_MEDIA_TYPE {
            return Ok(answer);
        }
        exchange(self.socket, Method::PUT, &bytes, upload::body(vec![file], bar.clone()), None).await
    }

    /// Sends one blob. If that is not what the server wants, it is looked at whose fault that is.
    async fn send_blob(&self, folders: &[PathBuf], blob: &File, name: String, bar: &ProgressBar) -> Result<Sent, Failure> {
        let here = folders.iter().map(|folder| folder.join(&name)).find_map(|path| Some((OsDisk.open_own(&path).ok()??, path)));
        let Some((file, path)) = here else { return Ok(Sent::NotHere) };
        let outgoing = Outgoing { path: path.clone(), file: file.clone(), size: blob.size };
        let answer = self.send_file(self.target(&blob.path)?, outgoing, bar).await?;
        let is_suspect = answer.status() == StatusCode::BAD_REQUEST;
        match good(answer).await {
            Ok(_) => Ok(Sent::Whole),
            Err(failure) if is_suspect => {
                let expected = expected(blob);
                let fault = tokio::task::spawn_blocking(move || fault(&file, &path, expected)).await;
                fault.map_err(|error| Failure::new(FAILED, error))?.map(Sent::Broken).ok_or(failure)
            }
            Err(failure) => Err(failure),
        }
    }
}

/// What is wrong with a file.
fn fault(file: &disk::File, path: &Path, expected: Expected) -> Option<String> {
    let mut hasher = Hasher::new(expected);
    match rehash(file, &mut hasher).map(|()| hasher.verify()) {
        Err(error) => Some(format!("{}: cannot be read: {error}", path.display())),
        Ok(Err(mismatch)) => Some(format!("{}: {mismatch}", path.display())),
        Ok(Ok(_)) => None,
    }
}

/// Reads a document, if it is what the manifest says.
fn read(path: &Path, expected: &File) -> std::io::Result<Option<Vec<u8>>> {
    let Some(file) = OsDisk.open_own(path)? else { return Ok(None) };
    let bytes = file.read_all(expected.size.saturating_add(1))?;
    Ok(Some(bytes).filter(|bytes| Digest::of(bytes) == expected.sha256))
}
