//! Writes a bundle to folders. The server says what is in it and signs that; the folders are opened here.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http_body_util::BodyExt as _;
use hyper::Method;
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use crate::api::{CacheStatus, ExportRequest, ExportedFile, ExportedImage, ExportedTree};
use crate::bundle::plan::TREE;
use crate::cli::admin::{Target, ask, bar, body, follow_with, request};
use crate::cli::bundle::archive::Archive;
use crate::cli::bundle::folder::{Folder, volumes};
use crate::cli::bundle::key::read_key;
use crate::cli::bundle::lock::Lock;
use crate::cli::bundle::part::{BadFolder, Part};
use crate::cli::bundle::tree::Tree;
use crate::cli::exit::{FAILED, Failure, TRY_AGAIN, WRONG_USAGE};
use crate::cli::table::{Format, print, size};
use crate::clock::{Clock as _, SystemClock};
use crate::config::value::{Amount, BadValue};
use crate::digest::Digest;
use crate::disk::{Disk as _, OsDisk};
use crate::manifest::{BundlePath, File, MANIFEST, Manifest, SIGNATURE};
use crate::store::layout::Layout;

/// The inventory of a site with half a million files.
const MAX_INVENTORY_BYTES: u64 = 48 << 20;

/// So many files are written at once.
const FILES_AT_ONCE: usize = 4;
/// How many pieces of a file may wait for the disk.
const QUEUED_PIECES: usize = 4;

/// What is exported, and where to.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Images, or all of a remote; without any, all that is held
    #[arg(value_name = "[REMOTE:][ALIAS]")]
    images: Vec<String>,
    /// The folder that it is written to
    #[arg(long, value_name = "DIR", required_unless_present_any = ["tree", "stdout", "dry_run"])]
    to: Option<PathBuf>,
    /// Write it to standard output as a tar archive, which 'bundle import -' reads: for a line that goes one way
    #[arg(long, conflicts_with_all = ["to", "tree", "volume_size"])]
    stdout: bool,
    /// Write a plain simplestreams tree instead, for any web server; the same folder is brought up to date again and again
    #[arg(long, value_name = "DIR", conflicts_with_all = ["to", "volume_size", "key"])]
    tree: Option<PathBuf>,
    /// Only what passes: KEY=VALUE, KEY!=VALUE, KEY~REGEX or KEY!~REGEX; may be given several times
    #[arg(long, value_name = "FILTER")]
    select: Vec<String>,
    /// Only images for this architecture
    #[arg(long)]
    arch: Option<String>,
    /// Only virtual machines
    #[arg(long)]
    vm: bool,
    /// The newest so many versions of each image
    #[arg(long, value_name = "N", default_value_t = 0)]
    versions: usize,
    /// Split it into folders of at most this size, such as 64G or 4GiB
    #[arg(long, value_name = "SIZE", value_parser = volume_size)]
    volume_size: Option<Amount>,
    /// Sign with this private key, from now on; without it one is made and kept
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Leave out what a site has: a file with what 'cistern bundle inventory' prints there
    #[arg(long, value_name = "FILE", conflicts_with = "tree")]
    have: Option<PathBuf>,
    /// Show what would be in it, and neither fetch nor write anything
    #[arg(long)]
    dry_run: bool,
}

/// A bundle that the server has made.
struct Made<'a> {
    socket: &'a Path,
    /// The server's store: where the file system can, what is written shares the bytes of what is held.
    store: Layout,
    id: String,
    text: Vec<u8>,
    manifest: Manifest,
}

/// Writes it, and prints where it is.
pub async fn run(socket: &Path, format: Format, arguments: &Arguments) -> Result<(), Failure> {
    if arguments.dry_run {
        let images: Vec<ExportedImage> = ask(socket, Method::POST, "/1.0/bundles/preview", body(&arguments.wish()?)?).await?;
        return preview(format, &images);
    }
    let made = Made::order(socket, arguments).await?;
    let bar = bar("writing");
    match (&arguments.to, &arguments.tree) {
        (Some(to), _) => made.write_volumes(to, &bar).await,
        (None, Some(tree)) => made.write_tree(tree, &bar).await,
        (None, None) if arguments.stdout => made.write_stream(&bar).await,
        (None, None) => Err(Failure::new(WRONG_USAGE, "--to, --tree or --stdout says where it is written to")),
    }
}

impl Arguments {
    fn wish(&self) -> Result<ExportRequest, Failure> {
        let Self { images, select, arch, vm, versions, volume_size, key, have, .. } = self;
        Ok(ExportRequest {
            images: images.clone(),
            select: select.clone(),
            arch: arch.clone(),
            vm: *vm,
            versions: *versions,
            volume_size: volume_size.map(|Amount(bytes)| bytes),
            key: key.as_deref().map(read_key).transpose()?,
            have: have.as_deref().map(read_inventory).transpose()?,
        })
    }
}

fn read_inventory(path: &Path) -> Result<String, Failure> {
    let read = OsDisk.open(path).and_then(|file| file.read_all(MAX_INVENTORY_BYTES));
    let bytes = read.map_err(|error| Failure::new(FAILED, format!("cannot read the inventory {}: {error}", path.display())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn preview(format: Format, images: &[ExportedImage]) -> Result<(), Failure> {
    let row = |image: &ExportedImage| {
        let ExportedImage { remote, product, version, image_type, fingerprint, size: bytes, held, .. } = image;
        let held = if *held { "yes" } else { "no" };
        let short = fingerprint.get(..12).unwrap_or(fingerprint);
        [remote, product, version, image_type, short, &size(*bytes), held].map(ToOwned::to_owned).to_vec()
    };
    let rows: Vec<Vec<String>> = images.iter().map(row).collect();
    print(format, &["REMOTE", "PRODUCT", "VERSION", "TYPE", "FINGERPRINT", "SIZE", "HELD"], &rows, &images)
}

impl<'a> Made<'a> {
    /// Has the server make it.
    async fn order(socket: &'a Path, arguments: &Arguments) -> Result<Self, Failure> {
        let reply = request(socket, Method::POST, "/1.0/bundles", body(&arguments.wish()?)?).await?;
        // Standard output may be the bundle itself.
        let id = follow_with(reply, "fetching", &|note| eprintln!("{note}")).await?;
        let text = fetch(socket, &id, MANIFEST).await?;
        let manifest = Manifest::parse(&text).map_err(|reason| Failure::new(FAILED, format!("the server's manifest: {reason}")))?;
        let CacheStatus { path, .. } = ask(socket, Method::GET, "/1.0/cache", Vec::new()).await?;
        Ok(Self { socket, store: Layout::new(Path::new(&path)), id, text, manifest })
    }

    async fn fetch(&self, name: &str) -> Result<Vec<u8>, Failure> {
        fetch(self.socket, &self.id, name).await
    }

    async fn write_volumes(&self, to: &Path, bar: &ProgressBar) -> Result<(), Failure> {
        let signature = self.fetch(SIGNATURE).await?;
        let _lock = Lock::take(to)?;
        let paths = volumes(to, self.manifest.volumes.len().max(1))?;
        let open = |(number, path)| Folder::open(path, &self.text, &self.manifest, number);
        let folders = paths.into_iter().enumerate().map(open).collect::<Result<Vec<_>, _>>()?;
        bar.set_length(folders.iter().flat_map(Folder::files).map(|file| file.size).sum());
        let files = folders.iter().flat_map(|folder| folder.files().iter().map(move |file| (folder, *file)));
        // While one is made sure of on the disk, the next ones come.
        let writing = stream::iter(files).map(|(folder, file)| self.write_file(folder, file, bar));
        writing.buffer_unordered(FILES_AT_ONCE).try_collect::<()>().await?;
        // All at once: until then all of them can be gone on with, however the bundle is split.
        folders.iter().try_for_each(|folder| folder.seal(&signature))?;
        bar.finish_and_clear();
        let Manifest { generation, .. } = self.manifest;
        println!("bundle {generation}: {} files, {}, in {}", self.manifest.files().count(), size(self.manifest.size()), to.display());
        Ok(())
    }

    async fn write_file(&self, folder: &Folder<'_>, file: &File, bar: &ProgressBar) -> Result<(), Failure> {
        match folder.begin(file)? {
            Some(part) => self.copy(part, &file.path.to_string(), file.size, bar).await?,
            None => bar.inc(file.size),
        }
        Ok(())
    }

    async fn write_tree(&self, folder: &Path, bar: &ProgressBar) -> Result<(), Failure> {
        let wanted: ExportedTree = serde_json::from_slice(&self.fetch(TREE).await?)
            .map_err(|error| Failure::new(FAILED, format!("the server's answer cannot be read, is it of another version? {error}")))?;
        bar.set_length(wanted.files.iter().map(|file| file.size).sum());
        let _lock = Lock::take(folder)?;
        let mut tree = Tree::open(folder, &wanted, SystemClock.now())?;
        for file in &wanted.files {
            match tree.begin(file)? {
                Some(part) => self.copy(part, &blob(file), file.size, bar).await?,
                None => bar.inc(file.size),
            }
            tree.note(file);
        }
        for document in &wanted.documents {
            if !tree.has(document)? {
                tree.publish(&document.path, &self.fetch(&format!("{TREE}/{}", document.path)).await?)?;
            }
            tree.note(document);
        }
        let removed = tree.finish(wanted.grace, SystemClock.now())?;
        bar.finish_and_clear();
        println!("{}: {} files, {removed} old ones removed", folder.display(), wanted.files.len() + wanted.documents.len());
        Ok(())
    }

    /// Takes a blob from the store as it lies there. Whoever may not open it, and every other file system, gets it from the server.
    fn share(&self, part: &mut Part, name: &str) -> Result<bool, Failure> {
        let Some(BundlePath::Blob(digest)) = BundlePath::parse(name) else { return Ok(false) };
        let Ok(Some(held)) = OsDisk.open_own(&self.store.blob(digest)) else { return Ok(false) };
        Ok(part.share(&held)?)
    }

    /// Writes it as a tar archive: what tells what is to come first, then documents, then blobs.
    async fn write_stream(&self, bar: &ProgressBar) -> Result<(), Failure> {
        let mut archive = Archive::new(std::io::stdout().lock(), &self.manifest);
        let signature = self.fetch(SIGNATURE).await?;
        archive.file(SIGNATURE, &signature)?;
        archive.file(MANIFEST, &self.text)?;
        bar.set_length(self.manifest.size());
        for file in self.manifest.files() {
            let name = file.path.to_string();
            archive.begin(&name, file.size)?;
            let mut bytes = request(self.socket, Method::GET, &target(&self.id, &name)?.to_string(), Vec::new()).await?.into_body();
            while let Some(frame) = bytes.frame().await {
                let piece = frame.map_err(|error| broken_off(&error))?.into_data().unwrap_or_default();
                archive.append(&piece)?;
                bar.inc(piece.len() as u64);
            }
            archive.end(&name)?;
        }
        archive.finish()?;
        bar.finish_and_clear();
        let Manifest { generation, .. } = self.manifest;
        eprintln!("bundle {generation}: {} files, {}", self.manifest.files().count(), size(self.manifest.size()));
        Ok(())
    }

    /// Writes one file, from where it was left.
    async fn copy(&self, mut part: Part, name: &str, size: u64, bar: &ProgressBar) -> Result<(), Failure> {
        bar.inc(part.len());
        if size > 0 && self.share(&mut part, name)? {
            bar.inc(size);
        } else if part.len() < size {
            let target = target(&self.id, name)?.with("from", Some(&part.len().to_string()));
            let mut bytes = request(self.socket, Method::GET, &target.to_string(), Vec::new()).await?.into_body();
            let (pieces, queue) = mpsc::channel(QUEUED_PIECES);
            let writing = tokio::task::spawn_blocking(move || append(part, queue));
            while let Some(frame) = bytes.frame().await {
                let piece = frame.map_err(|error| broken_off(&error))?.into_data().unwrap_or_default();
                bar.inc(piece.len() as u64);
                if pieces.send(piece).await.is_err() {
                    // Whoever writes says why.
                    break;
                }
            }
            drop(pieces);
            part = writing.await.map_err(|error| Failure::new(FAILED, error))??;
        }
        let finished = tokio::task::spawn_blocking(move || part.finish());
        if finished.await.map_err(|error| Failure::new(FAILED, error))?? {
            Ok(())
        } else {
            Err(Failure::new(TRY_AGAIN, format!("{name} did not come whole; run this again")))
        }
    }
}

fn broken_off(error: &hyper::Error) -> Failure {
    Failure::new(TRY_AGAIN, format!("the server broke off: {error}; run this again"))
}

/// Hashes and writes what comes, beside whoever receives it.
fn append(mut part: Part, mut queue: mpsc::Receiver<Bytes>) -> Result<Part, BadFolder> {
    while let Some(piece) = queue.blocking_recv() {
        part.append(&piece)?;
    }
    Ok(part)
}

/// Where a file of a tree is, in the bundle.
fn blob(file: &ExportedFile) -> String {
    Digest::from_hex(&file.sha256).map(|digest| BundlePath::Blob(digest).to_string()).unwrap_or_default()
}

/// Disks are sold by decimal units: what is called 64G has 64 GB.
fn volume_size(text: &str) -> Result<Amount, BadValue> {
    if text.ends_with(['M', 'G', 'T']) { format!("{text}B").parse() } else { text.parse() }
}

async fn fetch(socket: &Path, id: &str, name: &str) -> Result<Vec<u8>, Failure> {
    let reply = request(socket, Method::GET, &target(id, name)?.to_string(), Vec::new()).await?;
    let collected = reply.into_body().collect().await.map_err(|error| Failure::new(TRY_AGAIN, format!("the server broke off: {error}")))?;
    Ok(collected.to_bytes().to_vec())
}

fn target(id: &str, path: &str) -> Result<Target, Failure> {
    let segments: Vec<&str> = ["1.0", "bundles", id].into_iter().chain(path.split('/')).collect();
    Target::new(&segments)
}

impl From<BadFolder> for Failure {
    fn from(error: BadFolder) -> Self {
        Self::new(FAILED, error)
    }
}
