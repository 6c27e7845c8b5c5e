//! A bundle as a tar archive, for a line that goes one way.
//!
//! What tells what is to come stands first, so that whoever reads it need not keep anything: the signature, the manifest, the
//! documents, and then the blobs in the order of the manifest. The same bundle gives the same bytes.

use std::io::{self, Write};

use tar::{EntryType, Header};

use crate::cli::exit::{FAILED, Failure, TRY_AGAIN};
use crate::manifest::Manifest;

const BLOCK: usize = 512;
const MODE: u32 = 0o644;

/// An archive that is being written.
#[derive(Debug)]
pub struct Archive<W> {
    out: W,
    made_at: u64,
    /// What the file that is being written still lacks, and what it is padded with.
    rest: u64,
    padding: usize,
}

impl<W: Write> Archive<W> {
    /// An archive of this bundle; all its files are as old as that.
    pub fn new(out: W, manifest: &Manifest) -> Self {
        let made_at = manifest.created_at.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_second).unwrap_or_default();
        Self { out, made_at: made_at.try_into().unwrap_or_default(), rest: 0, padding: 0 }
    }

    /// Writes a small file whole.
    pub fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        self.begin(name, bytes.len() as u64)?;
        self.append(bytes)?;
        self.end(name)
    }

    /// Begins a file.
    pub fn begin(&mut self, name: &str, size: u64) -> Result<(), Failure> {
        let head = head(name, size, self.made_at).map_err(failed)?;
        (self.rest, self.padding) = (size, padding(size));
        self.out.write_all(&head).map_err(failed)
    }

    /// Writes the next bytes of it.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.rest = self.rest.checked_sub(bytes.len() as u64).ok_or_else(|| Failure::new(FAILED, "the server sent more than it said"))?;
        self.out.write_all(bytes).map_err(failed)
    }

    /// Ends it, if it is whole.
    pub fn end(&mut self, name: &str) -> Result<(), Failure> {
        if self.rest > 0 {
            return Err(Failure::new(TRY_AGAIN, format!("{name} did not come whole; run this again")));
        }
        self.out.write_all(&[0; BLOCK][..self.padding]).map_err(failed)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.out.write_all(&[0; 2 * BLOCK]).map_err(failed)?;
        self.out.flush().map_err(failed)
    }
}

/// How many bytes come after so many, up to the end of a block.
fn padding(size: u64) -> usize {
    let last = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    (BLOCK - last) % BLOCK
}

/// What stands before a file: with a long name more than one block.
fn head(name: &str, size: u64, made_at: u64) -> io::Result<Vec<u8>> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(MODE);
    header.set_mtime(made_at);
    header.set_size(size);
    let mut head = tar::Builder::new(Vec::new());
    head.append_data(&mut header, name, io::empty())?;
    // Nothing is finished yet: its end is ours to write.
    Ok(std::mem::take(head.get_mut()))
}

#[expect(clippy::needless_pass_by_value, reason = "errors are given away where they are turned into others")]
fn failed(error: io::Error) -> Failure {
    Failure::new(FAILED, format!("cannot write to standard output: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use crate::cli::bundle::archive::Archive;
    use crate::cli::exit::TRY_AGAIN;
    use crate::manifest::Manifest;

    fn manifest() -> Manifest {
        Manifest { generation: 1, created_at: "2026-11-27T00:00:00Z".to_owned(), ..Manifest::default() }
    }

    #[test]
    fn what_is_written_is_an_archive_that_tar_reads() {
        let long = format!("rendered/lab/streams/v1/{}.json", "x".repeat(200));
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes, &manifest());
        archive.file("manifest.json", b"{}").unwrap();
        archive.file(&long, &[7; 512]).unwrap();
        archive.file("empty", b"").unwrap();
        archive.finish().unwrap();
        let mut read = tar::Archive::new(&bytes[..]);
        let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content, entry.header().mtime().unwrap())
        };
        let entries: Vec<_> = read.entries().unwrap().map(entry).collect();
        let made_at = 1_795_737_600;
        let expected = [
            ("manifest.json".to_owned(), b"{}".to_vec(), made_at),
            (long, vec![7; 512], made_at),
            ("empty".to_owned(), Vec::new(), made_at),
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn a_file_that_is_not_whole_is_never_ended() {
        let mut archive = Archive::new(Vec::new(), &manifest());
        archive.begin("a", 3).unwrap();
        archive.append(b"ab").unwrap();
        assert_eq!(archive.end("a").unwrap_err().code, TRY_AGAIN);
        assert!(archive.append(b"cd").is_err(), "nor is it longer than was said");
    }
}
