//! Architectures, by LXD's canonical names and the other names that image servers use for them.

use std::fmt;

/// An architecture that LXD or Incus knows, by its canonical name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Architecture(&'static str);

/// Canonical name, then its other names (`shared/osarch/architectures.go` of LXD and of Incus).
const NAMES: &[(&str, &[&str])] = &[
    ("i686", &["i386", "i586", "386", "x86", "generic_32"]),
    ("x86_64", &["amd64", "generic_64", "amd64v3", "x86_64_v1", "x86_64_v2", "x86_64_v3", "x86_64_v4"]),
    ("armv6l", &["armel", "arm"]),
    ("armv7l", &["armhf", "armhfp", "armv7", "armv7a_hardfp", "armv7a_vfpv3_hardfp"]),
    ("armv8l", &[]),
    ("aarch64", &["arm64", "arm64_generic"]),
    ("ppc", &["powerpc"]),
    ("ppc64", &["powerpc64"]),
    ("ppc64le", &["ppc64el"]),
    ("s390x", &[]),
    ("mips", &["mipsel", "mipsle"]),
    ("mips64", &["mips64el", "mips64le"]),
    ("riscv32", &[]),
    ("riscv64", &[]),
    ("loongarch64", &["loong64"]),
];

impl Architecture {
    /// Reads a product's `arch`; `None` if neither LXD nor Incus knows it, and then both skip the product.
    pub fn parse(name: &str) -> Option<Self> {
        let known = |entry: &&(&'static str, &[&str])| entry.0 == name || entry.1.contains(&name);
        NAMES.iter().find(known).map(|entry| Self(entry.0))
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use crate::image::architecture::Architecture;

    #[test]
    fn every_name_of_an_architecture_means_the_same() {
        assert_eq!(Architecture::parse("amd64"), Architecture::parse("x86_64"));
        assert_eq!(Architecture::parse("arm64").unwrap().to_string(), "aarch64");
        assert_eq!(Architecture::parse("sparc"), None);
        assert_eq!(Architecture::parse(""), None);
    }
}
