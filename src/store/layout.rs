//! Where things are in a store.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::{Claim, Digest, Expected, Fingerprint};
use crate::disk::Disk;

/// The paths of a store.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The paths below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder of the store itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that a process holds locked.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The folder of all blobs.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs").join("sha256")
    }

    /// A blob.
    pub fn blob(&self, digest: Digest) -> PathBuf {
        let hex = digest.to_string();
        self.blobs().join(&hex[..2]).join(hex)
    }

    /// The folder of partial files.
    pub fn partials(&self) -> PathBuf {
        self.root.join("partials")
    }

    /// The partial file of a fetch.
    pub fn partial(&self, expected: Expected) -> PathBuf {
        self.partials().join(expected.to_string())
    }

    /// The folder of a remote's documents.
    pub fn documents(&self, remote: &str) -> PathBuf {
        self.root.join("documents").join(remote)
    }

    /// What is known of a claim that is no digest.
    pub fn learnt(&self, claim: Claim) -> PathBuf {
        self.learnt_folder().join(claim.to_string())
    }

    /// The folder of learnt digests.
    pub fn learnt_folder(&self) -> PathBuf {
        self.root.join("learnt")
    }

    /// What says how far the store was read again.
    pub fn scrubbed(&self) -> PathBuf {
        self.root.join("scrub.json")
    }

    /// What says that an image is not what it was listed as.
    pub fn wrong(&self, image: Digest) -> PathBuf {
        self.all_wrong().join(image.to_string())
    }

    /// The folder of images that are not what they were listed as.
    pub fn all_wrong(&self) -> PathBuf {
        self.root.join("wrong")
    }

    /// What is known of a held image.
    pub fn record(&self, fingerprint: Fingerprint) -> PathBuf {
        self.records().join(fingerprint.to_string())
    }

    /// The folder of held images.
    pub fn records(&self) -> PathBuf {
        self.root.join("records")
    }

    /// What people decided about an image.
    pub fn decision(&self, fingerprint: Fingerprint) -> PathBuf {
        self.decisions().join(fingerprint.to_string())
    }

    /// The folder of what people decided about images.
    pub fn decisions(&self) -> PathBuf {
        self.root.join("state").join("images")
    }

    /// The folder of images of our own.
    pub fn publications(&self) -> PathBuf {
        self.root.join("state").join("published")
    }

    /// The folder of names that people gave.
    pub fn aliases(&self) -> PathBuf {
        self.root.join("state").join("aliases")
    }

    /// The key that bundles are signed with.
    pub fn bundle_key(&self) -> PathBuf {
        self.bundles().join("key.pem")
    }

    /// Which bundles were made.
    pub fn bundle_exports(&self) -> PathBuf {
        self.bundles().join("exports.json")
    }

    /// The folder of the keys whose bundles are taken.
    pub fn trusted_keys(&self) -> PathBuf {
        self.bundles().join("trusted")
    }

    /// The folder of what was imported: manifests, and the documents with them.
    pub fn imports(&self) -> PathBuf {
        self.bundles().join("imported")
    }

    /// The folder of what was imported in part: manifests.
    pub fn begun(&self) -> PathBuf {
        self.bundles().join("begun")
    }

    /// The folder with the names of the remotes that bundles brought.
    pub fn fed_remotes(&self) -> PathBuf {
        self.bundles().join("remotes")
    }

    fn bundles(&self) -> PathBuf {
        self.root.join("state").join("bundles")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.root.join("ledger.sqlite")
    }

    /// Where things wait for removal.
    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// The folder of the certificates that we make.
    pub fn tls(&self) -> PathBuf {
        self.root.join("tls")
    }

    /// Makes all folders; what could not be made, and why.
    pub fn create(&self, disk: &dyn Disk) -> Result<(), (PathBuf, io::Error)> {
        let blobs = self.blobs();
        create_for_blobs(disk, &blobs).map_err(|error| (blobs, error))?;
        let folders = [
            self.partials(),
            self.root.join("documents"),
            self.learnt_folder(),
            self.all_wrong(),
            self.records(),
            self.decisions(),
            self.publications(),
            self.aliases(),
            self.bundles(),
            self.trusted_keys(),
            self.imports(),
            self.begun(),
            self.fed_remotes(),
            self.trash(),
            self.tls(),
        ];
        folders.into_iter().try_for_each(|folder| disk.create_directory(&folder).map_err(|error| (folder, error)))?;
        let sync = |folder: PathBuf| disk.sync_directory(&folder).map_err(|error| (folder, error));
        [self.bundles(), self.root.join("state"), self.root.clone()].into_iter().try_for_each(sync)
    }
}

/// Makes the folders of blobs at once, so that a commit has one folder to sync and not two.
fn create_for_blobs(disk: &dyn Disk, blobs: &Path) -> io::Result<()> {
    if disk.names(blobs)?.len() >= 256 {
        return Ok(());
    }
    for first in 0..=u8::MAX {
        match disk.create_directory(&blobs.join(format!("{first:02x}"))) {
            // What somebody put there has no blobs in it, and is none of our business.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => created?,
        }
    }
    disk.sync_directory(blobs)
}
