//! Spreads the blobs of a bundle over volumes.

use crate::manifest::{BundlePath, File, Volume};

/// What a file costs in the manifest, which is in every volume.
const LINE_BYTES: u64 = 256;

/// A volume that is too small for anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a volume must have {needed} bytes at least: {path} and the documents have to be in one; give a larger --volume-size")]
pub struct TooSmall {
    /// What does not fit.
    pub path: BundlePath,
    /// How large a volume would have to be.
    pub needed: u64,
}

/// Puts blobs into as few volumes of at most `most` bytes as a look from the largest to the smallest finds. The same blobs are
/// always put the same way.
pub fn split(mut blobs: Vec<File>, documents: &[File], most: Option<u64>) -> Result<Vec<Volume>, TooSmall> {
    let size = |file: &File| file.size.saturating_add(LINE_BYTES);
    let Some(most) = most else { return Ok(vec![volume(blobs)]) };
    let common = documents.iter().map(size).sum::<u64>() + LINE_BYTES * blobs.len() as u64;
    blobs.sort_by(|one, other| other.size.cmp(&one.size).then_with(|| one.path.cmp(&other.path)));
    let mut volumes: Vec<(u64, Vec<File>)> = Vec::new();
    for blob in blobs {
        let needed = common.saturating_add(blob.size);
        if needed > most {
            return Err(TooSmall { path: blob.path, needed });
        }
        let fits = |(used, _): &&mut (u64, Vec<File>)| used.saturating_add(blob.size) <= most;
        match volumes.iter_mut().find(fits) {
            Some((used, inside)) => {
                *used += blob.size;
                inside.push(blob);
            }
            None => volumes.push((needed, vec![blob])),
        }
    }
    Ok(volumes.into_iter().map(|(_, blobs)| volume(blobs)).collect())
}

fn volume(mut blobs: Vec<File>) -> Volume {
    blobs.sort_by(|one, other| one.path.cmp(&other.path));
    Volume { blobs }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use crate::bundle::split::{LINE_BYTES, split};
    use crate::digest::Digest;
    use crate::manifest::{BundlePath, File};

    fn blob(number: usize, size: u64) -> File {
        let sha256 = Digest::of(&number.to_le_bytes());
        File { path: BundlePath::Blob(sha256), size, sha256 }
    }

    #[test]
    fn without_a_size_there_is_one_volume_and_with_one_as_few_as_hold_everything() {
        let blobs: Vec<File> = [5000, 1000, 4000, 3000].into_iter().enumerate().map(|(number, size)| blob(number, size)).collect();
        assert_eq!(split(blobs.clone(), &[], None).unwrap().len(), 1);
        let volumes = split(blobs.clone(), &[], Some(6000 + 4 * LINE_BYTES)).unwrap();
        let sizes: Vec<u64> = volumes.iter().map(|volume| volume.blobs.iter().map(|blob| blob.size).sum()).collect();
        assert_eq!(sizes, [6000, 4000, 3000]);
        let small = split(blobs, &[blob(9, 100)], Some(4000)).unwrap_err();
        assert_eq!(small.needed, 5000 + 4 * LINE_BYTES + 100 + LINE_BYTES);
        assert_eq!(split(Vec::new(), &[], Some(1)).unwrap().len(), 0);
    }

    proptest! {
        #[test]
        fn every_blob_is_in_one_volume_and_no_volume_is_too_large(sizes in prop::collection::vec(0_u64..5000, 0..40), seed in any::<u64>()) {
            let blobs: Vec<File> = sizes.iter().enumerate().map(|(number, size)| blob(number, *size)).collect();
            let most = 5000 + LINE_BYTES * blobs.len() as u64;
            let volumes = split(blobs.clone(), &[], Some(most)).unwrap();
            let mut shuffled = blobs.clone();
            fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
            prop_assert_eq!(&split(shuffled, &[], Some(most)).unwrap(), &volumes);
            let mut inside: Vec<File> = volumes.iter().flat_map(|volume| volume.blobs.clone()).collect();
            prop_assert!(volumes.iter().all(|volume| volume.blobs.iter().map(|blob| blob.size).sum::<u64>() <= 5000));
            let mut all = blobs;
            [&mut inside, &mut all].into_iter().for_each(|files| files.sort_by(|one, other| one.path.cmp(&other.path)));
            prop_assert_eq!(inside, all);
        }
    }
}
