//! The files and images of one remote.
//!
//! A large remote has as many files as all documents that are served have lines: they are here once, and tables hold their places
//! only. Files and images know nothing of each other, so that those of a large document are listed side by side.

use crate::catalog::files::{File, Files};
use crate::catalog::images::{Image, Images};
use crate::digest::{Claim, Expected, Fingerprint};
use crate::http::path::StreamPath;

/// All files of a remote by path and by hash, and its images.
#[derive(Debug, Default)]
pub struct Listing {
    files: Files,
    images: Images,
}

impl Listing {
    /// Its files and its images, each to be listed on its own.
    pub fn parts(&mut self) -> (&mut Files, &mut Images) {
        (&mut self.files, &mut self.images)
    }

    /// Lists a file. The first to claim a path keeps it.
    pub fn add_file(&mut self, file: File) {
        self.files.add(file);
    }

    /// Lists an image.
    pub fn add_image(&mut self, image: Image) {
        self.images.add(image);
    }

    /// The paths that mean other bytes here than in `older`.
    pub fn changed_since<'a>(&'a self, older: &'a Self) -> impl Iterator<Item = &'a StreamPath> {
        let is_other = |file: &&File| older.file(&file.path).is_some_and(|old| old.expected.claim != file.expected.claim);
        self.files().iter().filter(is_other).map(|file| &file.path)
    }

    /// The root that a delta makes.
    pub fn root_of(&self, delta: Expected) -> Option<&File> {
        self.files.root_of(delta)
    }

    /// The file at a path.
    pub fn file(&self, path: &StreamPath) -> Option<&File> {
        self.files.at(path)
    }

    /// All files.
    pub fn files(&self) -> &[File] {
        self.files.all()
    }

    /// Whether it has a file of which this is claimed.
    pub fn has_claim(&self, claim: Claim) -> bool {
        self.file_with(claim).is_some()
    }

    /// A file of which this is claimed.
    pub fn file_with(&self, claim: Claim) -> Option<&File> {
        self.files.with(claim)
    }

    /// All images.
    pub fn images(&self) -> &[Image] {
        self.images.all()
    }

    /// Whether it has an image that is called this.
    pub fn has_image(&self, fingerprint: Fingerprint) -> bool {
        self.images.has(fingerprint)
    }

    /// Whether an image is among the newest of its product and type.
    pub fn is_newest(&self, image: &Image) -> bool {
        let is_rival = |other: &&Image| other.image_type == image.image_type && other.version.product.name == image.version.product.name;
        let newest = self.images().iter().filter(is_rival).map(|other| &*other.version.serial).max();
        newest.is_some_and(|newest| *newest == *image.version.serial)
    }

    /// All images that need this file.
    pub fn images_with(&self, file: Expected) -> impl Iterator<Item = &Image> {
        self.images.with(file)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::catalog::files::File;
    use crate::catalog::images::Image;
    use crate::catalog::listing::Listing;
    use crate::digest::{Claim, Digest, Expected, Fingerprint};
    use crate::http::path::StreamPath;
    use crate::image::architecture::Architecture;
    use crate::image::ftype::ImageType;
    use crate::image::version::{Product, Version};
    use crate::simplestreams::file::ListedFile;

    fn listed(path: &str, bytes: &str) -> ListedFile {
        let expected = Expected { claim: Claim::Sha256(Digest::of(bytes.as_bytes())), size: None };
        ListedFile { path: StreamPath::from_document(path).unwrap(), expected }
    }

    fn image(name: &str, files: &[ListedFile]) -> Image {
        let architecture = Architecture::parse("amd64").unwrap();
        let product =
            Product { name: String::new(), architecture, aliases: Vec::new(), properties: [].into(), title: String::new(), expires: None };
        let version = Version { product: Arc::new(product), serial: "".into(), date: "2026-01-01".parse().unwrap(), label: "".into() };
        let fingerprint = Fingerprint::of_unified(Digest::of(name.as_bytes()));
        Image { fingerprint, files: files.to_vec(), image_type: ImageType::Container, root: None, version: Arc::new(version) }
    }

    #[test]
    fn the_first_to_claim_a_path_keeps_it_and_what_it_is_not_is_found_where_it_is() {
        let mut listing = Listing::default();
        [listed("a", "1"), listed("a", "2"), listed("b", "2"), listed("c", "1")]
            .into_iter()
            .for_each(|file| listing.add_file(File::new(file, None)));
        let at = |bytes: &str| listing.file_with(listed("x", bytes).expected.claim).map(|file| file.path.to_string());
        assert_eq!((at("1").as_deref(), at("2").as_deref(), at("3")), (Some("a"), Some("b"), None));
        let claim = |path: &str| listing.file(&StreamPath::from_document(path).unwrap()).map(|file| file.expected.claim);
        assert_eq!((claim("a"), claim("d")), (Some(listed("x", "1").expected.claim), None));
        assert_eq!(listing.files().len(), 3);
    }

    #[test]
    fn every_image_that_needs_a_file_is_found_once() {
        let (shared, mut listing) = (listed("m", "m"), Listing::default());
        for name in ["1", "2", "1", "3"] {
            listing.add_image(image(name, &[shared.clone(), listed(name, name)]));
        }
        let with =
            |bytes: &str| listing.images_with(listed("x", bytes).expected).map(|image| image.files[1].path.to_string()).collect::<Vec<_>>();
        assert_eq!(
            (listing.images().len(), with("m"), with("2"), with("4")),
            (3, vec!["3".into(), "2".into(), "1".into()], vec!["2".into()], Vec::new())
        );
    }

    /// Every version of a hostile document names one metadata file.
    #[test]
    fn very_many_images_may_share_a_file() {
        let (shared, mut listing) = (listed("m", "m"), Listing::default());
        let started = std::time::Instant::now();
        (0..50_000).for_each(|number: u32| listing.add_image(image(&number.to_string(), std::slice::from_ref(&shared))));
        assert_eq!(listing.images_with(shared.expected).count(), 50_000);
        assert!(started.elapsed() < std::time::Duration::from_secs(10), "it takes longer with each of them");
    }
}
