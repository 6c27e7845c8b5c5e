//! Upstream's documents on disk, one folder for each snapshot.
//!
//! A snapshot is written beside the others and gets its name last, so that one with a name is whole. One that cannot be
//! read is passed over: there is an older one, or upstream has it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk};
use crate::http::path::StreamPath;
use crate::simplestreams::snapshot::{Role, Snapshot, Source};
use crate::store::layout::Layout;

const MANIFEST: &str = "snapshot.json";
const VALIDATORS: &str = "validators.json";
/// A snapshot without its last name.
const FRESH: &str = ".new";
const MAX_MANIFEST_BYTES: u64 = 16 << 20;

/// What a URL said of a document when it last sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    /// Its `ETag`.
    pub etag: Option<String>,
    /// Its `Last-Modified`.
    pub last_modified: Option<String>,
    /// The digest of what it sent: a 304 means these bytes and no others.
    pub digest: String,
}

/// The validators of a remote, by URL and by path.
pub type ValidatorsByUrl = BTreeMap<String, BTreeMap<String, Validators>>;

#[derive(Serialize, Deserialize)]
struct Manifest {
    url: String,
    accepted_at: String,
    documents: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    path: String,
    role: Role,
    sha256: String,
}

/// Writes a snapshot without its last name: documents first, then their folders. What was staged before is thrown away.
pub fn stage(disk: &dyn Disk, layout: &Layout, remote: &str, snapshot: &Snapshot) -> io::Result<()> {
    let folder = layout.documents(remote);
    let fresh = folder.join(FRESH);
    disk.remove(&fresh)?;
    let mut folders = BTreeSet::from([fresh.clone()]);
    for source in &snapshot.documents {
        let path = document(&fresh, &source.path);
        let parent = path.parent().unwrap_or(&fresh).to_owned();
        disk.create_directory(&parent)?;
        folders.extend(parent.ancestors().take_while(|above| *above != folder).map(Path::to_owned));
        write(disk, &path, &source.bytes)?;
    }
    write(disk, &fresh.join(MANIFEST), &manifest(snapshot)?)?;
    folders.iter().rev().try_for_each(|folder| disk.sync_directory(folder))
}

/// Gives what was staged its name: from now on it is what a start finds.
pub fn settle(disk: &dyn Disk, layout: &Layout, remote: &str, accepted_at: Timestamp) -> io::Result<()> {
    let folder = layout.documents(remote);
    disk.rename(&folder.join(FRESH), &folder.join(name(accepted_at)))?;
    disk.sync_directory(&folder)
}

/// Reads all snapshots of a remote, the newest first.
pub fn load(disk: &dyn Disk, layout: &Layout, remote: &str) -> io::Result<Vec<Snapshot>> {
    let mut snapshots = Vec::new();
    for found in disk.list(&layout.documents(remote))?.into_iter().rev().filter(|found| found.is_directory && found.name != FRESH) {
        match read(disk, &found.path) {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(error) => tracing::warn!(path = %found.path.display(), %error, "passing over documents that cannot be read"),
        }
    }
    Ok(snapshots)
}

/// Removes a snapshot.
pub fn remove(disk: &dyn Disk, layout: &Layout, remote: &str, accepted_at: Timestamp) -> io::Result<()> {
    let trash = layout.trash().join(format!("{remote}-{}", name(accepted_at)));
    disk.rename(&layout.documents(remote).join(name(accepted_at)), &trash)?;
    disk.remove(&trash)
}

/// Notes the validators of a remote.
pub fn save_validators(disk: &dyn Disk, layout: &Layout, remote: &str, validators: &ValidatorsByUrl) -> io::Result<()> {
    let folder = layout.documents(remote);
    disk.create_directory(&folder)?;
    disk::replace(disk, &folder.join(VALIDATORS), &serde_json::to_vec(validators)?)
}

/// Reads the validators of a remote; none if they cannot be read, and then documents are asked for whole.
pub fn load_validators(disk: &dyn Disk, layout: &Layout, remote: &str) -> ValidatorsByUrl {
    let read = || {
        let bytes = disk.open(&layout.documents(remote).join(VALIDATORS))?.read_all(MAX_MANIFEST_BYTES)?;
        serde_json::from_slice(&bytes).map_err(io::Error::from)
    };
    read().unwrap_or_default()
}

/// A name that sorts by time.
fn name(accepted_at: Timestamp) -> String {
    format!("{:020}", accepted_at.as_millisecond())
}

fn document(folder: &Path, path: &StreamPath) -> PathBuf {
    folder.join("documents").join(path.as_str())
}

fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.create(path)?;
    disk.write_at(&file, bytes, 0)?;
    disk.sync(&file)
}

fn manifest(snapshot: &Snapshot) -> io::Result<Vec<u8>> {
    let entry = |source: &Source| Entry { path: source.path.to_string(), role: source.role, sha256: source.digest.to_string() };
    let documents = snapshot.documents.iter().map(entry).collect();
    let manifest = Manifest { url: snapshot.url.clone(), accepted_at: snapshot.accepted_at.to_string(), documents };
    serde_json::to_vec_pretty(&manifest).map_err(io::Error::from)
}

fn read(disk: &dyn Disk, folder: &Path) -> io::Result<Snapshot> {
    let bytes = disk.open(&folder.join(MANIFEST))?.read_all(MAX_MANIFEST_BYTES)?;
    let manifest: Manifest = serde_json::from_slice(&bytes)?;
    let documents = manifest.documents.iter().map(|entry| read_document(disk, folder, entry)).collect::<io::Result<_>>()?;
    Ok(Snapshot { url: manifest.url, accepted_at: manifest.accepted_at.parse().map_err(io::Error::other)?, documents })
}

fn read_document(disk: &dyn Disk, folder: &Path, entry: &Entry) -> io::Result<Source> {
    let path = StreamPath::from_document(&entry.path).map_err(io::Error::other)?;
    let bytes = disk.open(&document(folder, &path))?.read_all(u64::MAX)?;
    let source = Source::new(path, entry.role, bytes.into());
    if source.digest.to_string() != entry.sha256 {
        return Err(io::Error::other(format!("{} is not what was written", source.path)));
    }
    Ok(source)
}
