//! What crosses an air gap: a bundle is looked at without a server, and whatever is wrong with it is named.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cistern::digest::Digest;
use cistern::manifest::{BundlePath, File, MANIFEST, Manifest, SIGNATURE, Volume};
use cistern::seal::SigningKey;
use serde_json::Value;
use tempfile::TempDir;

const CISTERN: &str = env!("CARGO_BIN_EXE_cistern");
const DOCUMENTS: [&str; 2] = ["documents/ubuntu/streams/v1/index.json", "rendered/ubuntu/streams/v1/index.json"];

/// A bundle of two volumes with two blobs each, and the key that it is signed with.
struct Bundle {
    folder: TempDir,
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32]).unwrap()
}

fn blob(bytes: &[u8]) -> File {
    let sha256 = Digest::of(bytes);
    File { path: BundlePath::Blob(sha256), size: bytes.len() as u64, sha256 }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

impl Bundle {
    fn new() -> Self {
        let volumes: [[&[u8]; 2]; 2] = [[b"a", b"bb"], [b"ccc", b"dddd"]];
        let documents = DOCUMENTS.map(|path| File { path: BundlePath::parse(path).unwrap(), size: 2, sha256: Digest::of(b"{}") });
        let manifest = Manifest {
            generation: 3,
            created_at: "2026-11-27T00:00:00Z".to_owned(),
            documents: documents.to_vec(),
            volumes: volumes.iter().map(|blobs| Volume { blobs: blobs.iter().map(|bytes| blob(bytes)).collect() }).collect(),
            ..Manifest::default()
        };
        let bundle = Self { folder: tempfile::tempdir().unwrap() };
        for (number, blobs) in (1..).zip(volumes) {
            bundle.seal(number, &manifest.to_json());
            DOCUMENTS.iter().for_each(|path| write(&bundle.volume(number).join(path), b"{}"));
            blobs.iter().for_each(|bytes| write(&bundle.blob(number, bytes), bytes));
        }
        write(&bundle.key(), key().public().to_pem().as_bytes());
        bundle
    }

    fn seal(&self, number: usize, text: &[u8]) {
        write(&self.volume(number).join(MANIFEST), text);
        write(&self.volume(number).join(SIGNATURE), &key().sign(text));
    }

    fn volume(&self, number: usize) -> PathBuf {
        self.folder.path().join(number.to_string())
    }

    fn blob(&self, number: usize, bytes: &[u8]) -> PathBuf {
        self.volume(number).join(blob(bytes).path.to_string())
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pub")
    }

    /// Changes the manifest of both volumes, and signs it anew.
    fn rewrite(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.volume(1).join(MANIFEST)).unwrap().replace(from, to);
        [1, 2].iter().for_each(|number| self.seal(*number, text.as_bytes()));
    }

    fn verify(&self, volumes: &[usize]) -> Output {
        let folders = volumes.iter().map(|number| self.volume(*number));
        Command::new(CISTERN).args(["bundle", "verify"]).args(folders).arg("--key").arg(self.key()).output().unwrap()
    }

    /// Everything that is said of both volumes, and that it is a failure.
    fn complaints(&self) -> String {
        let output = self.verify(&[1, 2]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        said(&output)
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_whole_bundle_is_whole_in_any_order_and_volume_by_volume() {
    let bundle = Bundle::new();
    for volumes in [&[1, 2][..], &[2, 1]] {
        let output = bundle.verify(volumes);
        let said = said(&output);
        assert!(output.status.success(), "{said}");
        assert!(said.contains(&format!("signed by key {}", key().public())), "{said}");
        assert!(said.contains("Volume 1 of 2: whole; 2 blobs, 3B") && said.contains("Volume 2 of 2: whole; 2 blobs, 7B"), "{said}");
    }
    let output = bundle.verify(&[2]);
    assert!(output.status.success());
    assert!(said(&output).contains("Volume 1 of 2: not here"), "{}", said(&output));
}

#[test]
fn what_is_wrong_is_named_exactly() {
    type Damage = fn(&Bundle);
    let cases: [(Damage, &[&[u8]], &str); 9] = [
        (|bundle| fs::write(bundle.blob(1, b"bb"), b"bx").unwrap(), &[b"bb"], "its bytes hash to"),
        (|bundle| fs::write(bundle.blob(1, b"bb"), b"b").unwrap(), &[b"bb"], "it has 1 bytes where its document says 2"),
        (|bundle| fs::remove_file(bundle.blob(2, b"ccc")).unwrap(), &[b"ccc"], "is missing"),
        (
            |bundle| {
                fs::remove_file(bundle.blob(2, b"ccc")).unwrap();
                symlink(bundle.blob(2, b"dddd"), bundle.blob(2, b"ccc")).unwrap();
            },
            &[b"ccc"],
            "is no plain file",
        ),
        (
            |bundle| {
                fs::remove_file(bundle.blob(1, b"a")).unwrap();
                fs::create_dir(bundle.blob(1, b"a")).unwrap();
            },
            &[b"a"],
            "is no plain file",
        ),
        (|bundle| write(&bundle.blob(1, b"zz"), b"zz"), &[b"zz"], "is not in the manifest"),
        (
            |bundle| fs::remove_file(bundle.volume(2).join(DOCUMENTS[1])).unwrap(),
            &[],
            "2/rendered/ubuntu/streams/v1/index.json: is missing",
        ),
        (|bundle| fs::write(bundle.volume(1).join("blobs/notes"), b"").unwrap(), &[], "1/blobs/notes: is not in the manifest"),
        (
            |bundle| fs::write(bundle.volume(1).join(OsStr::from_bytes(b"blobs/\xff")), b"").unwrap(),
            &[],
            "1/blobs/\u{fffd}: is not in the manifest",
        ),
    ];
    for (damage, blobs, fault) in cases {
        let bundle = Bundle::new();
        damage(&bundle);
        let said = bundle.complaints();
        let complaints: Vec<&str> = said.lines().filter(|line| line.contains(fault)).collect();
        assert_eq!(complaints.len(), 1, "{fault}: {said}");
        let is_named =
            |bytes: &&[u8]| [1, 2].iter().any(|number| complaints[0].starts_with(&format!("{}: ", bundle.blob(*number, bytes).display())));
        assert!(blobs.iter().all(is_named), "{said}");
        assert!(said.contains("the bundle has 1 faults"), "{said}");
    }
}

#[test]
fn a_manifest_that_is_not_as_it_was_signed_or_not_for_us_is_refused() {
    let truncated = |bundle: &Bundle| {
        let text = fs::read(bundle.volume(1).join(MANIFEST)).unwrap();
        fs::write(bundle.volume(1).join(MANIFEST), &text[..text.len() / 2]).unwrap();
    };
    let path = format!("\"{}\"", DOCUMENTS[0]);
    type Damage<'a> = &'a dyn Fn(&Bundle);
    let cases: [(Damage<'_>, &str); 9] = [
        (&truncated, "is no manifest"),
        (&|bundle| fs::write(bundle.volume(1).join(SIGNATURE), [0; 64]).unwrap(), "is not what the owner of key"),
        (
            &|bundle| fs::write(bundle.key(), SigningKey::from_seed(&[8; 32]).unwrap().public().to_pem()).unwrap(),
            "is not what the owner of",
        ),
        (&|bundle| fs::remove_file(bundle.volume(1).join(SIGNATURE)).unwrap(), "has no manifest.json.sig"),
        (&|bundle| fs::remove_file(bundle.volume(2).join(MANIFEST)).unwrap(), "its export was interrupted; run the export again"),
        (&|bundle| bundle.seal(2, b"{}"), "is no manifest"),
        (&|bundle| bundle.rewrite(&path, "\"documents/ubuntu/../../x\""), "'documents/ubuntu/../../x' is no place in a bundle"),
        (&|bundle| bundle.rewrite(&path, "\"/etc/passwd\""), "'/etc/passwd' is no place in a bundle"),
        (
            &|bundle| bundle.rewrite("bundle:1.0", "bundle:2.0"),
            "its format is 'bundle:2.0', and this version of cistern reads 'bundle:1.0'",
        ),
    ];
    for (damage, reason) in cases {
        let bundle = Bundle::new();
        damage(&bundle);
        let said = bundle.complaints();
        assert!(said.contains(reason), "{reason}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn folders_of_two_bundles_are_not_one_and_a_lost_volume_is_named() {
    let bundle = Bundle::new();
    let text = fs::read_to_string(bundle.volume(2).join(MANIFEST)).unwrap().replace("\"generation\": 3", "\"generation\": 4");
    bundle.seal(2, text.as_bytes());
    assert!(bundle.complaints().contains("are of different bundles"));
    let bundle = Bundle::new();
    for bytes in [&b"a"[..], b"bb"] {
        fs::remove_file(bundle.blob(1, bytes)).unwrap();
    }
    let output = bundle.verify(&[1]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("1: has no blob of any volume"), "{}", said(&output));
}

#[test]
fn programs_read_the_same() {
    let bundle = Bundle::new();
    fs::remove_file(bundle.blob(2, b"ccc")).unwrap();
    let output = Command::new(CISTERN).args(["bundle", "verify", "--format", "json"]).arg(bundle.volume(2)).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let verified: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&verified["signed_by"], &verified["volumes"][1]["state"]), (&Value::Null, &Value::from("broken")));
    assert_eq!(verified["faults"][0]["fault"], "is missing");
}

/// `openssl` checks what we sign.
#[test]
fn openssl_takes_the_signature() {
    let bundle = Bundle::new();
    let openssl = |number| {
        let mut command = Command::new("openssl");
        command.args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"]).arg(bundle.key());
        command.arg("-in").arg(bundle.volume(number).join(MANIFEST)).arg("-sigfile").arg(bundle.volume(number).join(SIGNATURE));
        command.output()
    };
    let Ok(verified) = openssl(1) else {
        eprintln!("skipped: openssl is not installed");
        return;
    };
    assert!(verified.status.success(), "{verified:?}");
    fs::write(bundle.volume(1).join(SIGNATURE), [0; 64]).unwrap();
    assert!(!openssl(1).unwrap().status.success());
}
