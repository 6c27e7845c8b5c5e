//! What was imported: of each selection the newest bundle, but for its blobs and upstream's own documents.
//!
//! A bundle is written beside the one before and gets its name last, so that one with a name is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::catalog::name;
use crate::digest::Digest;
use crate::disk::{self, Disk};
use crate::manifest::{BundlePath, MANIFEST, MAX_MANIFEST_BYTES, Manifest, SIGNATURE};
use crate::store::layout::Layout;

/// A bundle without its last name.
const FRESH: &str = ".new";
const MAX_SIGNATURE_BYTES: u64 = 4096;

/// A bundle that was imported.
#[derive(Clone, Debug)]
pub struct Imported {
    /// What tells its selection from every other.
    pub place: Digest,
    /// What it says.
    pub manifest: Manifest,
    /// The same, as it was signed.
    pub text: Bytes,
    /// Its signature.
    pub signature: Bytes,
    /// The documents that list what it has.
    pub rendered: BTreeMap<BundlePath, Bytes>,
}

/// Puts a bundle in its place. The one that was there is gone when this returns.
pub fn save(disk: &dyn Disk, layout: &Layout, bundle: &Imported) -> io::Result<()> {
    let folder = layout.imports().join(bundle.place.to_string());
    let older = numbers(disk, &folder)?;
    if let Err(error) = stage(disk, &folder.join(FRESH), bundle) {
        // On a disk that is full it would be in the way of whatever comes next.
        drop(disk.remove(&folder.join(FRESH)));
        return Err(error);
    }
    let next = older.last().map_or(1, |newest| newest + 1);
    disk.rename(&folder.join(FRESH), &folder.join(numbered(next)))?;
    disk.sync_directory(&folder)?;
    disk.sync_directory(&layout.imports())?;
    older.into_iter().try_for_each(|number| {
        let trash = layout.trash().join(format!("{}-{}", bundle.place, numbered(number)));
        disk.rename(&folder.join(numbered(number)), &trash)?;
        disk.remove(&trash)
    })
}

/// Takes a bundle away.
pub fn remove(disk: &dyn Disk, layout: &Layout, place: Digest) -> io::Result<()> {
    let (folder, trash) = (layout.imports().join(place.to_string()), layout.trash().join(place.to_string()));
    match disk.rename(&folder, &trash) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    disk.sync_directory(&layout.imports())?;
    disk.remove(&trash)
}

/// What lies there in the place of a bundle and cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// What tells its selection from every other.
    pub place: Digest,
    /// Where it lies.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: io::Error,
}

/// The newest bundle of every selection, and what cannot be read. Whoever lists anything by the rest would let go of what that listed.
pub fn load(disk: &dyn Disk, layout: &Layout) -> io::Result<(Vec<Imported>, Vec<Unreadable>)> {
    let (mut imported, mut unreadable) = (Vec::new(), Vec::new());
    for place in disk.names(&layout.imports())?.into_iter().filter_map(|name| Digest::from_hex(&name)) {
        let folder = layout.imports().join(place.to_string());
        let Some(number) = numbers(disk, &folder)?.pop() else { continue };
        let path = folder.join(numbered(number));
        match read(disk, &path, place) {
            Ok(bundle) => imported.push(bundle),
            Err(error) => unreadable.push(Unreadable { place, path, error }),
        }
    }
    imported.sort_by_key(|bundle: &Imported| bundle.place);
    Ok((imported, unreadable))
}

/// Notes that a remote came in a bundle.
pub fn note_remote(disk: &dyn Disk, layout: &Layout, remote: &str) -> io::Result<()> {
    disk::replace(disk, &layout.fed_remotes().join(remote), b"")
}

/// The remotes that came in bundles. What else somebody put there is none of ours.
pub fn remotes(disk: &dyn Disk, layout: &Layout) -> io::Result<BTreeSet<String>> {
    Ok(disk.names(&layout.fed_remotes())?.into_iter().filter(|name| name::check(name).is_ok()).collect())
}

fn stage(disk: &dyn Disk, fresh: &Path, bundle: &Imported) -> io::Result<()> {
    disk.remove(fresh)?;
    disk.create_directory(fresh)?;
    let mut folders = BTreeSet::from([fresh.to_owned()]);
    for (path, bytes) in &bundle.rendered {
        let path = fresh.join(path.to_string());
        let parent = path.parent().unwrap_or(fresh).to_owned();
        disk.create_directory(&parent)?;
        folders.extend(parent.ancestors().take_while(|above| *above != fresh).map(Path::to_owned));
        write(disk, &path, bytes)?;
    }
    write(disk, &fresh.join(SIGNATURE), &bundle.signature)?;
    write(disk, &fresh.join(MANIFEST), &bundle.text)?;
    folders.iter().rev().try_for_each(|folder| disk.sync_directory(folder))
}

fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.create(path)?;
    disk.write_at(&file, bytes, 0)?;
    disk.sync(&file)
}

fn read(disk: &dyn Disk, folder: &Path, place: Digest) -> io::Result<Imported> {
    let file = |name: &str, limit: u64| disk.open(&folder.join(name)).and_then(|file| file.read_all(limit)).map(Bytes::from);
    let (text, signature) = (file(MANIFEST, MAX_MANIFEST_BYTES)?, file(SIGNATURE, MAX_SIGNATURE_BYTES)?);
    let manifest = Manifest::parse(&text).map_err(io::Error::other)?;
    let mut rendered = BTreeMap::new();
    for document in manifest.documents.iter().filter(|document| matches!(document.path, BundlePath::Rendered(..))) {
        let bytes = file(&document.path.to_string(), document.size.saturating_add(1))?;
        if Digest::of(&bytes) != document.sha256 {
            return Err(io::Error::other(format!("{} is not what was written", document.path)));
        }
        rendered.insert(document.path.clone(), bytes);
    }
    Ok(Imported { place, manifest, text, signature, rendered })
}

/// The numbers of the bundles in a place, the newest last.
fn numbers(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = disk.names(folder)?.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A name that sorts by number.
fn numbered(number: u64) -> String {
    format!("{number:020}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;

    use crate::digest::Digest;
    use crate::disk::{Disk as _, OsDisk};
    use crate::manifest::{BundlePath, File, Manifest};
    use crate::store::imports::{Imported, load, note_remote, remotes, save};
    use crate::store::layout::Layout;

    fn bundle(place: Digest, generation: u64, list: &'static str) -> Imported {
        let path = BundlePath::parse("rendered/lab/streams/v1/images%3Areleased.json").unwrap();
        let rendered: BTreeMap<BundlePath, Bytes> = [(path, Bytes::from_static(list.as_bytes()))].into();
        let file = |(path, bytes): (&BundlePath, &Bytes)| File { path: path.clone(), size: bytes.len() as u64, sha256: Digest::of(bytes) };
        let manifest = Manifest {
            generation,
            created_at: "2026-11-27T00:00:00Z".to_owned(),
            documents: rendered.iter().map(file).collect(),
            ..Manifest::default()
        };
        let text = manifest.to_json().into();
        Imported { place, manifest, text, signature: Bytes::from_static(b"signature"), rendered }
    }

    #[test]
    fn the_newest_bundle_of_each_place_is_kept_as_it_came() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.create(&OsDisk).unwrap();
        let [one, other] = [b"1", b"2"].map(|name| Digest::of(name));
        for (place, generation, list) in [(one, 1, "a"), (other, 1, "b"), (one, 2, "c")] {
            save(&OsDisk, &layout, &bundle(place, generation, list)).unwrap();
        }
        let (imported, unreadable) = load(&OsDisk, &layout).unwrap();
        assert!(unreadable.is_empty());
        let mut found: Vec<_> = imported.iter().map(|bundle| (bundle.place, bundle.manifest.generation, bundle.rendered.len())).collect();
        found.sort();
        let mut expected = [(one, 2, 1), (other, 1, 1)];
        expected.sort();
        assert_eq!(found, expected);
        assert_eq!(OsDisk.names(&layout.imports().join(one.to_string())).unwrap().len(), 1);
        let damaged = layout.imports().join(one.to_string()).join("00000000000000000002/rendered/lab/streams/v1/images%3Areleased.json");
        let file = OsDisk.open(&damaged).and_then(|_| OsDisk.create(&damaged)).unwrap();
        OsDisk.write_at(&file, b"x", 0).unwrap();
        let (imported, unreadable) = load(&OsDisk, &layout).unwrap();
        assert_eq!(imported.iter().map(|bundle| bundle.place).collect::<Vec<_>>(), [other]);
        assert_eq!(unreadable.iter().map(|bundle| bundle.place).collect::<Vec<_>>(), [one]);
        assert!(unreadable[0].error.to_string().contains("released.json is not what was written"), "{unreadable:?}");
        save(&OsDisk, &layout, &bundle(one, 3, "d")).unwrap();
        assert_eq!(load(&OsDisk, &layout).unwrap().0.len(), 2, "the next one takes its place");
    }

    #[test]
    fn remotes_that_came_in_bundles_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.create(&OsDisk).unwrap();
        ["lab", "lab", "ubuntu"].iter().for_each(|remote| note_remote(&OsDisk, &layout, remote).unwrap());
        ["lab.new", "Notes of mine", "streams"].iter().for_each(|name| drop(OsDisk.create(&layout.fed_remotes().join(name)).unwrap()));
        assert_eq!(remotes(&OsDisk, &layout).unwrap(), ["lab", "ubuntu"].map(str::to_owned).into());
    }
}
