//! The sample image: small, and it boots.
//!
//! Its `/sbin/init` is a handful of machine instructions that wait for signals for ever, which is all that a container
//! needs in order to run.

use std::io::{self, Write as _};

use jiff::Timestamp;
use liblzma::write::XzEncoder;
use serde_json::json;
use tar::{Builder, EntryType, Header};

use crate::digest::{Digest, FingerprintHasher};

/// So much of the root is noise, for something to transfer.
const NOISE_BYTES: usize = 8 << 20;
/// Fast: noise does not get smaller anyway.
const COMPRESSION: u32 = 0;

/// The files of an image, and the documents that list it.
#[derive(Clone, Debug)]
pub struct Sample {
    serial: String,
    metadata: Vec<u8>,
    root: Vec<u8>,
}

impl Sample {
    /// Makes the image, as if it was built at `now`.
    pub fn make(now: Timestamp) -> io::Result<Self> {
        let serial = now.strftime("%Y%m%d_%H%M").to_string();
        Ok(Self { metadata: metadata(&serial, now)?, root: root()?, serial })
    }

    /// The path of its root on the image server.
    pub fn root_path(&self) -> String {
        format!("images/sample/{}/root.tar.xz", self.serial)
    }

    /// Its root.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// Everything that the image server has, by path.
    pub fn documents_and_files(&self) -> Vec<(String, Vec<u8>)> {
        let metadata_path = format!("images/sample/{}/lxd.tar.xz", self.serial);
        let products = self.products(&metadata_path);
        let index = json!({
            "format": "index:1.0",
            "index": {"images": {"datatype": "image-downloads", "path": "streams/v1/images.json", "format": "products:1.0", "products": ["sample:1:default"]}},
        });
        vec![
            ("streams/v1/index.json".to_owned(), index.to_string().into_bytes()),
            ("streams/v1/images.json".to_owned(), products.to_string().into_bytes()),
            (metadata_path, self.metadata.clone()),
            (self.root_path(), self.root.clone()),
        ]
    }

    fn products(&self, metadata_path: &str) -> serde_json::Value {
        let mut fingerprint = FingerprintHasher::default();
        fingerprint.update(&self.metadata);
        fingerprint.update(&self.root);
        let fingerprint = fingerprint.finish().to_string();
        json!({
            "format": "products:1.0", "content_id": "images", "datatype": "image-downloads",
            "products": {"sample:1:default": {
                "aliases": "sample,default", "arch": std::env::consts::ARCH, "os": "Sample", "release": "1", "release_title": "1", "version": "1",
                "versions": {&self.serial: {"items": {
                    "lxd.tar.xz": {
                        "ftype": "lxd.tar.xz", "path": metadata_path, "size": self.metadata.len(),
                        "sha256": Digest::of(&self.metadata).to_string(),
                        "combined_rootxz_sha256": fingerprint, "combined_sha256": fingerprint,
                    },
                    "root.tar.xz": {
                        "ftype": "root.tar.xz", "path": self.root_path(), "size": self.root.len(), "sha256": Digest::of(&self.root).to_string(),
                    },
                }}},
            }},
        })
    }
}

fn metadata(serial: &str, now: Timestamp) -> io::Result<Vec<u8>> {
    let yaml = format!(
        "architecture: {}\ncreation_date: {}\nproperties:\n  os: Sample\n  release: \"1\"\n  serial: \"{serial}\"\n  description: Sample 1 ({serial})\n",
        std::env::consts::ARCH,
        now.as_second()
    );
    archive(|archive| file(archive, "metadata.yaml", 0o644, yaml.as_bytes()))
}

fn root() -> io::Result<Vec<u8>> {
    let mut noise = vec![0; NOISE_BYTES];
    fastrand::Rng::with_seed(1).fill(&mut noise);
    archive(|archive| {
        for folder in ["dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "usr/share", "var"] {
            directory(archive, folder)?;
        }
        if let Some(init) = init(std::env::consts::ARCH) {
            file(archive, "sbin/init", 0o755, &init)?;
        }
        file(archive, "etc/hostname", 0o644, b"sample\n")?;
        file(archive, "usr/share/noise", 0o644, &noise)
    })
}

fn archive(fill: impl FnOnce(&mut Builder<XzEncoder<Vec<u8>>>) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(XzEncoder::new(Vec::new(), COMPRESSION));
    fill(&mut archive)?;
    archive.into_inner()?.finish()
}

fn file<W: io::Write>(archive: &mut Builder<W>, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes)
}

fn directory<W: io::Write>(archive: &mut Builder<W>, path: &str) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    archive.append_data(&mut header, format!("{path}/"), io::empty())
}

/// A program that does nothing until it is killed, as an ELF file; `None` for machines that we know no instructions of.
fn init(architecture: &str) -> Option<Vec<u8>> {
    let (machine, code): (u16, Vec<u8>) = match architecture {
        // pause: mov eax, 34; syscall; jmp pause
        "x86_64" => (62, vec![0xb8, 0x22, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]),
        // wait: mov x0..x3, 0; mov x8, 73 (ppoll); svc 0; b wait
        "aarch64" => {
            let words: [u32; 7] = [0xd280_0000, 0xd280_0001, 0xd280_0002, 0xd280_0003, 0xd280_0928, 0xd400_0001, 0x17ff_fffa];
            (183, words.iter().flat_map(|word| word.to_le_bytes()).collect())
        }
        _ => return None,
    };
    elf(machine, &code).ok()
}

/// A static 64-bit little-endian executable (System V ABI): one header, one segment, the code.
fn elf(machine: u16, code: &[u8]) -> io::Result<Vec<u8>> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let (executable, version) = (2_u16, 1_u32);
    out.write_all(&executable.to_le_bytes())?;
    out.write_all(&machine.to_le_bytes())?;
    out.write_all(&version.to_le_bytes())?;
    for address in [BASE + HEADERS, 64, 0] {
        out.write_all(&address.to_le_bytes())?;
    }
    out.write_all(&0_u32.to_le_bytes())?;
    for half in [64_u16, 56, 1, 0, 0, 0] {
        out.write_all(&half.to_le_bytes())?;
    }
    let (load, read_and_execute) = (1_u32, 5_u32);
    out.write_all(&load.to_le_bytes())?;
    out.write_all(&read_and_execute.to_le_bytes())?;
    for word in [0, BASE, BASE, size, size, 0x1000] {
        out.write_all(&word.to_le_bytes())?;
    }
    out.write_all(code)?;
    Ok(out)
}
