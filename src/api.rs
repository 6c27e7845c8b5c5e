//! What travels over the admin socket, as JSON.
//!
//! Field names are part of what scripts rely on (`--format json`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a remote is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteStatus {
    /// Its name.
    pub name: String,
    /// Its URLs, without secrets.
    pub urls: Vec<String>,
    /// How it is held.
    pub mode: String,
    /// Whether at least one URL answers.
    pub healthy: bool,
    /// The URLs that do not.
    #[serde(default)]
    pub failing: Vec<FailingUrl>,
    /// How many images are listed.
    pub images: usize,
    /// In mirror mode: what is not held yet.
    pub missing: Option<Missing>,
    /// New versions that hosts do not see before they are held.
    pub held_back: Vec<HeldBack>,
    /// The URL that the documents come from.
    pub documents_from: Option<String>,
    /// When the documents were last taken from upstream.
    pub documents_taken_at: Option<String>,
    /// When the documents were last seen to be current.
    pub last_success_at: Option<String>,
    /// How the last refresh ended.
    pub last_refresh: Option<LastRefresh>,
}

/// A URL that does not answer as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailingUrl {
    /// Which, without secrets.
    pub url: String,
    /// How often it failed in a row.
    pub failures: u32,
    /// Until when it is asked last.
    pub asked_last_until: String,
}

/// What a remote in mirror mode does not hold yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// How many files.
    pub files: usize,
    /// How many bytes, as far as documents say.
    pub bytes: u64,
    /// Why one of them could not be had, lately.
    pub problem: Option<String>,
}

/// What is to be in a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequest {
    /// `[REMOTE:]ALIAS`, `REMOTE:` or fingerprints; none means all that is held.
    pub images: Vec<String>,
    /// Filters, as in `remotes.*.select`.
    pub select: Vec<String>,
    /// For which architecture, if for one only.
    pub arch: Option<String>,
    /// Whether virtual machines are meant.
    pub vm: bool,
    /// The newest so many versions of each product; 0 means all.
    pub versions: usize,
    /// How many bytes a volume may have.
    pub volume_size: Option<u64>,
    /// A private key to sign with from now on, as PEM.
    #[serde(default)]
    pub key: Option<String>,
    /// The inventory of the site that it is for, which has that already.
    #[serde(default)]
    pub have: Option<String>,
}

/// A bundle as a tree that any web server can serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedTree {
    /// How long a file stays that is not listed any more, in seconds.
    pub grace: u64,
    /// Its documents, in the order in which they are to be written.
    pub documents: Vec<ExportedFile>,
    /// Its other files.
    pub files: Vec<ExportedFile>,
}

/// A file of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedFile {
    /// Where it is, below the top of the tree.
    pub path: String,
    /// What it is.
    pub sha256: String,
    /// How many bytes it has.
    pub size: u64,
}

/// An image that would be in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedImage {
    /// The remote that lists it.
    pub remote: String,
    /// What it is a build of.
    pub product: String,
    /// Its serial.
    pub version: String,
    /// `container` or `virtual-machine`.
    #[serde(rename = "type")]
    pub image_type: String,
    /// LXD's name of its architecture.
    pub architecture: String,
    /// What LXD calls it.
    pub fingerprint: String,
    /// How many bytes its files have, as far as documents say.
    pub size: u64,
    /// Whether it is held already.
    pub held: bool,
}

/// A new version that hosts do not see before it is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// What it is a build of.
    pub product: String,
    /// Its serial.
    pub version: String,
    /// `container` or `virtual-machine`.
    #[serde(rename = "type")]
    pub image_type: String,
    /// Since when it is there.
    pub since: String,
    /// Why it could not be had, lately.
    pub problem: Option<String>,
}

/// How a refresh ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRefresh {
    /// When.
    pub at: String,
    /// How.
    pub result: RefreshResult,
    /// Why, if it was refused or failed.
    pub reason: Option<String>,
}

/// The ways in which a refresh ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefreshResult {
    /// Upstream had new documents, and they are served.
    Changed,
    /// Upstream has what we have.
    Unchanged,
    /// What upstream has is not to be trusted; the old goes on.
    Refused,
    /// Upstream could not be asked; the old goes on.
    Failed,
}

impl RefreshResult {
    /// What metrics and people call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// A wish for a refresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// Take what comes, even if it is older or much is gone.
    #[serde(default)]
    pub accept: bool,
}

/// How an image is to be held from now on; what is not there stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageChange {
    /// Whether a newer version takes its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_update: Option<bool>,
    /// When it ends: a day, a time, or `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Whether hosts see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// Its properties; `null` removes one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Option<String>>,
}

/// An image that is to be brought in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyRequest {
    /// `[REMOTE:]ALIAS`, or a fingerprint.
    pub image: String,
    /// Whether a newer version takes its place when there is one.
    #[serde(default)]
    pub auto_update: bool,
    /// For which machines, if not for those like the server.
    #[serde(default)]
    pub architecture: Option<String>,
    /// Whether a virtual machine is meant.
    #[serde(default)]
    pub virtual_machine: bool,
}

/// One line about work that takes long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "event")]
pub enum Step {
    /// How far it is.
    Progress {
        /// So many bytes are done.
        done: u64,
        /// Of so many.
        total: u64,
    },
    /// Something came up.
    Note {
        /// What.
        text: String,
    },
    /// It is done.
    Done {
        /// What came of it, in a word or two.
        text: String,
    },
    /// It could not be done.
    Failed {
        /// One line that says what and why.
        error: String,
    },
}

/// What a site wants of a bundle that is offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportPlan {
    /// What the bundle is called while it is imported.
    pub id: String,
    /// Whether it is imported already.
    pub is_known: bool,
    /// The documents that are to be sent.
    pub documents: Vec<String>,
    /// The blobs that are to be sent: those that are not held.
    pub blobs: Vec<String>,
}

/// What came of an import, or what would come of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// The number of the bundle.
    pub generation: u64,
    /// When it was made.
    pub created_at: String,
    /// What the key is called that signed it.
    pub signed_by: String,
    /// Whether it is listed now.
    pub listed: bool,
    /// What becomes of each remote.
    pub remotes: Vec<ImportedRemote>,
    /// The volumes of which something is not held yet.
    pub missing: Vec<MissingVolume>,
    /// The files that it lists and that are neither in it nor held.
    pub lacking: Vec<String>,
    /// Why that is so, and what to do.
    pub why: Option<String>,
}

/// What becomes of a remote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedRemote {
    /// Its name.
    pub remote: String,
    /// Whether it is offline only since, or with, this bundle.
    pub is_new: bool,
    /// Images that were not listed.
    pub added: Vec<String>,
    /// Images that are listed no more.
    pub gone: Vec<String>,
    /// How many are listed.
    pub images: usize,
}

/// A volume of which something is not held yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingVolume {
    /// Its number, from 1.
    pub volume: usize,
    /// How many blobs of it are missing.
    pub blobs: usize,
    /// Their size.
    pub size: u64,
}

/// A wish to take the bundles of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustRequest {
    /// The public key.
    pub pem: String,
}

/// A bundle that a site has: the newest of its selection, or one of which not everything came yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedBundle {
    /// What tells its selection from every other.
    pub id: String,
    /// What was selected, as 'bundle export' was told.
    pub selection: String,
    /// How it is doing.
    pub state: BundleState,
    /// Its number.
    pub generation: u64,
    /// When it was made.
    pub created_at: String,
    /// What the key is called that signed it, if it is still trusted.
    pub signed_by: Option<String>,
    /// The remotes that it brings.
    pub remotes: Vec<String>,
    /// How many files it has.
    pub files: usize,
    /// Their size.
    pub size: u64,
}

/// How a bundle is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BundleState {
    /// Hosts see it.
    Listed,
    /// Something of it is still to come. What came stays.
    Incomplete,
    /// What was kept of it cannot be read; importing it again mends that.
    Damaged,
}

/// A key whose bundles are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedKey {
    /// What it is called.
    pub name: String,
    /// The key itself.
    pub pem: String,
}

/// What the store holds, and what it may hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Where the store is.
    pub path: String,
    /// Bytes that are held.
    pub size: u64,
    /// Bytes that may be.
    pub capacity: u64,
    /// Bytes that the file system has left.
    pub free: u64,
    /// Bytes that it keeps for others.
    pub min_free: u64,
    /// Files that are held.
    pub blobs: usize,
    /// Files that belong to no image.
    pub loose_blobs: usize,
    /// Images that are held whole.
    pub images: usize,
    /// Of these, the ones that are held only because hosts asked for them.
    pub cached_images: usize,
    /// Of these, the ones that are on their way out.
    pub leaving_images: usize,
    /// When that was last used which was not used for the longest.
    pub oldest_use_at: Option<String>,
}

/// A wish to let go of what is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PruneRequest {
    /// Say what would go, and let nothing go.
    pub dry_run: bool,
}

/// A wish to read every file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerifyRequest {
    /// Take out what is broken.
    pub repair: bool,
}

/// A name that a person gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The name.
    pub name: String,
    /// The image that it means now.
    pub fingerprint: String,
    /// The remote that the image is of; nothing if it is not held any more.
    pub remote: String,
    /// `container` or `virtual-machine`.
    #[serde(rename = "type")]
    pub image_type: String,
    /// By LXD's name.
    pub architecture: String,
    /// What the image says of itself.
    pub description: String,
}

/// A wish to give an image a name, or a name another name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AliasRequest {
    /// The image that gets it.
    pub image: Option<String>,
    /// Whether a virtual machine is meant.
    pub virtual_machine: bool,
    /// The name in its place.
    pub name: Option<String>,
}

/// One file of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// As upstream names it.
    pub name: String,
    /// In bytes, if its document says so.
    pub size: Option<u64>,
}

/// Something that went, or would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// `image` or `file`.
    pub kind: String,
    /// Its fingerprint, or its digest.
    pub name: String,
    /// Why: `idle`, `expired`, `superseded`, `withdrawn`, `size`.
    pub reason: String,
    /// In bytes.
    pub size: u64,
    /// Whether it is gone, or listed no more and goes after `images.grace`.
    pub at_once: bool,
    /// When it was last used.
    pub last_used_at: String,
}

/// What a refresh came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshReport {
    /// Of which remote.
    pub remote: String,
    /// How it ended.
    pub result: RefreshResult,
    /// Why, if it was refused or failed.
    pub reason: Option<String>,
    /// Whether it would be taken if a person said so.
    pub acceptable: bool,
    /// From which URL.
    pub url: Option<String>,
    /// How many images there were.
    pub images_before: usize,
    /// How many there are now, or would be if it was refused.
    pub images_after: usize,
    /// Products that are new.
    pub products_added: Vec<String>,
    /// Products that are gone, or would be if it was refused.
    pub products_gone: Vec<String>,
}

/// An image that is listed.
#[expect(clippy::struct_excessive_bools, reason = "these are LXD's flags, and their names are what scripts rely on")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// SHA-256 of its files, as its document says.
    pub fingerprint: String,
    /// The remote that lists it.
    pub remote: String,
    /// What it is a build of.
    pub product: String,
    /// Its serial.
    pub version: String,
    /// `container` or `virtual-machine`.
    #[serde(rename = "type")]
    pub image_type: String,
    /// By LXD's name.
    pub architecture: String,
    /// The aliases that mean this very image.
    pub aliases: Vec<String>,
    /// All its files, in bytes.
    pub size: u64,
    /// Whether it is held whole.
    pub held: bool,
    /// Whether it is held only because hosts asked for it.
    pub cached: bool,
    /// Whether a newer version takes its place when there is one.
    pub auto_update: bool,
    /// Whether hosts see it.
    pub public: bool,
    /// The day of its serial.
    pub created_at: String,
    /// When it ends, or its support does.
    pub expires_at: Option<String>,
    /// When its last file arrived.
    pub cached_at: Option<String>,
    /// When a host last used it.
    pub last_used_at: Option<String>,
    /// How often hosts did.
    pub use_count: u64,
    /// Why it is on its way out: `superseded` and the like. It goes when `images.grace` is over.
    pub leaving: Option<String>,
    /// What LXD and Incus make its properties.
    pub properties: BTreeMap<String, String>,
}

/// Why a command could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// One line that says what and why.
    pub error: String,
}
