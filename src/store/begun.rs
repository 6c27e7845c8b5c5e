//! Bundles of which something came and not yet everything: what of each selection is on its way.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::disk::{self, Disk};
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::store::layout::Layout;

/// Notes that a bundle of this selection is on its way, in the place of the one before.
pub fn note(disk: &dyn Disk, layout: &Layout, place: Digest, text: &[u8]) -> io::Result<()> {
    disk::replace(disk, &path(layout, place), text)
}

/// Whether this very bundle is on its way.
pub fn is(disk: &dyn Disk, layout: &Layout, place: Digest, text: &[u8]) -> io::Result<bool> {
    Ok(read(disk, layout, place)?.is_some_and(|noted| noted == text))
}

/// Notes that none is.
pub fn forget(disk: &dyn Disk, layout: &Layout, place: Digest) -> io::Result<()> {
    disk.remove(&path(layout, place))
}

/// All that are on their way. One that cannot be read holds up nothing, and has no manifest.
pub fn load(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<(Digest, Option<Manifest>)>> {
    let places = disk.names(&layout.begun())?.into_iter().filter_map(|name| Digest::from_hex(&name));
    let mut begun = Vec::new();
    for place in places {
        let manifest = read(disk, layout, place).and_then(|text| Manifest::parse(&text.unwrap_or_default()).map_err(io::Error::other));
        if let Err(error) = &manifest {
            tracing::warn!(%place, %error, "which files of a bundle came cannot be read; import it again, or forget it");
        }
        begun.push((place, manifest.ok()));
    }
    begun.sort_by_key(|(place, _)| *place);
    Ok(begun)
}

fn read(disk: &dyn Disk, layout: &Layout, place: Digest) -> io::Result<Option<Vec<u8>>> {
    disk.open_own(&path(layout, place))?.map(|file| file.read_all(MAX_MANIFEST_BYTES)).transpose()
}

fn path(layout: &Layout, place: Digest) -> PathBuf {
    layout.begun().join(place.to_string())
}

#[cfg(test)]
mod tests {
    use crate::digest::Digest;
    use crate::disk::{Disk as _, OsDisk};
    use crate::manifest::Manifest;
    use crate::store::begun::{forget, is, load, note};
    use crate::store::layout::Layout;

    #[test]
    fn the_newest_of_each_selection_is_on_its_way_until_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.create(&OsDisk).unwrap();
        let [one, other] = [b"1", b"2"].map(|name| Digest::of(name));
        for (place, generation) in [(one, 1), (other, 2), (one, 3)] {
            note(&OsDisk, &layout, place, &Manifest { generation, ..Manifest::default() }.to_json()).unwrap();
        }
        OsDisk.create(&layout.begun().join("notes of mine")).unwrap();
        OsDisk.create(&layout.begun().join(Digest::of(b"damaged").to_string())).unwrap();
        let generation = |(place, manifest): (Digest, Option<Manifest>)| (manifest.map(|manifest| manifest.generation), place);
        let mut found: Vec<_> = load(&OsDisk, &layout).unwrap().into_iter().map(generation).collect();
        found.sort();
        assert_eq!(found, [(None, Digest::of(b"damaged")), (Some(2), other), (Some(3), one)]);
        let text = Manifest { generation: 3, ..Manifest::default() }.to_json();
        assert!(is(&OsDisk, &layout, one, &text).unwrap() && !is(&OsDisk, &layout, other, &text).unwrap());
        forget(&OsDisk, &layout, one).unwrap();
        forget(&OsDisk, &layout, one).unwrap();
        assert!(!is(&OsDisk, &layout, one, &text).unwrap());
        assert_eq!(load(&OsDisk, &layout).unwrap().len(), 2);
    }
}
