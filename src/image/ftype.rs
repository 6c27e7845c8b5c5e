//! The `ftype` of an item: which part of which image a file is.

use std::fmt;

/// A program that draws images from simplestreams servers. Each knows its own metadata files only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Client {
    /// LXD
    Lxd,
    /// Incus
    Incus,
}

impl Client {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Lxd, Self::Incus];

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Lxd => Self::Incus,
            Self::Incus => Self::Lxd,
        }
    }

    /// The `ftype` of its metadata files.
    pub fn metadata_ftype(self) -> &'static str {
        match self {
            Self::Lxd => "lxd.tar.xz",
            Self::Incus => "incus.tar.xz",
        }
    }

    /// The `ftype` of its unified images.
    pub fn unified_ftype(self) -> &'static str {
        match self {
            Self::Lxd => "lxd_combined.tar.gz",
            Self::Incus => "incus_combined.tar.gz",
        }
    }
}

/// What an image runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImageType {
    /// A container.
    Container,
    /// A virtual machine.
    VirtualMachine,
}

impl ImageType {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Container, Self::VirtualMachine];

    /// What LXD calls it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::VirtualMachine => "virtual-machine",
        }
    }

    /// The one that LXD calls so.
    pub fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.label() == label)
    }
}

impl fmt::Display for ImageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// The root file of a split image, in the order in which clients prefer them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Root {
    /// `squashfs`
    Squashfs,
    /// `root.tar.xz`
    TarXz,
    /// `disk-kvm.img`
    DiskKvm,
    /// `uefi1.img`
    Uefi1,
    /// `disk1.img`
    Disk1,
}

impl Root {
    /// All of them, the preferred one first.
    pub const ALL: [Self; 5] = [Self::Squashfs, Self::TarXz, Self::DiskKvm, Self::Uefi1, Self::Disk1];

    /// Its `ftype`.
    pub fn ftype(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::TarXz => "root.tar.xz",
            Self::DiskKvm => "disk-kvm.img",
            Self::Uefi1 => "uefi1.img",
            Self::Disk1 => "disk1.img",
        }
    }

    /// The one with this `ftype`.
    pub fn of_ftype(ftype: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.ftype() == ftype)
    }

    /// What an image with this root runs as.
    pub fn image_type(self) -> ImageType {
        match self {
            Self::Squashfs | Self::TarXz => ImageType::Container,
            Self::DiskKvm | Self::Uefi1 | Self::Disk1 => ImageType::VirtualMachine,
        }
    }

    /// The fields of a metadata item that may hold the fingerprint of the image with this root; the first one set counts.
    pub fn fingerprint_fields(self) -> &'static [&'static str] {
        match self {
            Self::Squashfs => &["combined_squashfs_sha256"],
            Self::TarXz => &["combined_rootxz_sha256", "combined_sha256"],
            Self::DiskKvm => &["combined_disk-kvm-img_sha256"],
            Self::Uefi1 => &["combined_uefi1-img_sha256"],
            Self::Disk1 => &["combined_disk1-img_sha256"],
        }
    }
}

/// What an item is to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ftype {
    /// The metadata of split images.
    Metadata(Client),
    /// A whole image in one file.
    Unified(Client),
    /// The root of split images.
    Root(Root),
    /// A delta that makes a root out of an older one.
    Delta(Root),
    /// Something that no image client asks for: a manifest, a kernel, a disk for other machines.
    Other,
}

impl Ftype {
    /// Reads an item's `ftype`.
    pub fn parse(ftype: &str) -> Self {
        let client = |of: fn(Client) -> &'static str| Client::ALL.into_iter().find(|client| of(*client) == ftype);
        if let Some(client) = client(Client::metadata_ftype) {
            Self::Metadata(client)
        } else if let Some(client) = client(Client::unified_ftype) {
            Self::Unified(client)
        } else if let Some(root) = Root::of_ftype(ftype) {
            Self::Root(root)
        } else {
            ftype.strip_suffix(".vcdiff").and_then(Root::of_ftype).map_or(Self::Other, Self::Delta)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::image::ftype::{Client, Ftype, ImageType, Root};

    #[test]
    fn every_ftype_of_an_image_is_known() {
        for (name, expected) in [
            ("lxd.tar.xz", Ftype::Metadata(Client::Lxd)),
            ("incus.tar.xz", Ftype::Metadata(Client::Incus)),
            ("lxd_combined.tar.gz", Ftype::Unified(Client::Lxd)),
            ("incus_combined.tar.gz", Ftype::Unified(Client::Incus)),
            ("squashfs", Ftype::Root(Root::Squashfs)),
            ("root.tar.xz", Ftype::Root(Root::TarXz)),
            ("disk-kvm.img", Ftype::Root(Root::DiskKvm)),
            ("disk1.img", Ftype::Root(Root::Disk1)),
            ("uefi1.img", Ftype::Root(Root::Uefi1)),
            ("squashfs.vcdiff", Ftype::Delta(Root::Squashfs)),
            ("disk-kvm.img.vcdiff", Ftype::Delta(Root::DiskKvm)),
            ("squashfs.manifest", Ftype::Other),
            ("tar.gz", Ftype::Other),
            ("", Ftype::Other),
        ] {
            assert_eq!(Ftype::parse(name), expected, "{name}");
        }
    }

    #[test]
    fn tarballs_and_squashfs_are_containers_and_disks_are_virtual_machines() {
        let containers: Vec<_> = Root::ALL.into_iter().filter(|root| root.image_type() == ImageType::Container).collect();
        assert_eq!(containers, [Root::Squashfs, Root::TarXz]);
    }
}
