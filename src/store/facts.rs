//! What we found out ourselves and would not like to find out again: one small file for each fact.
//!
//! A fact that is lost costs time. That one cannot be read is said all the same: of what it would tell nobody may say that it is
//! not held.

use std::io;
use std::path::Path;

use crate::digest::{Claim, Digest};
use crate::disk::{self, Disk};
use crate::store::layout::Layout;

const MAX_FACT_BYTES: u64 = 256;

/// Notes the digest of a file whose document gives another hash.
pub fn learn(disk: &dyn Disk, layout: &Layout, claim: Claim, digest: Digest) -> io::Result<()> {
    disk::replace(disk, &layout.learnt(claim), digest.to_string().as_bytes())
}

/// All digests that were learnt.
pub fn all_learnt(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<(Claim, Digest)>> {
    let names = disk.names(&layout.learnt_folder())?;
    let claims = names.iter().filter_map(|name| Claim::parse(name)).filter(|claim| !matches!(claim, Claim::Sha256(_)));
    let mut learnt = Vec::new();
    for claim in claims {
        let text = read(disk, &layout.learnt(claim))?;
        learnt.extend(text.and_then(|text| Digest::from_hex(text.trim())).map(|digest| (claim, digest)));
    }
    Ok(learnt)
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

/// A fact, if there is one; an error means that nobody knows.
fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<String>> {
    match disk.open(path).and_then(|file| file.read_all(MAX_FACT_BYTES)) {
        Ok(bytes) => Ok(String::from_utf8(bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
