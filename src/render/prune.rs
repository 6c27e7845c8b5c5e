//! Takes single images out of a version without touching the others.
//!
//! Images share files: one metadata item serves several roots, and several clients may share a root. What makes a pair
//! of them an image is the fingerprint field of the metadata item; so an image goes by that field, and a file goes only
//! when no image is left that needs it.

use crate::image::ftype::{Ftype, Root};
use crate::simplestreams::images::{self, Image};
use crate::simplestreams::products::Version;

/// What becomes of files that are part of no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They stay.
    Keep,
    /// They go.
    Drop,
}

/// Leaves only those of `images`, which are all images of `version`, that `kept` names.
pub fn prune(version: &mut Version<'_>, images: &[Image], kept: impl Fn(&Image) -> bool, rest: Rest) {
    let (kept, gone): (Vec<&Image>, Vec<&Image>) = images.iter().partition(|image| kept(image));
    for image in &gone {
        let is_left =
            |root: Root| kept.iter().any(|other| other.metadata == image.metadata && other.root.is_some_and(|(kind, _)| kind == root));
        if let Some((root, _)) = image.root.filter(|(root, _)| !is_left(*root)) {
            let fields = &mut version.items[image.metadata].fields;
            root.fingerprint_fields().iter().for_each(|field| {
                fields.remove(field);
            });
        }
    }
    let needs =
        |images: &[&Image], place| images.iter().any(|image| image.metadata == place || image.root.is_some_and(|(_, root)| root == place));
    let makes = |images: &[&Image], kind| images.iter().any(|image| image.root.is_some_and(|(root, _)| root == kind));
    let mut place = 0;
    version.items.retain(|item| {
        let ftype = images::ftype(&item.fields);
        let is_kept = match ftype {
            Ftype::Delta(root) => makes(&kept, root) || (rest == Rest::Keep && !makes(&gone, root)),
            _ => needs(&kept, place) || (rest == Rest::Keep && !needs(&gone, place)),
        };
        place += 1;
        is_kept
    });
}

#[cfg(test)]
mod tests {
    use crate::image::ftype::{Client, ImageType};
    use crate::render::prune::{Rest, prune};
    use crate::simplestreams::images::{self, Image};
    use crate::simplestreams::products::Products;

    fn pruned(kept: impl Fn(&Image) -> bool, rest: Rest) -> Vec<String> {
        let hash = |digit: &str| digit.repeat(64);
        let metadata = |ftype: &str, one: &str, two: &str| {
            let (one, two) = (hash(one), hash(two));
            format!(r#"{{"ftype":"{ftype}","path":"m","combined_squashfs_sha256":"{one}","combined_disk-kvm-img_sha256":"{two}"}}"#)
        };
        let items = format!(
            r#""lxd":{},"incus":{},"s":{{"ftype":"squashfs"}},"d":{{"ftype":"disk-kvm.img"}},"v":{{"ftype":"squashfs.vcdiff"}},"m":{{"ftype":"manifest"}}"#,
            metadata("lxd.tar.xz", "a", "b"),
            metadata("incus.tar.xz", "c", "d")
        );
        let text = format!(r#"{{"products":{{"p":{{"versions":{{"20260101":{{"items":{{{items}}}}}}}}}}}}}"#);
        let (mut products, _) = Products::parse(&text).unwrap();
        let version = &mut products.products[0].versions[0];
        let (images, _) = images::of_version("p", version);
        assert_eq!(images.len(), 4);
        prune(version, &images, kept, rest);
        let (left, _) = images::of_version("p", version);
        let left = left.iter().map(|image| format!("{:?} {}", image.client, image.image_type));
        left.chain(version.items.iter().map(|item| item.name.to_string())).collect()
    }

    #[test]
    fn an_image_goes_and_shared_files_stay() {
        let left = pruned(|image| !(image.client == Client::Lxd && image.image_type == ImageType::Container), Rest::Keep);
        assert_eq!(left, ["Lxd virtual-machine", "Incus container", "Incus virtual-machine", "lxd", "incus", "s", "d", "v", "m"]);
    }

    #[test]
    fn a_file_goes_with_the_last_image_that_needs_it() {
        let left = pruned(|image| image.image_type == ImageType::VirtualMachine, Rest::Keep);
        assert_eq!(left, ["Lxd virtual-machine", "Incus virtual-machine", "lxd", "incus", "d", "m"]);
        let left = pruned(|image| image.client == Client::Incus && image.image_type == ImageType::Container, Rest::Drop);
        assert_eq!(left, ["Incus container", "incus", "s", "v"]);
        assert_eq!(pruned(|_| false, Rest::Keep), ["m"]);
    }
}
