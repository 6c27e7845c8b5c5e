//! The last bytes of a body that cannot be stored.
//!
//! Bytes go in at the end and are forgotten at the beginning, once every reader has them. The size is bounded, so a
//! writer must wait for the slowest reader, or leave it behind.

use std::collections::VecDeque;

use bytes::Bytes;

/// A window on a body.
#[derive(Debug)]
pub struct Ring {
    chunks: VecDeque<Bytes>,
    /// Where the body begins that this ring is for; what comes before is in a file.
    first: u64,
    start: u64,
    end: u64,
    capacity: u64,
}

impl Ring {
    /// A ring for a body from `first` on, that holds so many bytes.
    pub fn new(first: u64, capacity: u64) -> Self {
        Self { chunks: VecDeque::new(), first, start: first, end: first, capacity }
    }

    /// Whether a reader that begins at `position` of the whole body finds all that it needs.
    pub fn has_all_from(&self, position: u64) -> bool {
        self.start == self.first || position >= self.start
    }

    /// Where its bytes end.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Forgets whole chunks that lie before `position`.
    pub fn forget_before(&mut self, position: u64) {
        while let Some(len) = self.chunks.front().map(|chunk| chunk.len() as u64).filter(|len| self.start + len <= position) {
            self.chunks.pop_front();
            self.start += len;
        }
    }

    /// Whether there is room for `len` bytes more. An empty ring takes a chunk of any size, or nothing would ever move.
    pub fn has_room(&self, len: usize) -> bool {
        self.chunks.is_empty() || self.end - self.start + len as u64 <= self.capacity
    }

    /// Appends a chunk.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.end += chunk.len() as u64;
            self.chunks.push_back(chunk);
        }
    }

    /// At most `len` bytes at `position`; none if they are not here.
    pub fn read(&self, position: u64, len: usize) -> Bytes {
        let mut start = self.start;
        for chunk in &self.chunks {
            let end = start + chunk.len() as u64;
            if (start..end).contains(&position) {
                let from = usize::try_from(position - start).unwrap_or(usize::MAX);
                return chunk.slice(from..chunk.len().min(from.saturating_add(len)));
            }
            start = end;
        }
        Bytes::new()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::cache::ring::Ring;

    #[test]
    fn bytes_are_found_until_they_are_forgotten() {
        let mut ring = Ring::new(10, 6);
        ring.push(Bytes::from_static(b"abc"));
        ring.push(Bytes::from_static(b"def"));
        assert_eq!(ring.read(11, 9), "bc");
        assert_eq!(ring.read(13, 2), "de");
        assert_eq!(ring.read(16, 2), "");
        ring.forget_before(12);
        assert!(ring.has_all_from(0), "nothing is forgotten while part of its chunk is needed");
        ring.forget_before(13);
        assert_eq!(ring.read(11, 9), "");
        assert!(!ring.has_all_from(12));
        assert!(ring.has_all_from(13));
    }

    #[test]
    fn the_size_is_bounded_but_never_stands_in_the_way_of_everything() {
        let mut ring = Ring::new(0, 4);
        assert!(ring.has_room(100));
        ring.push(Bytes::from_static(b"abc"));
        assert!(ring.has_room(1));
        assert!(!ring.has_room(2));
        ring.forget_before(3);
        assert!(ring.has_room(100));
    }
}
