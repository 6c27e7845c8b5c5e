//! Images that really boot, made with the tools that image builders use.

use std::path::Path;
use std::process::Command;

/// The files of one build of an image: busybox as init, and a file that tells builds apart.
#[derive(Clone, Debug)]
pub struct Build {
    /// `lxd.tar.xz`
    pub metadata: Vec<u8>,
    /// The same root as `squashfs`.
    pub squashfs: Vec<u8>,
    /// The same root as `root.tar.xz`.
    pub tarball: Vec<u8>,
    /// Metadata and root in one `tar.gz`.
    pub unified: Vec<u8>,
}

fn run(program: &str, arguments: &[&str], folder: &Path) {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Build {
    /// Builds an image. `name` goes into it.
    pub fn make(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        let root = top.join("rootfs");
        for below in ["bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var"] {
            std::fs::create_dir_all(root.join(below)).unwrap();
        }
        for program in ["bin/busybox", "sbin/init", "bin/sh"] {
            std::fs::copy("/bin/busybox", root.join(program)).unwrap();
        }
        std::fs::write(root.join("etc/build"), name).unwrap();
        std::fs::write(root.join("etc/inittab"), "::sysinit:/bin/busybox true\n").unwrap();
        let arch = std::env::consts::ARCH;
        std::fs::write(
            top.join("metadata.yaml"),
            format!("architecture: {arch}\ncreation_date: 1767225600\nproperties:\n  os: test\n  description: {name}\n"),
        )
        .unwrap();
        run("mksquashfs", &["rootfs", "root.squashfs", "-noappend", "-all-root", "-quiet", "-no-progress"], top);
        run("tar", &["-cJf", "lxd.tar.xz", "metadata.yaml"], top);
        run("tar", &["-cJf", "root.tar.xz", "--owner=0", "--group=0", "-C", "rootfs", "."], top);
        run("tar", &["-czf", "unified.tar.gz", "--owner=0", "--group=0", "metadata.yaml", "rootfs"], top);
        let read = |name: &str| std::fs::read(top.join(name)).unwrap();
        Self {
            metadata: read("lxd.tar.xz"),
            squashfs: read("root.squashfs"),
            tarball: read("root.tar.xz"),
            unified: read("unified.tar.gz"),
        }
    }

    /// What makes the squashfs of this build out of that of an older one.
    pub fn delta_from(&self, older: &Self) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("old"), &older.squashfs).unwrap();
        std::fs::write(folder.path().join("new"), &self.squashfs).unwrap();
        run("xdelta3", &["-e", "-f", "-s", "old", "new", "delta"], folder.path());
        std::fs::read(folder.path().join("delta")).unwrap()
    }
}
