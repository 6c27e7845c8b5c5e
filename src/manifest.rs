//! What a bundle says that it has: every file by volume, size and SHA-256.
//!
//! A bundle crosses an air gap on a disk that anybody may have had in hand. Its manifest is signed, and is read as if it were
//! not: what it names lies in the bundle and nowhere else, each name stands there once, and a blob's name is its digest.
//!
//! A bundle may be split into volumes, each a folder that can be brought by itself: the manifest, its signature and all
//! documents are in every one of them, and each blob is in one.

use std::collections::BTreeSet;
use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, PercentEncode, percent_decode_str, utf8_percent_encode};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::http::path::StreamPath;

/// What names on exFAT and NTFS have not, which most disks come with; upstream's documents have colons in theirs.
const NOT_ON_EVERY_DISK: AsciiSet = CONTROLS.add(b':').add(b'*').add(b'?').add(b'"').add(b'<').add(b'>').add(b'|').add(b'\\').add(b'%');

/// The `format` of the manifests that are written.
pub const FORMAT: &str = "bundle:1.0";
/// What the `format` of every manifest begins with.
const KIND: &str = "bundle:";
const BLOBS: &str = "blobs/sha256/";
const DOCUMENTS: &str = "documents/";
const RENDERED: &str = "rendered/";
/// More than a manifest may have. One of 100,000 files has a tenth of that.
pub const MAX_MANIFEST_BYTES: u64 = 256 << 20;
/// What the manifest is called in the folder of a volume.
pub const MANIFEST: &str = "manifest.json";
/// What its signature is called.
pub const SIGNATURE: &str = "manifest.json.sig";

/// A manifest, as it is written and as it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`]
    pub format: String,
    /// Counts the bundles of one exporter.
    pub generation: u64,
    /// The generation that a site must have for this one to be of use to it; `None` if it needs none.
    pub parent: Option<u64>,
    /// When it was made, in RFC 3339.
    pub created_at: String,
    /// What was asked for.
    pub selection: Selection,
    /// What every volume has.
    pub documents: Vec<File>,
    /// What else is on each disk that it travels on.
    pub volumes: Vec<Volume>,
}

/// Which images a bundle is to have. One with the same selection takes the place of an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// `[REMOTE:]ALIAS` or fingerprints; none means all that is held.
    pub images: Vec<String>,
    /// Filters, as in `remotes.*.select`.
    pub select: Vec<String>,
    /// For which architecture, if for one only.
    pub arch: Option<String>,
    /// Whether virtual machines are meant where there is a choice.
    pub vm: bool,
    /// The newest so many versions of each product; 0 means all.
    pub versions: usize,
}

/// One part of a bundle: a folder of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its blobs, by name.
    pub blobs: Vec<File>,
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where it is, below the folder of its volume.
    pub path: BundlePath,
    /// How many bytes it has.
    pub size: u64,
    /// What they are.
    #[serde(serialize_with = "as_text", deserialize_with = "digest")]
    pub sha256: Digest,
}

/// A place in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BundlePath {
    /// `blobs/sha256/ab/…`
    Blob(Digest),
    /// `documents/REMOTE/streams/v1/…`: a document as upstream has it. The remote, and the path below its top.
    Document(String, StreamPath),
    /// `rendered/REMOTE/streams/v1/…`: one that lists what the bundle has.
    Rendered(String, StreamPath),
}

/// Why a manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// It is cut off, or something else.
    #[error("it is no manifest: {0}")]
    NotReadable(String),
    /// Another program wrote it.
    #[error("its format is '{0}', and this version of cistern reads '{FORMAT}'")]
    Format(String),
    /// A blob is not what its name says.
    #[error("it calls {path} what has the SHA-256 {sha256}")]
    OtherDigest {
        /// Its name.
        path: BundlePath,
        /// What the manifest says that it is.
        sha256: Digest,
    },
    /// A blob stands among the documents, or a document among the blobs.
    #[error("it has {0} in the wrong list")]
    Misplaced(BundlePath),
    /// Two files have one name.
    #[error("it names {0} twice")]
    Twice(BundlePath),
    /// Its time is none.
    #[error("it was made at '{}', which is no time", .0.escape_debug())]
    Time(String),
    /// It needs what comes after it.
    #[error("it is of generation {generation} and needs generation {parent}")]
    Parent {
        /// Its own.
        generation: u64,
        /// The one that it needs.
        parent: u64,
    },
    /// No disk is that large.
    #[error("its files have more bytes than can be counted")]
    TooLarge,
}

#[derive(Deserialize)]
struct Head {
    format: String,
}

/// A bundle with nothing in it.
impl Default for Manifest {
    fn default() -> Self {
        Self {
            format: FORMAT.to_owned(),
            generation: 0,
            parent: None,
            created_at: jiff::Timestamp::UNIX_EPOCH.to_string(),
            selection: Selection::default(),
            documents: Vec::new(),
            volumes: Vec::new(),
        }
    }
}

impl Selection {
    /// What tells it from every other selection.
    pub fn id(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("strings and numbers always serialize"))
    }
}

impl Manifest {
    /// Reads one. The format is looked at first: what a newer one has besides is nothing that this one could judge.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadManifest> {
        let unreadable = |error: serde_json::Error| BadManifest::NotReadable(error.to_string());
        let Head { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if format != FORMAT {
            let is_ours = format.starts_with(KIND);
            return Err(if is_ours { BadManifest::Format(format) } else { BadManifest::NotReadable(format!("its format is '{format}'")) });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(unreadable)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The manifest as JSON; the same one gives the same bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("strings and numbers always serialize");
        json.push(b'\n');
        json
    }

    /// All blobs, with the number of their volume, from 0.
    pub fn blobs(&self) -> impl Iterator<Item = (usize, &File)> {
        self.volumes.iter().enumerate().flat_map(|(number, volume)| volume.blobs.iter().map(move |file| (number, file)))
    }

    /// All files, documents first.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.documents.iter().chain(self.blobs().map(|(_, file)| file))
    }

    /// How many bytes all files have.
    pub fn size(&self) -> u64 {
        self.files().map(|file| file.size).fold(0, u64::saturating_add)
    }

    fn check(&self) -> Result<(), BadManifest> {
        if let Some(parent) = self.parent.filter(|parent| *parent >= self.generation) {
            return Err(BadManifest::Parent { generation: self.generation, parent });
        }
        if self.created_at.parse::<jiff::Timestamp>().is_err() {
            return Err(BadManifest::Time(self.created_at.clone()));
        }
        if self.size() == u64::MAX {
            return Err(BadManifest::TooLarge);
        }
        let is_blob = |file: &&File| matches!(file.path, BundlePath::Blob(_));
        let mut blobs = self.blobs().map(|(_, file)| file);
        if let Some(file) = self.documents.iter().find(is_blob).or_else(|| blobs.find(|file| !is_blob(file))) {
            return Err(BadManifest::Misplaced(file.path.clone()));
        }
        let mut seen = BTreeSet::new();
        for File { path, sha256, .. } in self.files() {
            if matches!(path, BundlePath::Blob(digest) if digest != sha256) {
                return Err(BadManifest::OtherDigest { path: path.clone(), sha256: *sha256 });
            }
            if !seen.insert(path) {
                return Err(BadManifest::Twice(path.clone()));
            }
        }
        Ok(())
    }
}

impl BundlePath {
    /// Reads a path that is written as [`fmt::Display`] writes it, and no other.
    pub fn parse(text: &str) -> Option<Self> {
        let document_below = |folder: &str| {
            let (remote, path) = text.strip_prefix(folder)?.split_once('/')?;
            let path = percent_decode_str(path).decode_utf8().ok()?;
            Some((remote.to_owned(), StreamPath::from_document(&path).ok()?))
        };
        let path = if let Some(rest) = text.strip_prefix(BLOBS) {
            Self::Blob(Digest::from_hex(rest.split_once('/')?.1)?)
        } else if let Some((remote, path)) = document_below(DOCUMENTS) {
            Self::Document(remote, path)
        } else {
            let (remote, path) = document_below(RENDERED)?;
            Self::Rendered(remote, path)
        };
        // A remote is one plain segment too.
        let is_plain = StreamPath::from_document(text).is_ok_and(|path| path.as_str() == text);
        (is_plain && path.to_string() == text).then_some(path)
    }
}

impl fmt::Display for BundlePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(digest) => {
                let hex = digest.to_string();
                write!(f, "{BLOBS}{}/{hex}", &hex[..2])
            }
            Self::Document(remote, path) => write!(f, "{DOCUMENTS}{remote}/{}", on_any_disk(path)),
            Self::Rendered(remote, path) => write!(f, "{RENDERED}{remote}/{}", on_any_disk(path)),
        }
    }
}

fn on_any_disk(path: &StreamPath) -> PercentEncode<'_> {
    utf8_percent_encode(path.as_str(), &NOT_ON_EVERY_DISK)
}

impl Serialize for BundlePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        as_text(self, serializer)
    }
}

impl<'de> Deserialize<'de> for BundlePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("'{}' is no place in a bundle", text.escape_debug())))
    }
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    let text = String::deserialize(deserializer)?;
    Digest::from_hex(&text).ok_or_else(|| D::Error::custom(format!("'{}' is no SHA-256", text.escape_debug())))
}

#[cfg(test)]
mod tests {
    use crate::digest::Digest;
    use crate::http::path::StreamPath;
    use crate::manifest::{BadManifest, BundlePath, FORMAT, File, Manifest, Selection, Volume};

    fn blob(bytes: &[u8]) -> File {
        let sha256 = Digest::of(bytes);
        File { path: BundlePath::Blob(sha256), size: bytes.len() as u64, sha256 }
    }

    fn document(path: &str) -> File {
        File { path: BundlePath::parse(path).unwrap(), size: 2, sha256: Digest::of(b"{}") }
    }

    fn manifest(documents: Vec<File>, volumes: Vec<Vec<File>>) -> Manifest {
        Manifest {
            format: FORMAT.to_owned(),
            generation: 7,
            parent: Some(6),
            created_at: "2026-11-25T00:00:00Z".to_owned(),
            selection: Selection { images: vec!["ubuntu:24.04".to_owned()], ..Selection::default() },
            documents,
            volumes: volumes.into_iter().map(|blobs| Volume { blobs }).collect(),
        }
    }

    fn text(manifest: &Manifest) -> String {
        String::from_utf8(manifest.to_json()).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let documents = vec![document("documents/ubuntu/streams/v1/index.json"), document("rendered/ubuntu/streams/v1/index.json")];
        let manifest = manifest(documents, vec![vec![blob(b"a")], vec![blob(b"bc")]]);
        assert_eq!(Manifest::parse(&manifest.to_json()), Ok(manifest.clone()));
        assert_eq!(manifest.blobs().map(|(volume, _)| volume).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((manifest.files().count(), manifest.size()), (4, 7));
        assert!(text(&manifest).contains("\"path\": \"documents/ubuntu/streams/v1/index.json\""));
    }

    #[test]
    fn a_path_lies_in_the_bundle_and_is_written_in_one_way() {
        let hex = Digest::of(b"a").to_string();
        assert_eq!(BundlePath::parse(&format!("blobs/sha256/{}/{hex}", &hex[..2])), Some(BundlePath::Blob(Digest::of(b"a"))));
        for bad in [
            format!("blobs/sha256/00/{hex}"),
            format!("blobs/sha256/{}/{}", &hex[..2].to_uppercase(), hex.to_uppercase()),
            format!("blobs/sha256/{}/../{hex}", &hex[..2]),
            format!("/blobs/sha256/{}/{hex}", &hex[..2]),
            format!("blobs/sha256/{hex}"),
            "documents/ubuntu/../../etc/passwd".to_owned(),
            "documents/../streams/v1/index.json".to_owned(),
            "documents//streams/v1/index.json".to_owned(),
            "documents/ubuntu/./streams/v1/index.json".to_owned(),
            "documents/ubuntu//streams/v1/index.json".to_owned(),
            "documents/ubuntu".to_owned(),
            "rendered/../streams/v1/index.json".to_owned(),
            "rendered/ubuntu".to_owned(),
            "documents/u\\x/streams/v1/index.json".to_owned(),
            "manifest.json".to_owned(),
            "/etc/passwd".to_owned(),
            String::new(),
        ] {
            assert_eq!(BundlePath::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_name_can_be_written_to_any_disk() {
        let path = StreamPath::from_document("streams/v1/com.ubuntu.cloud:released:download.json").unwrap();
        let path = BundlePath::Rendered("ubuntu".to_owned(), path);
        let name = "rendered/ubuntu/streams/v1/com.ubuntu.cloud%3Areleased%3Adownload.json";
        assert_eq!((path.to_string().as_str(), BundlePath::parse(name)), (name, Some(path)));
        assert_eq!(BundlePath::parse(&name.replace("%3A", ":")), None, "it is written in one way");
        assert_eq!(BundlePath::parse("rendered/ubuntu/streams/v1/%2E%2E/x"), None);
    }

    #[test]
    fn a_manifest_that_makes_no_sense_is_refused_with_a_reason() {
        let good = manifest(Vec::new(), vec![vec![blob(b"a")], vec![blob(b"b")]]);
        let with = |change: fn(&mut Manifest)| {
            let mut changed = good.clone();
            change(&mut changed);
            Manifest::parse(&changed.to_json()).unwrap_err()
        };
        assert_eq!(with(|manifest| manifest.format = "bundle:2.0".to_owned()), BadManifest::Format("bundle:2.0".to_owned()));
        assert!(matches!(with(|manifest| manifest.format = "index:1.0".to_owned()), BadManifest::NotReadable(_)));
        let swapped = with(|manifest| manifest.volumes[0].blobs[0].sha256 = Digest::of(b"x"));
        assert_eq!(swapped, BadManifest::OtherDigest { path: blob(b"a").path, sha256: Digest::of(b"x") });
        let twice = with(|manifest| manifest.volumes[1] = manifest.volumes[0].clone());
        assert_eq!(twice, BadManifest::Twice(blob(b"a").path));
        let no_time = with(|manifest| manifest.created_at = "\u{1b}[31m".to_owned());
        assert_eq!(no_time.to_string(), "it was made at '\\u{1b}[31m', which is no time");
        let misplaced = with(|manifest| manifest.documents.push(blob(b"c")));
        assert_eq!(misplaced, BadManifest::Misplaced(blob(b"c").path));
        let misplaced = with(|manifest| manifest.volumes[0].blobs.push(document("documents/u/streams/v1/x.json")));
        assert!(matches!(misplaced, BadManifest::Misplaced(BundlePath::Document(..))));
        assert_eq!(with(|manifest| manifest.parent = Some(7)), BadManifest::Parent { generation: 7, parent: 7 });
        let huge = |manifest: &mut Manifest| manifest.volumes.iter_mut().for_each(|volume| volume.blobs[0].size = u64::MAX / 2 + 1);
        assert_eq!(with(huge), BadManifest::TooLarge);
        for (from, to) in [("blobs/", "../blobs/"), ("\"generation\": 7", "\"generation\": -7"), ("\"parent\"", "\"mother\"")] {
            let changed = text(&good).replace(from, to);
            assert!(matches!(Manifest::parse(changed.as_bytes()), Err(BadManifest::NotReadable(_))), "{to}");
        }
        let half = &good.to_json()[..200];
        assert!(matches!(Manifest::parse(half), Err(BadManifest::NotReadable(_))));
    }
}
