//! Packs a document for hosts that take it gzipped.
//!
//! A large document is packed in parts beside each other. Together they are one ordinary stream (RFC 1952 with one member),
//! and the same bytes on every machine: parts are cut by size, however many threads there are.

use std::io::{self, Write as _};
use std::num::NonZero;
use std::thread;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// Level 6 takes 40 % longer for documents that are 2 % smaller; most of them are hashes.
const LEVEL: Compression = Compression::new(4);
/// Parts know nothing of each other; with this size they lose a thousandth.
const PART_BYTES: usize = 1 << 20;
/// Deflate, no name, no time, made by an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Packs these bytes.
pub fn gzip(plain: &[u8]) -> io::Result<Vec<u8>> {
    let (body, last) = plain.split_at(plain.len().saturating_sub(1) / PART_BYTES * PART_BYTES);
    let mut packed = HEADER.to_vec();
    for parts in deflate_parts(body)? {
        packed.extend_from_slice(&parts);
    }
    let mut encoder = DeflateEncoder::new(packed, LEVEL);
    encoder.write_all(last)?;
    packed = encoder.finish()?;
    let mut crc = Crc::new();
    crc.update(plain);
    packed.extend_from_slice(&crc.sum().to_le_bytes());
    packed.extend_from_slice(&crc.amount().to_le_bytes());
    Ok(packed)
}

/// Packs the parts of a body that others follow, on as many threads as there are processors.
fn deflate_parts(body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = (body.len() / PART_BYTES).div_ceil(threads).max(1) * PART_BYTES;
    thread::scope(|scope| {
        let shares: Vec<_> = body.chunks(share).map(|share| scope.spawn(|| deflate(share))).collect();
        shares.into_iter().map(|packed| packed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// Packs one part after the other, each up to a byte's border, where another may go on.
fn deflate(share: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = Vec::with_capacity(share.len() / 3);
    for part in share.chunks(PART_BYTES) {
        let mut encoder = DeflateEncoder::new(std::mem::take(&mut packed), LEVEL);
        encoder.write_all(part)?;
        encoder.flush()?;
        // The encoder would end the stream; it may do so in a Vec that nobody reads.
        packed = std::mem::take(encoder.get_mut());
    }
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use crate::catalog::gzip::{PART_BYTES, gzip};

    #[test]
    fn what_is_packed_in_parts_is_one_stream() {
        let text: Vec<u8> = (0..3 * PART_BYTES as u64 + 7).map(|at| (at * at % 251) as u8).collect();
        for len in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, text.len()] {
            let packed = gzip(&text[..len]).unwrap();
            let mut unpacked = Vec::new();
            let mut decoder = GzDecoder::new(&*packed);
            decoder.read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == text[..len], "{len}");
            assert!(decoder.into_inner().is_empty(), "one member and nothing after it");
        }
    }
}
