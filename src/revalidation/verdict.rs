//! Compares a set of documents with the one that it would replace.

use std::collections::BTreeMap;

use crate::revalidation::census::Census;
use crate::revalidation::refusal::Refusal;

/// Whether `new` may take the place of `old`.
///
/// An image that a newer one of its product replaces is not gone: servers that keep three builds replace all of theirs
/// within days. What counts is how many a product has less than before.
pub fn judge(old: Option<&Census>, new: &Census, max_gone_percent: u8) -> Result<(), Refusal> {
    if new.images.is_empty() && new.others.is_empty() {
        return Err(Refusal::Empty);
    }
    let Some(old) = old else { return Ok(()) };
    check_age(old, new)?;
    // Each by itself: a hundred thousand names of cloud images must not outweigh all images for LXD.
    for (old, new) in [(&old.images, &new.images), (&old.others, &new.others)] {
        let (gone, of) = (gone(old, new), old.values().sum::<usize>());
        if gone * 100 > of * usize::from(max_gone_percent) {
            return Err(Refusal::Shrunk { gone, of, max_gone: max_gone_percent });
        }
    }
    Ok(())
}

/// How many would go with nothing in their place.
fn gone(old: &BTreeMap<String, usize>, new: &BTreeMap<String, usize>) -> usize {
    let left = |product| new.get(product).copied().unwrap_or_default();
    old.iter().map(|(product, count)| count.saturating_sub(left(product))).sum()
}

fn check_age(old: &Census, new: &Census) -> Result<(), Refusal> {
    let pairs = new.updated.iter().filter_map(|(path, theirs)| Some((path, theirs, old.updated.get(path)?)));
    for (path, theirs, ours) in pairs {
        if theirs < ours {
            return Err(Refusal::Older { path: path.clone(), ours: ours.to_string(), theirs: theirs.to_string() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use crate::http::path::StreamPath;
    use crate::revalidation::census::Census;
    use crate::revalidation::refusal::Refusal;
    use crate::revalidation::verdict::judge;

    fn census(updated: i64, products: &[(&str, usize)]) -> Census {
        let path = StreamPath::from_document("streams/v1/images.json").unwrap();
        Census {
            updated: [(path, Timestamp::from_second(updated).unwrap())].into(),
            images: products.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            others: [].into(),
        }
    }

    /// T32
    #[test]
    fn an_empty_set_is_refused_even_if_there_was_none_before() {
        assert_eq!(judge(None, &census(1, &[]), 100), Err(Refusal::Empty));
        assert_eq!(judge(None, &census(1, &[("a", 1)]), 0), Ok(()));
    }

    /// T32
    #[test]
    fn a_set_that_goes_back_in_time_is_refused() {
        let old = census(10, &[("a", 1)]);
        assert!(matches!(judge(Some(&old), &census(9, &[("a", 1)]), 50), Err(Refusal::Older { .. })));
        assert_eq!(judge(Some(&old), &census(10, &[("a", 1)]), 50), Ok(()));
        let undated = Census { updated: [].into(), ..census(0, &[("a", 1)]) };
        assert_eq!(judge(Some(&old), &undated, 50), Ok(()));
    }

    /// T32
    #[test]
    fn more_than_max_gone_of_the_images_gone_is_refused() {
        let old = census(1, &[("a", 3), ("b", 3), ("c", 4)]);
        assert_eq!(judge(Some(&old), &census(1, &[("b", 1), ("c", 4)]), 50), Ok(()), "five of ten");
        assert_eq!(judge(Some(&old), &census(1, &[("c", 4)]), 50), Err(Refusal::Shrunk { gone: 6, of: 10, max_gone: 50 }));
        assert_eq!(judge(Some(&old), &census(1, &[("a", 3), ("b", 3), ("c", 4), ("d", 9)]), 0), Ok(()));
    }

    #[test]
    fn documents_for_others_do_not_outweigh_images() {
        let with_ids = |products| Census { others: [("ids".to_owned(), 100_000)].into(), ..census(1, products) };
        let old = with_ids(&[("a", 2000)]);
        assert_eq!(judge(Some(&old), &with_ids(&[]), 50), Err(Refusal::Shrunk { gone: 2000, of: 2000, max_gone: 50 }));
        assert_eq!(judge(None, &with_ids(&[]), 50), Ok(()));
    }
}
