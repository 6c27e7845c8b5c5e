//! What we found out ourselves and would not like to find out again: one small file for each fact.
//!
//! A fact that is lost costs time, so that one file that cannot be read is as good as absent; only whoever wants to know all
//! of them, to say what is not held, is told that one cannot be read.

use std::io;
use std::path::Path;

use crate::digest::{Claim, Digest};
use crate::disk::{self, Disk};
use crate::store::layout::Layout;

const MAX_FACT_BYTES: u64 = 256;

/// Notes the digest of a file whose document gives another hash, and that hash for the digest. Whoever sees the first
/// can rely on the second.
pub fn learn(disk: &dyn Disk, layout: &Layout, claim: Claim, digest: Digest) -> io::Result<()> {
    disk::replace(disk, &layout.learnt(Claim::Sha256(digest)), claim.to_string().as_bytes())?;
    disk::replace(disk, &layout.learnt(claim), digest.to_string().as_bytes())
}

/// The digest of the file with this claim, if it was learnt.
pub fn learnt(disk: &dyn Disk, layout: &Layout, claim: Claim) -> Option<Digest> {
    read(disk, &layout.learnt(claim)).and_then(|text| Digest::from_hex(text.trim()))
}

/// All digests that were learnt.
pub fn all_learnt(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<(Claim, Digest)>> {
    let names = disk.names(&layout.learnt_folder())?;
    let claims = names.iter().filter_map(|name| Claim::parse(name)).filter(|claim| !matches!(claim, Claim::Sha256(_)));
    let mut learnt = Vec::new();
    for claim in claims {
        let text = try_read(disk, &layout.learnt(claim))?;
        learnt.extend(text.and_then(|text| Digest::from_hex(text.trim())).map(|digest| (claim, digest)));
    }
    Ok(learnt)
}

/// What a document claims of the file with this digest, if it gives another hash.
pub fn learnt_claim(disk: &dyn Disk, layout: &Layout, digest: Digest) -> Option<Claim> {
    read(disk, &layout.learnt(Claim::Sha256(digest))).and_then(|text| Claim::parse(text.trim()))
}

/// Notes that an image's bytes do not have its fingerprint, so that no client would take it. `image` is the key of
/// fingerprint and files together.
pub fn note_wrong(disk: &dyn Disk, layout: &Layout, image: Digest) -> io::Result<()> {
    disk::replace(disk, &layout.wrong(image), b"wrong")
}

/// All images that are not what they were listed as.
pub fn all_wrong(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<Digest>> {
    Ok(disk.names(&layout.all_wrong())?.iter().filter_map(|name| Digest::from_hex(name)).collect())
}

fn read(disk: &dyn Disk, path: &Path) -> Option<String> {
    try_read(disk, path).ok().flatten()
}

/// A fact, if there is one; an error means that nobody knows.
fn try_read(disk: &dyn Disk, path: &Path) -> io::Result<Option<String>> {
    match disk.open(path).and_then(|file| file.read_all(MAX_FACT_BYTES)) {
        Ok(bytes) => Ok(String::from_utf8(bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
