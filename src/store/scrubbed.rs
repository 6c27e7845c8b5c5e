//! How far the store was read again. Lost, it costs time only.

use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk};
use crate::store::layout::Layout;

const MAX_BYTES: u64 = 4096;

/// How far the store was read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// So many of its 256 folders.
    pub folders: u16,
    /// When all of them were read for the last time, in seconds since 1970.
    pub completed_at: Option<i64>,
}

impl Scrubbed {
    /// What was noted; nothing if that cannot be read.
    pub fn load(disk: &dyn Disk, layout: &Layout) -> Self {
        let read = disk.open(&layout.scrubbed()).and_then(|file| file.read_all(MAX_BYTES));
        read.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Notes it.
    pub fn save(&self, disk: &dyn Disk, layout: &Layout) -> io::Result<()> {
        disk::replace(disk, &layout.scrubbed(), &serde_json::to_vec(self)?)
    }

    /// One folder more, read by now.
    pub fn advanced(self, now: Timestamp) -> Self {
        match self.folders + 1 {
            256.. => Self { folders: 0, completed_at: Some(now.as_second()) },
            folders => Self { folders, ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use crate::store::scrubbed::Scrubbed;

    #[test]
    fn after_the_last_folder_comes_the_first_and_all_were_read() {
        let now = Timestamp::from_second(5).unwrap();
        let mut scrubbed = Scrubbed::default();
        for folder in 1..256 {
            scrubbed = scrubbed.advanced(now);
            assert_eq!(scrubbed, Scrubbed { folders: folder, completed_at: None });
        }
        assert_eq!(scrubbed.advanced(now), Scrubbed { folders: 0, completed_at: Some(5) });
    }
}
