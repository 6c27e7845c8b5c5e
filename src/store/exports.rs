//! Which bundles were made: the same content has the same number and time again, and so the same bytes.

use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::disk::{self, Disk};
use crate::store::layout::Layout;

const MAX_BYTES: u64 = 1 << 20;
/// So many are remembered.
const MOST: usize = 256;

/// A bundle that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Its number.
    pub generation: u64,
    /// When it was first made, in RFC 3339.
    pub created_at: String,
    /// What tells its selection from every other one.
    selection: String,
    /// What tells its content from every other one.
    content: String,
}

/// The newest one with this selection, if it has this content; otherwise it gets the next number. What comes back after something
/// else was in its place is newer than that, and everything is newer than number `above`: whoever lost count goes on there.
pub fn enter(disk: &dyn Disk, layout: &Layout, [selection, content]: [Digest; 2], above: u64, now: Timestamp) -> io::Result<Export> {
    let mut exports = load(disk, layout)?;
    let (selection, content) = (selection.to_string(), content.to_string());
    let newest = exports.iter().filter(|export| export.selection == selection).max_by_key(|export| export.generation);
    if let Some(known) = newest.filter(|export| export.content == content && export.generation > above) {
        return Ok(known.clone());
    }
    let last = exports.iter().map(|export| export.generation).fold(above, u64::max);
    let export = Export { generation: last.saturating_add(1), created_at: now.to_string(), selection, content };
    exports.push(export.clone());
    let surplus = exports.len().saturating_sub(MOST);
    exports.drain(..surplus);
    disk::replace(disk, &layout.bundle_exports(), &serde_json::to_vec_pretty(&exports)?)?;
    Ok(export)
}

fn load(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<Export>> {
    let path = layout.bundle_exports();
    let Some(file) = disk.open_own(&path)? else { return Ok(Vec::new()) };
    let read = file.read_all(MAX_BYTES).and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
    read.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, ToSpan as _};

    use crate::digest::Digest;
    use crate::disk::OsDisk;
    use crate::store::exports::{MOST, enter};
    use crate::store::layout::Layout;

    #[test]
    fn the_same_content_has_the_same_number_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.create(&OsDisk).unwrap();
        let enter_above = |selection: &str, content: &str, above: u64, hour: i64| {
            let content = [selection, content].map(|text| Digest::of(text.as_bytes()));
            let export = enter(&OsDisk, &layout, content, above, Timestamp::UNIX_EPOCH + hour.hours()).unwrap();
            (export.generation, export.created_at)
        };
        let enter = |selection: &str, content: &str, hour: i64| enter_above(selection, content, 0, hour);
        let first = enter("s", "a", 0);
        assert_eq!(first, (1, "1970-01-01T00:00:00Z".to_owned()));
        assert_eq!((enter("t", "b", 1).0, enter("s", "a", 2)), (2, first));
        assert_eq!((enter("s", "b", 3).0, enter("s", "a", 4).0), (3, 4), "what comes back is newer than what was in its place");
        (0..MOST).for_each(|number| drop(enter("u", &number.to_string(), 5)));
        let next = u64::try_from(MOST).unwrap() + 5;
        assert_eq!(enter("s", "a", 6).0, next, "what was long ago is forgotten, and no number comes again");
        assert_eq!((enter_above("s", "a", 2, 7).0, enter_above("s", "a", 9000, 8).0), (next, 9001), "a site may have had more");
    }
}
