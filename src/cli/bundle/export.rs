//! Writes a bundle to folders. The server says what is in it and signs that; the folders are opened here.

use std::path::{Path, PathBuf};

use clap::Args;
use http_body_util::BodyExt as _;
use hyper::Method;
use indicatif::ProgressBar;

use crate::api::{ExportRequest, ExportedImage};
use crate::cli::admin::{Target, ask, bar, body, follow, request};
use crate::cli::bundle::folder::{BadFolder, Folder, expected};
use crate::cli::exit::{FAILED, Failure, TRY_AGAIN, WRONG_USAGE};
use crate::cli::table::{Format, print, size};
use crate::config::value::{Amount, BadValue};
use crate::disk::{Disk as _, OsDisk};
use crate::manifest::{BundlePath, File, MANIFEST, Manifest, SIGNATURE};

const MAX_KEY_BYTES: u64 = 32 << 10;

/// What is exported, and where to.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Images, or all of a remote; without any, all that is held
    #[arg(value_name = "[REMOTE:][ALIAS]")]
    images: Vec<String>,
    /// The folder that it is written to
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    to: Option<PathBuf>,
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
    /// Show what would be in it, and neither fetch nor write anything
    #[arg(long)]
    dry_run: bool,
}

/// A bundle that the server has made.
struct Made<'a> {
    socket: &'a Path,
    id: String,
    text: Vec<u8>,
    manifest: Manifest,
}

/// Writes it, and prints its folders.
pub async fn run(socket: &Path, format: Format, arguments: &Arguments) -> Result<(), Failure> {
    if arguments.dry_run {
        let images: Vec<ExportedImage> = ask(socket, Method::POST, "/1.0/bundles/preview", body(&arguments.wish()?)?).await?;
        return preview(format, &images);
    }
    let Some(to) = &arguments.to else { return Err(Failure::new(WRONG_USAGE, "--to says where the bundle is written to")) };
    let made = Made::order(socket, arguments).await?;
    let signature = made.fetch(SIGNATURE).await?;
    let bar = bar("writing");
    let volumes = made.manifest.volumes.len().max(1);
    let documents: u64 = made.manifest.documents.iter().map(|file| file.size).sum();
    bar.set_length(made.manifest.blobs().map(|(_, file)| file.size).sum::<u64>() + documents * volumes as u64);
    for number in 0..volumes {
        let path = if volumes == 1 { to.clone() } else { to.join(format!("volume-{}", number + 1)) };
        made.write(&path, number, &signature, &bar).await?;
    }
    bar.finish_and_clear();
    let Manifest { generation, .. } = made.manifest;
    println!("bundle {generation}: {} files, {}, in {}", made.manifest.files().count(), size(made.manifest.size()), to.display());
    Ok(())
}

impl Arguments {
    fn wish(&self) -> Result<ExportRequest, Failure> {
        let Self { images, select, arch, vm, versions, volume_size, key, .. } = self;
        let unreadable = |path: &Path, error| Failure::new(FAILED, format!("cannot read the key {}: {error}", path.display()));
        let read = |path: &PathBuf| {
            let bytes = OsDisk.open(path).and_then(|file| file.read_all(MAX_KEY_BYTES)).map_err(|error| unreadable(path, error))?;
            Ok::<_, Failure>(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(ExportRequest {
            images: images.clone(),
            select: select.clone(),
            arch: arch.clone(),
            vm: *vm,
            versions: *versions,
            volume_size: volume_size.map(|Amount(bytes)| bytes),
            key: key.as_ref().map(read).transpose()?,
        })
    }
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
        let id = follow(request(socket, Method::POST, "/1.0/bundles", body(&arguments.wish()?)?).await?, "fetching").await?;
        let text = fetch(socket, &id, MANIFEST).await?;
        let manifest = Manifest::parse(&text).map_err(|reason| Failure::new(FAILED, format!("the server's manifest: {reason}")))?;
        Ok(Self { socket, id, text, manifest })
    }

    async fn fetch(&self, name: &str) -> Result<Vec<u8>, Failure> {
        fetch(self.socket, &self.id, name).await
    }

    /// Writes one volume.
    async fn write(&self, path: &Path, number: usize, signature: &[u8], bar: &ProgressBar) -> Result<(), Failure> {
        let blobs = self.manifest.volumes.get(number).map_or(&[][..], |volume| &volume.blobs);
        let files = || self.manifest.documents.iter().chain(blobs);
        let Some(folder) = Folder::open(path, &self.text, signature, &self.manifest)? else {
            bar.inc(files().map(|file| file.size).sum());
            return Ok(());
        };
        for file in files() {
            self.copy(&folder, file, bar).await?;
        }
        Ok(folder.seal(&self.text, signature)?)
    }

    /// Writes one file, from where it was left.
    async fn copy(&self, folder: &Folder, file: &File, bar: &ProgressBar) -> Result<(), Failure> {
        let Some(mut part) = folder.begin(&file.path, expected(file))? else {
            bar.inc(file.size);
            return Ok(());
        };
        bar.inc(part.len());
        if part.len() < file.size {
            let target = target(&self.id, &file.path.to_string())?.with("from", Some(&part.len().to_string()));
            let mut bytes = request(self.socket, Method::GET, &target.to_string(), Vec::new()).await?.into_body();
            while let Some(frame) = bytes.frame().await {
                let frame = frame.map_err(|error| Failure::new(TRY_AGAIN, format!("the server broke off: {error}; run this again")))?;
                let Ok(piece) = frame.into_data() else { continue };
                part.append(&piece).map_err(|error| failed(&file.path, error))?;
                bar.inc(piece.len() as u64);
            }
        }
        if folder.finish(part)? {
            Ok(())
        } else {
            Err(Failure::new(TRY_AGAIN, format!("{} did not come whole; run this again", file.path)))
        }
    }
}

/// Disks are sold by decimal units: what is called 64G has 64 GB.
fn volume_size(text: &str) -> Result<Amount, BadValue> {
    if text.ends_with(['M', 'G', 'T']) { format!("{text}B").parse() } else { text.parse() }
}

#[expect(clippy::needless_pass_by_value, reason = "errors are given away where they are turned into others")]
fn failed(path: &BundlePath, error: std::io::Error) -> Failure {
    Failure::new(FAILED, format!("cannot write {path}: {error}; make room and run this again"))
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
