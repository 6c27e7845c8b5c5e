//! Looks into the files of an image: what they are, and what the image says of itself.

use std::io::{self, Read};

use crate::digest::{Fingerprint, FingerprintHasher};
use crate::image::ftype::{Client, ImageType, Root};
use crate::image::magic::{MAGIC_BYTES, Magic, Packing};
use crate::image::metadata::{BadMetadata, Metadata};
use crate::library::unpack::{Meter, Reading, unpack};
use crate::store::blob::Blob;

const READ_BYTES: usize = 256 * 1024;
/// A `metadata.yaml` has no more bytes than this.
const MAX_METADATA_BYTES: u64 = 1 << 20;
/// Nobody's metadata comes after so many files.
const MAX_ENTRIES: usize = 2_000_000;
/// Nor after so many unpacked bytes: a small file may unpack to more than any disk has.
const MAX_UNPACKED_BYTES: u64 = 64 << 30;

/// Why files are no image.
#[derive(Debug, thiserror::Error)]
pub enum NoImageFile {
    /// The first file is no tarball.
    #[error("{name} is {what}; an image's metadata is a tarball")]
    NoTarball {
        /// The file.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// It does not have what every image has.
    #[error("{0} has no metadata.yaml; is it an image?")]
    NoMetadata(String),
    /// It has no root and came alone.
    #[error("{0} has no rootfs, so that it is an image's metadata alone; name the root after it")]
    NoRoot(String),
    /// It has a root and came with another one.
    #[error("{0} has a rootfs of its own; an image has one root")]
    TwoRoots(String),
    /// The second file ends early.
    #[error("{0} is a squashfs that ends before its end")]
    CutOff(String),
    /// The second file is no root.
    #[error("{name} is {what}; a root is a squashfs, a tarball packed with xz, or a qcow2 disk")]
    NotARoot {
        /// The file.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// What the image says of itself makes no sense.
    #[error("{name}: {reason}")]
    BadMetadata {
        /// The file.
        name: String,
        /// Why.
        reason: BadMetadata,
    },
    /// A tarball cannot be read.
    #[error("{name} cannot be unpacked: {reason}")]
    Broken {
        /// The file.
        name: String,
        /// What was said.
        reason: io::Error,
    },
}

/// What the files of an image are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// What it says of itself.
    pub metadata: Metadata,
    /// SHA-256 of all its bytes.
    pub fingerprint: Fingerprint,
    /// What it runs as.
    pub image_type: ImageType,
    /// Of each file what hosts call it, and its `ftype`.
    pub names: Vec<(String, &'static str)>,
}

/// Reads the one file of an image, or metadata and root, under the names that people call them.
pub fn inspect(files: &[(&str, &Blob)]) -> Result<Inspected, NoImageFile> {
    let (name, metadata) = files[0];
    let found = look_into(name, metadata)?;
    let (image_type, names) = match (files.get(1), found.root) {
        (Some(_), Some(_)) => return Err(NoImageFile::TwoRoots(name.to_owned())),
        (None, None) => return Err(NoImageFile::NoRoot(name.to_owned())),
        (None, Some(image_type)) => {
            // LXD runs every unified image as a container; Incus can be told otherwise.
            let client = if image_type == ImageType::Container { Client::Lxd } else { Client::Incus };
            (image_type, vec![(format!("image{}", found.suffix), client.unified_ftype())])
        }
        (Some((name, root)), None) => {
            let (kind, root_name) = root_of(name, root)?;
            let metadata = (format!("lxd{}", found.suffix), Client::Lxd.metadata_ftype());
            (kind.image_type(), vec![metadata, (root_name.to_owned(), kind.ftype())])
        }
    };
    let fingerprint = fingerprint(files).map_err(|reason| NoImageFile::Broken { name: name.to_owned(), reason })?;
    Ok(Inspected { metadata: found.metadata, fingerprint, image_type, names })
}

fn root_of(name: &str, root: &Blob) -> Result<(Root, &'static str), NoImageFile> {
    match magic(root).map_err(|reason| NoImageFile::Broken { name: name.to_owned(), reason })? {
        Magic::Squashfs if is_whole_squashfs(root) => Ok((Root::Squashfs, "rootfs.squashfs")),
        Magic::Squashfs => Err(NoImageFile::CutOff(name.to_owned())),
        Magic::Qcow2 => Ok((Root::DiskKvm, "disk.qcow2")),
        Magic::Packed(Packing::Xz) if has_tarball(root) => {
            read_to_the_end(root).map_err(|reason| NoImageFile::Broken { name: name.to_owned(), reason })?;
            Ok((Root::TarXz, "rootfs.tar.xz"))
        }
        other => Err(NoImageFile::NotARoot { name: name.to_owned(), what: other.label() }),
    }
}

/// Whether a squashfs has as many bytes as its superblock says that it uses.
fn is_whole_squashfs(root: &Blob) -> bool {
    const BYTES_USED: u64 = 40;
    let mut used = [0; 8];
    root.file().read_at(&mut used, BYTES_USED).is_ok_and(|read| read == used.len()) && u64::from_le_bytes(used) <= root.size
}

/// Whether what is packed is a tarball.
fn has_tarball(root: &Blob) -> bool {
    let unpacked = unpack(root, Magic::Packed(Packing::Xz)).map(|unpacked| tar::Archive::new(Meter::default().over(unpacked)));
    unpacked.is_ok_and(|mut archive| archive.entries().is_ok_and(|mut entries| entries.next().is_some_and(|entry| entry.is_ok())))
}

/// Unpacks a file whole: only what comes last, and checksums with it, shows that nothing is missing.
fn read_to_the_end(file: &Blob) -> io::Result<()> {
    drain(unpack(file, Magic::Packed(Packing::Xz))?.take(MAX_UNPACKED_BYTES))
}

fn drain(mut rest: impl Read) -> io::Result<()> {
    io::copy(&mut rest, &mut io::sink()).map(drop)
}

/// What the first file has.
struct Found {
    metadata: Metadata,
    /// What the image runs as, if the file has its root too.
    root: Option<ImageType>,
    suffix: &'static str,
}

fn look_into(name: &str, file: &Blob) -> Result<Found, NoImageFile> {
    let broken = |reason| NoImageFile::Broken { name: name.to_owned(), reason };
    let magic = magic(file).map_err(broken)?;
    let suffix = match magic {
        Magic::Packed(packing) => packing.suffix(),
        Magic::Tar => ".tar",
        other => return Err(NoImageFile::NoTarball { name: name.to_owned(), what: other.label() }),
    };
    let meter = Meter::default();
    let mut archive = tar::Archive::new(meter.over(unpack(file, magic).map_err(broken)?.take(MAX_UNPACKED_BYTES)));
    let (mut metadata, mut root) = (None, None);
    for entry in archive.entries().map_err(broken)?.take(MAX_ENTRIES) {
        let mut entry = entry.map_err(broken)?;
        meter.allow_for(&entry).map_err(broken)?;
        let path = entry.path().map_err(broken)?.display().to_string();
        let path = path.trim_start_matches("./").trim_end_matches('/');
        if path == "metadata.yaml" && entry.header().entry_type().is_file() {
            metadata = Some(read(&mut entry).map_err(broken)?);
        } else if path == "rootfs.img" {
            root = Some(ImageType::VirtualMachine);
        } else if path == "rootfs" || path.starts_with("rootfs/") {
            root = root.or(Some(ImageType::Container));
        }
    }
    // A tarball says itself where it ends; what it is packed with may say more after that.
    meter.allow_all();
    drain(archive.into_inner()).map_err(broken)?;
    let text = metadata.ok_or_else(|| NoImageFile::NoMetadata(name.to_owned()))?;
    let metadata = Metadata::parse(&text).map_err(|reason| NoImageFile::BadMetadata { name: name.to_owned(), reason })?;
    Ok(Found { metadata, root, suffix })
}

fn read(entry: &mut impl Read) -> io::Result<String> {
    let mut text = String::new();
    entry.take(MAX_METADATA_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_METADATA_BYTES {
        let reason = format!("its metadata.yaml has more than {MAX_METADATA_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(text)
}

fn magic(file: &Blob) -> io::Result<Magic> {
    let mut start = [0; MAGIC_BYTES];
    let read = file.file().read_at(&mut start, 0)?;
    Ok(Magic::of(&start[..read]))
}

fn fingerprint(files: &[(&str, &Blob)]) -> io::Result<Fingerprint> {
    let mut hasher = FingerprintHasher::default();
    let mut buffer = vec![0; READ_BYTES];
    for (_, file) in files {
        let mut reading = Reading::new(file);
        loop {
            let read = reading.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
        }
    }
    Ok(hasher.finish())
}
