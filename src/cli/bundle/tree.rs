//! Writes a bundle as a tree that any static web server can serve, and keeps one up to date.
//!
//! Files come first and documents last, the index last of all; what is there already stays untouched. What is listed no more stays
//! for grace: hosts keep documents for an hour. A file of our own, `.cistern.json`, says which files are ours and what they are.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::{ExportedFile, ExportedTree};
use crate::bundle::volume::{LOCK, LOST_AND_FOUND};
use crate::cli::bundle::part::{BadFolder, Part, publish, sync_folders, whole};
use crate::cli::bundle::place::{check, remove_file};
use crate::digest::{Claim, Digest, Expected};
use crate::disk::{Disk as _, OsDisk};
use crate::http::path::StreamPath;

const NOTES: &str = ".cistern.json";
const NEW_NOTES: &str = ".cistern.json.new";
const MAX_NOTES_BYTES: u64 = 256 << 20;

/// A tree that is being brought up to date.
#[derive(Debug)]
pub struct Tree {
    folder: PathBuf,
    notes: Notes,
}

/// What is known of the files of a tree, by path.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Notes {
    files: BTreeMap<String, Note>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// What it is, once it is whole.
    sha256: Option<String>,
    /// Since when it is listed no more, if it is not, in seconds since 1970.
    gone_at: Option<i64>,
}

impl Tree {
    /// Opens a tree, or makes one of an empty folder; notes what is to be written, so that an interrupted run is gone on with.
    pub fn open(folder: &Path, wanted: &ExportedTree, now: Timestamp) -> Result<Self, BadFolder> {
        OsDisk.create_directory(folder).map_err(|error| BadFolder::disk(folder, error))?;
        let notes = load(&folder.join(NOTES))?;
        let names = OsDisk.names(folder).map_err(|error| BadFolder::disk(folder, error))?;
        let notes = match notes {
            Some(notes) => notes,
            None if names.iter().all(|name| [LOCK, LOST_AND_FOUND, NEW_NOTES].contains(&name.as_str())) => Notes::default(),
            None => return Err(BadFolder::NotEmpty(folder.to_owned())),
        };
        let mut tree = Self { folder: folder.to_owned(), notes };
        tree.notes.expect(wanted, now);
        tree.save()?;
        Ok(tree)
    }

    /// Begins or goes on with a file; `None` if it is there. One that is not noted yet may be whole all the same, if the run before
    /// was interrupted.
    pub fn begin(&self, file: &ExportedFile) -> Result<Option<Part>, BadFolder> {
        let (path, expected) = self.place(file)?;
        let is_noted = self.notes.files.get(&file.path).is_some_and(|note| note.sha256.as_ref() == Some(&file.sha256));
        if whole(&path, expected, is_noted)? { Ok(None) } else { Part::begin(path, expected).map(Some) }
    }

    /// Whether a document is there as it is to be. It is read for that: it is small, and everything hangs on it.
    pub fn has(&self, document: &ExportedFile) -> Result<bool, BadFolder> {
        let (path, expected) = self.place(document)?;
        whole(&path, expected, false)
    }

    fn place(&self, file: &ExportedFile) -> Result<(PathBuf, Expected), BadFolder> {
        let path = self.folder.join(&file.path);
        check(&self.folder, &file.path).map_err(|error| BadFolder::disk(&path, error))?;
        match Digest::from_hex(&file.sha256) {
            Some(digest) => Ok((path, Expected { claim: Claim::Sha256(digest), size: Some(file.size) })),
            None => Err(BadFolder::disk(&path, io::Error::other("the server does not say what it is"))),
        }
    }

    /// Notes that a file is whole.
    pub fn note(&mut self, file: &ExportedFile) {
        self.notes.files.insert(file.path.clone(), Note { sha256: Some(file.sha256.clone()), gone_at: None });
    }

    /// Puts a document in its place.
    pub fn publish(&self, path: &str, bytes: &[u8]) -> Result<(), BadFolder> {
        let place = self.folder.join(path);
        check(&self.folder, path).map_err(|error| BadFolder::disk(&place, error))?;
        publish(&place, bytes)
    }

    /// Ends the run: removes what is listed no more for longer than grace; how many files that were.
    pub fn finish(mut self, grace: u64, now: Timestamp) -> Result<usize, BadFolder> {
        sync_folders(&self.folder, self.notes.files.keys().map(String::as_str))?;
        let due = self.notes.due(grace, now);
        // Removed first and forgotten then: an interrupted run removes them again.
        for path in &due {
            remove_file(&self.folder, path).map_err(|error| BadFolder::disk(&self.folder.join(path), error))?;
        }
        due.iter().for_each(|path| drop(self.notes.files.remove(path)));
        self.save()?;
        Ok(due.len())
    }

    fn save(&self) -> Result<(), BadFolder> {
        let path = self.folder.join(NOTES);
        let json = serde_json::to_vec_pretty(&self.notes).map_err(|error| BadFolder::disk(&path, error.into()))?;
        publish(&path, &json)
    }
}

impl Notes {
    /// What is wanted and not there as it is wanted is to be written; what is not wanted is listed no more, since now or earlier.
    fn expect(&mut self, wanted: &ExportedTree, now: Timestamp) {
        let all: BTreeMap<&str, &str> =
            wanted.files.iter().chain(&wanted.documents).map(|file| (file.path.as_str(), file.sha256.as_str())).collect();
        for (path, note) in &mut self.files {
            let is_wanted = all.contains_key(path.as_str());
            note.gone_at = if is_wanted { None } else { note.gone_at.or(Some(now.as_second())) };
        }
        for (path, sha256) in all {
            let note = self.files.entry(path.to_owned()).or_default();
            note.sha256 = note.sha256.take().filter(|there| there == sha256);
        }
    }

    fn due(&self, grace: u64, now: Timestamp) -> Vec<String> {
        let grace = i64::try_from(grace).unwrap_or(i64::MAX);
        let is_due = |note: &Note| note.gone_at.is_some_and(|gone_at| now.as_second() >= gone_at.saturating_add(grace));
        self.files.iter().filter(|(_, note)| is_due(note)).map(|(path, _)| path.clone()).collect()
    }
}

/// Reads what is known of a tree. Its paths come from a folder that others may write to, and lead nowhere else.
fn load(path: &Path) -> Result<Option<Notes>, BadFolder> {
    let unreadable = |reason: &dyn std::fmt::Display| BadFolder::Unreadable { path: path.to_owned(), reason: reason.to_string() };
    let read = OsDisk.open_own(path).and_then(|file| file.map(|file| file.read_all(MAX_NOTES_BYTES)).transpose());
    let Some(bytes) = read.map_err(|error| unreadable(&error))? else { return Ok(None) };
    let notes: Notes = serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?;
    let is_plain = |path: &&String| StreamPath::from_document(path).is_ok_and(|plain| plain.as_str() == path.as_str());
    match notes.files.keys().find(|path| !is_plain(path)) {
        Some(strange) => Err(unreadable(&format!("'{}' is no place in a tree", strange.escape_debug()))),
        None => Ok(Some(notes)),
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, ToSpan as _};

    use crate::api::{ExportedFile, ExportedTree};
    use crate::cli::bundle::tree::Notes;

    fn tree(files: &[(&str, &str)]) -> ExportedTree {
        let file = |(path, sha256): &(&str, &str)| ExportedFile { path: (*path).to_owned(), sha256: (*sha256).to_owned(), size: 1 };
        ExportedTree { grace: 60, documents: Vec::new(), files: files.iter().map(file).collect() }
    }

    #[test]
    fn what_is_listed_no_more_goes_when_grace_is_over_unless_it_comes_back() {
        let (mut notes, start) = (Notes::default(), Timestamp::UNIX_EPOCH);
        notes.expect(&tree(&[("a", "1"), ("b", "2")]), start);
        notes.expect(&tree(&[("b", "2")]), start + 10.seconds());
        notes.expect(&tree(&[("b", "2")]), start + 50.seconds());
        assert_eq!((notes.due(60, start + 69.seconds()).len(), notes.due(60, start + 70.seconds())), (0, vec!["a".to_owned()]));
        notes.expect(&tree(&[("a", "1")]), start + 60.seconds());
        assert_eq!(notes.due(60, start + 70.seconds()), Vec::<String>::new());
    }
}
