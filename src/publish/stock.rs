//! What of a remote is held, as far as its documents depend on it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use crate::cache::Cache;
use crate::catalog::files::File;
use crate::catalog::images::Image;
use crate::catalog::listing::Listing;
use crate::digest::{Digest, Fingerprint};
use crate::http::path::StreamPath;
use crate::image::ftype::ImageType;
use crate::ledger::holdings::Holdings;
use crate::ledger::record::{Fate, Owner, Piece, Reason, Record};
use crate::ledger::{Held, Ledger};
use crate::render::policy::{Retained, Slot, Stock};
use crate::simplestreams::file::ListedFile;
use crate::store::records::{self, Excerpt};

/// What would be rendered otherwise if it were otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relevant {
    /// Of what is kept up to date, that which has newer versions than are held.
    behind: BTreeSet<(String, ImageType, String)>,
    /// What is waited for and held by now.
    arrived: BTreeSet<Fingerprint>,
    /// What is held and not listed by upstream.
    unlisted: BTreeSet<Fingerprint>,
    /// What is listed and on its way out.
    leaving: BTreeSet<Fingerprint>,
    /// All that is held, where only that is listed: how much, and a sum that is another one of other files.
    held: (usize, u64),
}

/// What is held, without anything that upstream lists no more.
pub fn stock(ledger: &Ledger, remote: &str) -> Stock {
    let mut newest: BTreeMap<(&str, ImageType), &str> = BTreeMap::new();
    for record in of_remote(ledger, remote).filter(|record| record.is_tracked()) {
        let serial = newest.entry((&record.version.product.name, record.image_type)).or_default();
        *serial = (&*record.version.serial).max(*serial);
    }
    let mut stock = Stock { whole: ledger.images().map(|record| record.fingerprint).collect(), ..Stock::default() };
    for ((product, image_type), serial) in newest {
        stock.tracked.entry(product.to_owned()).or_default().push((image_type, serial.to_owned()));
    }
    stock
}

/// What of that matters to documents that list this and wait for that.
pub fn relevant(ledger: &Ledger, remote: &str, listing: &Listing, awaited: &[Image], is_offline: bool) -> Relevant {
    let mut newest: foldhash::HashMap<(&str, ImageType), &str> = foldhash::HashMap::default();
    for image in listing.images().iter().chain(awaited) {
        let serial = newest.entry((&image.version.product.name, image.image_type)).or_default();
        *serial = (&*image.version.serial).max(*serial);
    }
    let stock = stock(ledger, remote);
    let tracked =
        stock.tracked.into_iter().flat_map(|(product, types)| types.into_iter().map(move |(of, serial)| (product.clone(), of, serial)));
    let is_behind = |(product, of, serial): &(String, ImageType, String)| {
        newest.get(&(product.as_str(), *of)).is_some_and(|newest| *newest > serial.as_str())
    };
    Relevant {
        behind: tracked.filter(is_behind).collect(),
        arrived: awaited.iter().map(|image| image.fingerprint).filter(|fingerprint| stock.whole.contains(fingerprint)).collect(),
        unlisted: unlisted(ledger, remote, listing).map(|record| record.fingerprint).collect(),
        leaving: of_remote(ledger, remote)
            .filter(|record| !record.stays() && listing.has_image(record.fingerprint))
            .map(|record| record.fingerprint)
            .collect(),
        held: if is_offline { sum(ledger) } else { (0, 0) },
    }
}

/// How many blobs are held, and a sum of their names in any order.
pub fn sum(ledger: &Ledger) -> (usize, u64) {
    let hasher = foldhash::fast::FixedState::default();
    let of = |(digest, held): (Digest, &Held)| std::hash::BuildHasher::hash_one(&hasher, (digest, held.size));
    (ledger.blobs().len(), ledger.blobs().map(of).fold(0, u64::wrapping_add))
}

/// The images that are there to stay and that a listing does not have.
pub fn unlisted<'a>(ledger: &'a Ledger, remote: &'a str, listing: &'a Listing) -> impl Iterator<Item = &'a Record> {
    of_remote(ledger, remote).filter(move |record| record.stays() && record.public && !listing.has_image(record.fingerprint))
}

/// What was kept of the documents that listed these images. Waits for the disk; an error means that nobody knows.
pub fn retained(cache: &Cache, records: Vec<Record>) -> io::Result<Vec<Retained>> {
    let mut retained = Vec::new();
    for record in records {
        let excerpt = records::excerpt(&**cache.store().disk(), cache.store().layout(), record.fingerprint)?;
        retained.extend(excerpt.and_then(|excerpt| of_record(record, excerpt)));
    }
    // Equal inputs give equal bytes: the order of a hash map must not matter.
    retained.sort_by(|one, other| {
        (&one.slot.product, &one.slot.serial, one.fingerprint).cmp(&(&other.slot.product, &other.slot.serial, other.fingerprint))
    });
    Ok(retained)
}

fn of_record(record: Record, excerpt: Excerpt) -> Option<Retained> {
    let Record { fingerprint, image_type, auto_update, version, owner, .. } = record;
    let slot = Slot::of(&version, image_type);
    let document = StreamPath::from_document(&excerpt.document).ok()?;
    let is_selected = owner == Owner::Selection;
    Some(Retained { fingerprint, slot, is_tracked: auto_update, is_selected, document, product: excerpt.product.into() })
}

/// The files of all images that are held of a remote and that are not listed: hosts that know of them may ask for as long as
/// they are held.
pub fn files(ledger: &Ledger, remote: &str, listed: &Listing) -> Listing {
    let mut listing = Listing::default();
    for record in of_remote(ledger, remote).filter(|record| record.public) {
        let modified = record.version.created_at().try_into().ok();
        let is_listed = |piece: &&Piece| listed.file(&piece.path).is_some_and(|file| file.expected == piece.expected());
        let file = |piece: &Piece| File { path: piece.path.clone(), expected: piece.expected(), modified };
        record.pieces.iter().filter(|piece| !is_listed(piece)).for_each(|piece| listing.add_file(file(piece)));
    }
    listing
}

/// The images of a remote that are held and that hosts are not to see.
pub fn private(ledger: &Ledger, remote: &str) -> Vec<Image> {
    let mut images: Vec<Image> = of_remote(ledger, remote).filter(|record| !record.public && record.stays()).map(image).collect();
    images.sort_by_key(|image| image.fingerprint);
    images
}

/// The images that are held of other remotes than these.
pub fn former(ledger: &Ledger, remotes: &[Arc<str>]) -> BTreeMap<Arc<str>, Vec<Image>> {
    let mut former: BTreeMap<Arc<str>, Vec<Image>> = BTreeMap::new();
    for record in ledger.images().filter(|record| !remotes.contains(&record.remote)) {
        former.entry(Arc::clone(&record.remote)).or_default().push(image(record));
    }
    former.values_mut().for_each(|images| images.sort_by_key(|image| image.fingerprint));
    former
}

fn image(record: &Record) -> Image {
    Image {
        fingerprint: record.fingerprint,
        files: record.pieces.iter().map(|piece| ListedFile { path: piece.path.clone(), expected: piece.expected() }).collect(),
        image_type: record.image_type,
        root: record.root,
        version: Arc::clone(&record.version),
    }
}

/// What is held that a remote without an upstream can list. The roots of its images that are listed no more are not, unless
/// another image needs them, or it is for its documents to say whether they are.
pub fn holdings(ledger: &Ledger, remote: &str) -> Holdings {
    let leaves = |digest: Digest, held: &Held| {
        let needs = |image: &Fingerprint| ledger.image(*image).is_some_and(|record| !leaves_with(record, remote, digest));
        !held.images.is_empty() && !held.images.iter().any(needs)
    };
    let held = ledger.blobs().filter(|(digest, held)| !leaves(*digest, held));
    Holdings::new(held.map(|(digest, held)| (digest, held.size)), ledger.learnt())
}

/// Whether a file is the root of an image that is on its way out. What another remote lists no more, or replaced, this one may
/// list.
fn leaves_with(record: &Record, remote: &str, digest: Digest) -> bool {
    let is_on_its_way = match record.fate {
        Fate::Stays | Fate::Leaves(_, Reason::Withdrawn) => false,
        Fate::Leaves(_, Reason::Deleted) => true,
        Fate::Leaves(..) => *record.remote == *remote,
    };
    is_on_its_way && record.root().is_some_and(|root| root.digest == digest)
}

fn of_remote<'a>(ledger: &'a Ledger, remote: &'a str) -> impl Iterator<Item = &'a Record> {
    ledger.images().filter(move |record| *record.remote == *remote)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use crate::catalog::listing::Listing;
    use crate::digest::Digest;
    use crate::ledger::Ledger;
    use crate::publish::stock::relevant;

    #[test]
    fn as_many_others_are_not_the_same_where_only_what_is_held_is_listed() {
        let holding = |names: [&[u8]; 2]| {
            let mut ledger = Ledger::default();
            for name in names {
                ledger.admit(Digest::of(name), 1, Timestamp::UNIX_EPOCH);
            }
            ledger
        };
        let of = |ledger: &Ledger, is_offline| relevant(ledger, "lab", &Listing::default(), &[], is_offline);
        let (one, same, other) = (holding([b"1", b"2"]), holding([b"2", b"1"]), holding([b"1", b"3"]));
        assert_eq!(of(&one, true), of(&same, true));
        assert_ne!(of(&one, true), of(&other, true));
        assert_eq!(of(&one, false), of(&other, false));
    }
}
