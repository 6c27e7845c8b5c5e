//! The images of a version, as LXD and Incus put them together out of its items.

use jiff::civil::Date;

use crate::digest::{Digest, Fingerprint};
use crate::image::architecture::Architecture;
use crate::image::ftype::{Client, Ftype, ImageType, Root};
use crate::simplestreams::fault::{Fault, Reason};
use crate::simplestreams::object::Object;
use crate::simplestreams::products::{Product, Version};

/// One image as one client sees it. Files are given as places in the version's items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Who sees it.
    pub client: Client,
    /// What it runs as.
    pub image_type: ImageType,
    /// What its document says that its fingerprint is.
    pub fingerprint: Fingerprint,
    /// The metadata, or the only file of a unified image.
    pub metadata: usize,
    /// The root of a split image.
    pub root: Option<(Root, usize)>,
}

impl Image {
    /// The places of its files: metadata and root, or its only one.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        [Some(self.metadata), self.root.map(|(_, place)| place)].into_iter().flatten()
    }
}

/// The architecture of a product, or why clients skip it.
pub fn architecture(product: &Product<'_>) -> Result<Architecture, Reason> {
    let arch = product.fields.text_or_none("arch").unwrap_or_default();
    Architecture::parse(&arch).ok_or_else(|| Reason::Architecture(arch.into_owned()))
}

/// The day of a version's serial, or why clients skip it.
pub fn serial_date(version: &str) -> Result<Date, Reason> {
    let digits = version.get(..8).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
    let number = |range| digits.and_then(|digits| digits.get(range)).and_then(|digits: &str| digits.parse::<i16>().ok());
    let date = || Date::new(number(0..4)?, number(4..6)?.try_into().ok()?, number(6..8)?.try_into().ok()?).ok();
    date().ok_or(Reason::VersionName)
}

/// All images of a version, and the faults that make others invisible. Every pair of metadata and root is one.
///
/// It is assumed that clients do not skip the product or the version for their names.
pub fn of_version(product: &str, version: &Version<'_>) -> (Vec<Image>, Vec<Fault>) {
    let at = [product, &*version.name];
    let items: Vec<(usize, Ftype)> = version.items.iter().map(|item| ftype(&item.fields)).enumerate().collect();
    let roots: Vec<(Root, usize)> =
        items.iter().filter_map(|(place, ftype)| if let Ftype::Root(root) = ftype { Some((*root, *place)) } else { None }).collect();
    let mut images = Vec::new();
    let mut faults = Vec::new();
    let mut has_metadata = false;
    for (place, ftype) in items {
        match ftype {
            Ftype::Metadata(client) => {
                has_metadata = true;
                images.extend(split(client, version, place, &roots));
            }
            Ftype::Unified(client) => {
                has_metadata = true;
                images.extend(unified(client, version, place));
            }
            Ftype::Root(_) | Ftype::Delta(_) | Ftype::Other => {}
        }
    }
    if !has_metadata && !roots.is_empty() {
        faults.push(Fault::new(&at, Reason::NoMetadata));
    } else if has_metadata {
        let invisible = roots.iter().filter(|root| !images.iter().any(|image| image.root == Some(**root)));
        faults.extend(invisible.map(|(root, _)| Fault::new(&at, Reason::NoFingerprint(root.ftype()))));
    }
    (images, faults)
}

/// What an item is to an image.
pub fn ftype(item: &Object<'_>) -> Ftype {
    Ftype::parse(&item.text_or_none("ftype").unwrap_or_default())
}

/// The fingerprint that a metadata item gives for the image with `root`.
pub fn fingerprint(metadata: &Object<'_>, root: Root) -> Option<Fingerprint> {
    let mut given = root.fingerprint_fields().iter().filter_map(|field| metadata.text_or_none(field)).filter(|hash| !hash.is_empty());
    given.next().and_then(|hash| Fingerprint::from_hex(&hash))
}

fn split<'a>(client: Client, version: &'a Version<'_>, metadata: usize, roots: &'a [(Root, usize)]) -> impl Iterator<Item = Image> + 'a {
    let fields = &version.items[metadata].fields;
    let has_path = fields.text_or_none("path").is_some_and(|path| !path.is_empty());
    roots.iter().filter(move |_| has_path).filter_map(move |(root, place)| {
        let fingerprint = fingerprint(fields, *root)?;
        Some(Image { client, image_type: root.image_type(), fingerprint, metadata, root: Some((*root, *place)) })
    })
}

fn unified(client: Client, version: &Version<'_>, place: usize) -> Option<Image> {
    let fields = &version.items[place].fields;
    let fingerprint = Fingerprint::of_unified(Digest::from_hex(&fields.text_or_none("sha256")?)?);
    Some(Image { client, image_type: unified_type(client, fields), fingerprint, metadata: place, root: None })
}

/// A unified image is a container, unless Incus is told otherwise; LXD does not read `combined_type`.
fn unified_type(client: Client, fields: &Object<'_>) -> ImageType {
    let virtual_machine = fields.text_or_none("combined_type").is_some_and(|kind| kind == "virtual-machine");
    if client == Client::Incus && virtual_machine { ImageType::VirtualMachine } else { ImageType::Container }
}

#[cfg(test)]
mod tests {
    use crate::image::ftype::{Client, ImageType, Root};
    use crate::simplestreams::fault::Reason;
    use crate::simplestreams::images::{of_version, serial_date};
    use crate::simplestreams::products::Products;

    fn version(items: &str) -> String {
        format!(r#"{{"products":{{"p":{{"versions":{{"20260101":{{"items":{items}}}}}}}}}}}"#)
    }

    fn hex(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn each_pair_of_metadata_and_root_is_an_image() {
        let items = format!(
            r#"{{"m":{{"ftype":"lxd.tar.xz","path":"m","combined_squashfs_sha256":"{}","combined_sha256":"{}","combined_disk-kvm-img_sha256":"{}"}},
                "s":{{"ftype":"squashfs"}},"r":{{"ftype":"root.tar.xz"}},"d":{{"ftype":"disk-kvm.img"}},"x":{{"ftype":"manifest"}}}}"#,
            hex('a'),
            hex('b'),
            hex('c')
        );
        let text = version(&items);
        let (products, _) = Products::parse(&text).unwrap();
        let (images, faults) = of_version("p", &products.products[0].versions[0]);
        let seen: Vec<_> =
            images.iter().map(|image| (image.client, image.image_type, image.root.unwrap().0, image.fingerprint.to_string())).collect();
        assert_eq!(
            seen,
            [
                (Client::Lxd, ImageType::Container, Root::Squashfs, hex('a')),
                (Client::Lxd, ImageType::Container, Root::TarXz, hex('b')),
                (Client::Lxd, ImageType::VirtualMachine, Root::DiskKvm, hex('c')),
            ]
        );
        assert_eq!(faults, []);
    }

    #[test]
    fn a_unified_image_is_its_file_and_incus_may_call_it_a_virtual_machine() {
        let items = format!(
            r#"{{"l":{{"ftype":"lxd_combined.tar.gz","sha256":"{0}","combined_type":"virtual-machine"}},"i":{{"ftype":"incus_combined.tar.gz","sha256":"{0}","combined_type":"virtual-machine"}}}}"#,
            hex('a')
        );
        let text = version(&items);
        let (products, _) = Products::parse(&text).unwrap();
        let (images, _) = of_version("p", &products.products[0].versions[0]);
        let seen: Vec<_> = images.iter().map(|image| (image.client, image.image_type, image.root)).collect();
        assert_eq!(seen, [(Client::Lxd, ImageType::Container, None), (Client::Incus, ImageType::VirtualMachine, None)]);
    }

    #[test]
    fn an_invisible_image_has_a_reason() {
        for (items, expected) in [
            (r#"{"s":{"ftype":"squashfs"}}"#, Reason::NoMetadata),
            (r#"{"m":{"ftype":"lxd.tar.xz","path":"m"},"s":{"ftype":"squashfs"}}"#, Reason::NoFingerprint("squashfs")),
        ] {
            let text = version(items);
            let (products, _) = Products::parse(&text).unwrap();
            let (images, faults) = of_version("p", &products.products[0].versions[0]);
            assert_eq!(images, []);
            assert_eq!(faults[0].reason, expected);
        }
    }

    #[test]
    fn a_serial_begins_with_a_day() {
        for serial in ["20260101", "20260101.1", "20260101_12:34", "202601011234"] {
            assert_eq!(serial_date(serial).unwrap().to_string(), "2026-01-01", "{serial}");
        }
        for serial in ["v1", "noble-1", "20261301", "2026010", "14.04.4-LTS", "2026010ä"] {
            assert_eq!(serial_date(serial), Err(Reason::VersionName), "{serial}");
        }
    }
}
