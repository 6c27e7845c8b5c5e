//! What a file is, by its first bytes and not by its name (LXD's `shared/archive.go` knows the same).

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Magic {
    /// A tarball, packed like this.
    Packed(Packing),
    /// A tarball as it is.
    Tar,
    /// A squashfs.
    Squashfs,
    /// A disk of a virtual machine.
    Qcow2,
    /// None of these.
    Unknown,
}

/// What something is packed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// gzip
    Gzip,
    /// bzip2
    Bzip2,
    /// xz
    Xz,
    /// The format before xz.
    Lzma,
    /// zstd
    Zstd,
}

/// So many of the first bytes are enough to tell.
pub const MAGIC_BYTES: usize = 263;

impl Magic {
    /// Looks at the first bytes of a file.
    pub fn of(start: &[u8]) -> Self {
        let begins = |magic: &[u8]| start.starts_with(magic);
        if begins(b"\x1f\x8b") {
            Self::Packed(Packing::Gzip)
        } else if begins(b"BZh") {
            Self::Packed(Packing::Bzip2)
        } else if begins(b"\xfd7zXZ\0") {
            Self::Packed(Packing::Xz)
        } else if begins(b"\x5d\0\0") {
            Self::Packed(Packing::Lzma)
        } else if begins(b"\x28\xb5\x2f\xfd") {
            Self::Packed(Packing::Zstd)
        } else if begins(b"hsqs") {
            Self::Squashfs
        } else if begins(b"QFI\xfb") {
            Self::Qcow2
        } else if start.get(257..262) == Some(b"ustar") {
            Self::Tar
        } else {
            Self::Unknown
        }
    }

    /// What people call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Packed(packing) => packing.label(),
            Self::Tar => "a plain tarball",
            Self::Squashfs => "a squashfs",
            Self::Qcow2 => "a qcow2 disk",
            Self::Unknown => "none of the kinds of files that images are made of",
        }
    }
}

impl Packing {
    fn label(self) -> &'static str {
        match self {
            Self::Gzip => "packed with gzip",
            Self::Bzip2 => "packed with bzip2",
            Self::Xz => "packed with xz",
            Self::Lzma => "packed with lzma",
            Self::Zstd => "packed with zstd",
        }
    }

    /// What the name of such a tarball ends with.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => ".tar.gz",
            Self::Bzip2 => ".tar.bz2",
            Self::Xz => ".tar.xz",
            Self::Lzma => ".tar.lzma",
            Self::Zstd => ".tar.zst",
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::image::magic::{Magic, Packing};

    #[test]
    fn a_file_is_what_its_first_bytes_say() {
        let mut tar = vec![0; 300];
        tar[257..262].copy_from_slice(b"ustar");
        for (start, expected) in [
            (&b"\x1f\x8b\x08"[..], Magic::Packed(Packing::Gzip)),
            (b"BZh9", Magic::Packed(Packing::Bzip2)),
            (b"\xfd7zXZ\0\0", Magic::Packed(Packing::Xz)),
            (b"\x28\xb5\x2f\xfd\0", Magic::Packed(Packing::Zstd)),
            (b"hsqs....", Magic::Squashfs),
            (b"QFI\xfb\0", Magic::Qcow2),
            (&tar, Magic::Tar),
            (b"", Magic::Unknown),
            (b"<html>", Magic::Unknown),
        ] {
            assert_eq!(Magic::of(start), expected, "{start:?}");
        }
    }
}
