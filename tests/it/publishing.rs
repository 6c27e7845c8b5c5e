//! Images of our own, and names that people give: imported, listed, changed and taken away as people type it.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use cistern::digest::{Claim, Digest, Expected};
use cistern::store::layout::Layout;
use serde_json::Value;

use crate::deeds::is_counted;
use crate::managing::{done, failed};
use crate::support::mirror::{Builder, Mirror, wait_for};
use crate::support::origin::Origin;
use crate::support::stream::{Stream, Version, fingerprint, noise};

/// A tarball of these files, packed by `pack`.
fn tarball(files: &[(&str, &[u8])], pack: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    pack(&builder.into_inner().unwrap())
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

const YAML: &str = "architecture: x86_64\ncreation_date: 1767225600\nproperties:\n  os: Alpine\n  release: \"3.20\"\n  requirements.secureboot: \"false\"\n";

/// Metadata of an image of our own.
pub fn metadata_xz() -> Vec<u8> {
    metadata(xz)
}

fn metadata(pack: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    tarball(&[("./metadata.yaml", YAML.as_bytes()), ("templates/x.tpl", b"x")], pack)
}

pub fn squashfs() -> Vec<u8> {
    superblock(&noise(3000, 5))
}

/// A squashfs as far as anybody looks into it here: its magic, and how many bytes it uses.
fn superblock(rest: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; 96], rest].concat();
    let len = bytes.len() as u64;
    bytes[..4].copy_from_slice(b"hsqs");
    bytes[40..48].copy_from_slice(&len.to_le_bytes());
    bytes
}

struct Setting {
    mirror: Mirror,
    folder: tempfile::TempDir,
}

impl Setting {
    async fn make() -> Self {
        Self { mirror: Builder::default().start().await, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    async fn document(&self) -> Value {
        self.mirror.json("local/streams/v1/images.json").await
    }

    async fn shown(&self, image: &str) -> Value {
        serde_json::from_str(&done(&self.mirror, &["image", "info", image, "--format", "json"]).await).unwrap()
    }
}

/// design.md §3: "Images can be copied between servers, and own images published. Properties that begin with `requirements.` … settable on
/// published images."
#[tokio::test]
async fn an_imported_image_is_listed_under_local_and_at_the_root_for_lxd_and_incus_alike() {
    let setting = Setting::make().await;
    let (meta, root) = (setting.file("meta", &metadata(xz)), setting.file("root", &squashfs()));
    let arguments = [
        "image",
        "import",
        &meta,
        &root,
        "--alias",
        "mine",
        "--alias",
        "alpine/mine",
        "--public",
        "description=My own",
        "requirements.cgroup=v1",
    ];
    let print = fingerprint(&metadata(xz), &squashfs());
    assert_eq!(done(&setting.mirror, &arguments).await.trim(), print);
    let document = setting.document().await;
    let product = &document["products"][format!("local:{}", &print[..12])];
    assert_eq!((&product["aliases"], &product["arch"], &product["os"]), (&"alpine/mine,mine".into(), &"x86_64".into(), &"Alpine".into()));
    let requirements = serde_json::json!({"secureboot": "false", "cgroup": "v1"});
    assert_eq!((&product["requirements"], &product["lxd_requirements"]), (&requirements, &requirements));
    let items = &product["versions"]["20260101_0000"]["items"];
    let mut ftypes: Vec<&str> = items.as_object().unwrap().values().map(|item| item["ftype"].as_str().unwrap()).collect();
    ftypes.sort_unstable();
    assert_eq!(ftypes, ["incus.tar.xz", "lxd.tar.xz", "squashfs"]);
    for (name, bytes) in [("rootfs.squashfs", squashfs()), ("lxd.tar.xz", metadata(xz))] {
        assert_eq!(setting.mirror.body(&format!("local/images/{print}/{name}")).await, bytes);
    }
    assert!(setting.mirror.json("streams/v1/local.images.json").await["products"].as_object().unwrap().len() == 1);
    let shown = setting.shown("local:mine").await;
    assert_eq!(
        (&shown["held"], &shown["cached"], &shown["public"], &shown["remote"]),
        (&true.into(), &false.into(), &true.into(), &"local".into())
    );
    assert_eq!(shown["properties"]["requirements.cgroup"], "v1");

    let Setting { mirror, folder } = setting;
    let path = mirror.store().join("ledger.sqlite");
    let mirror = mirror.restart_after(|| std::fs::remove_file(path).unwrap()).await;
    let setting = Setting { mirror, folder };
    assert_eq!(setting.document().await, document, "it is there again, with the database gone");
    assert_eq!(setting.mirror.body(&format!("local/images/{print}/rootfs.squashfs")).await, squashfs());
}

#[tokio::test]
async fn every_form_in_which_images_come_is_recognised_by_its_bytes() {
    let setting = Setting::make().await;
    let qcow2 = [b"QFI\xfb".to_vec(), noise(2000, 6)].concat();
    let root_tar = tarball(&[("etc/hostname", b"x")], xz);
    let with_root: &[(&str, &[u8])] = &[("metadata.yaml", YAML.as_bytes()), ("rootfs/etc/hostname", b"y")];
    let with_disk: &[(&str, &[u8])] = &[("metadata.yaml", YAML.as_bytes()), ("rootfs.img", b"disk")];
    for (number, (files, expected_type, expected_ftype)) in [
        (vec![metadata(xz), squashfs()], "container", "squashfs"),
        (vec![metadata(gzip), squashfs()], "container", "squashfs"),
        (vec![metadata(zstd), qcow2], "virtual-machine", "disk-kvm.img"),
        (vec![metadata(bzip2), root_tar], "container", "root.tar.xz"),
        (vec![tarball(with_root, xz)], "container", "lxd_combined.tar.gz"),
        (vec![tarball(with_root, plain)], "container", "lxd_combined.tar.gz"),
        (vec![tarball(with_disk, gzip)], "virtual-machine", "incus_combined.tar.gz"),
    ]
    .into_iter()
    .enumerate()
    {
        let paths: Vec<String> = files.iter().enumerate().map(|(at, bytes)| setting.file(&format!("any-{number}-{at}"), bytes)).collect();
        let alias = format!("image-{number}");
        let arguments: Vec<&str> =
            ["image", "import", "--public", "--alias", &alias].into_iter().chain(paths.iter().map(String::as_str)).collect();
        let print = done(&setting.mirror, &arguments).await;
        let document = setting.document().await;
        let items = &document["products"][format!("local:{}", &print[..12])]["versions"]["20260101_0000"]["items"];
        assert!(items.as_object().unwrap().values().any(|item| item["ftype"] == expected_ftype), "{number}: {items}");
        assert_eq!(setting.shown(print.trim()).await["type"], expected_type, "{number}");
    }
}

#[tokio::test]
async fn the_same_image_twice_is_one_and_one_that_is_not_public_is_held_and_not_listed() {
    let setting = Setting::make().await;
    let (meta, root) = (setting.file("meta", &metadata(xz)), setting.file("root", &squashfs()));
    let print = done(&setting.mirror, &["image", "import", &meta, &root, "--alias", "one"]).await.trim().to_owned();
    assert_eq!(setting.mirror.get("local/streams/v1/images.json").await.status(), 404, "hosts do not see it");
    assert_eq!(setting.mirror.get(&format!("local/images/{print}/rootfs.squashfs")).await.status(), 404);
    assert_eq!(setting.shown(&print).await["public"], false, "people do");
    assert_eq!(setting.shown("one").await["aliases"], serde_json::json!(["one"]), "by its name, too");
    assert_eq!(
        done(&setting.mirror, &["image", "import", &meta, &root, "--alias", "two", "--alias", "one", "--public"]).await.trim(),
        print
    );
    let document = setting.document().await;
    assert_eq!(document["products"].as_object().unwrap().len(), 1);
    assert_eq!(document["products"][format!("local:{}", &print[..12])]["aliases"], "one,two");
    assert_eq!(setting.mirror.files("blobs").len(), 2);
    done(&setting.mirror, &["image", "set", "local:one", "public=false"]).await;
    wait_for(async || setting.mirror.get("local/streams/v1/images.json").await.status() == 404).await;
}

#[tokio::test]
async fn imports_of_one_image_at_once_are_one_image_with_all_names() {
    let setting = Setting::make().await;
    let (meta, root) = (setting.file("meta", &metadata(xz)), setting.file("root", &squashfs()));
    let aliases: Vec<String> = (0..6).map(|number| format!("name-{number}")).collect();
    let imports = aliases.iter().enumerate().map(|(number, alias)| {
        let mut arguments = vec!["image", "import", &meta, &root, "--alias", alias];
        arguments.extend((number % 2 == 1).then_some("--public"));
        let mirror = &setting.mirror;
        async move { done(mirror, &arguments).await }
    });
    futures_util::future::join_all(imports).await;
    let document = setting.document().await;
    let products: Vec<&Value> = document["products"].as_object().unwrap().values().collect();
    assert_eq!(products.iter().map(|product| &product["aliases"]).collect::<Vec<_>>(), [aliases.join(",").as_str()]);
    let Setting { mirror, folder } = setting;
    let setting = Setting { mirror: mirror.restart().await, folder };
    assert_eq!(setting.document().await, document);
    assert_eq!(
        serde_json::from_str::<Value>(&done(&setting.mirror, &["image", "list", "--format", "json"]).await)
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn what_an_own_image_is_like_can_be_changed_and_it_can_be_deleted() {
    let setting = Setting::make().await;
    let (meta, root) = (setting.file("meta", &metadata(xz)), setting.file("root", &squashfs()));
    let print = done(&setting.mirror, &["image", "import", &meta, &root, "--alias", "one", "--public"]).await.trim().to_owned();
    done(&setting.mirror, &["image", "set", "local:one", "requirements.secureboot=", "variant=cloud", "expires_at=2040-01-02"]).await;
    let product = setting.document().await["products"][format!("local:{}", &print[..12])].clone();
    assert_eq!(
        (&product["variant"], &product["support_eol"], &product["requirements"]),
        (&"cloud".into(), &"2040-01-02".into(), &Value::Null)
    );
    let (code, line) = failed(&setting.mirror, &["image", "set", "local:one", "auto_update=true"]).await;
    assert!(code == 1 && line.contains("not kept up to date"), "{line}");
    done(&setting.mirror, &["image", "delete", "local:one"]).await;
    assert_eq!(setting.mirror.get("local/streams/v1/images.json").await.status(), 404, "it is listed no more at once");
    assert_eq!(setting.mirror.body(&format!("local/images/{print}/rootfs.squashfs")).await, squashfs(), "and its files stay for grace");
    assert!(setting.mirror.files("state/published").is_empty() && setting.mirror.files("state/aliases").is_empty());
}

/// design.md §3: "An image past its `expires_at` (set … by its own metadata …) goes as soon as it has not been used for
/// `images.grace`."
#[tokio::test]
async fn an_image_that_says_itself_when_it_ends_goes_with_its_names() {
    let mirror = Builder::default().section("[images]\ngrace = \"1s\"").start().await;
    let setting = Setting { mirror, folder: tempfile::tempdir().unwrap() };
    let yaml = format!("{YAML}expiry_date: 1768000000\n");
    let meta = setting.file("meta", &tarball(&[("metadata.yaml", yaml.as_bytes())], xz));
    let root = setting.file("root", &squashfs());
    done(&setting.mirror, &["image", "import", &meta, &root, "--alias", "short", "--public"]).await;
    wait_for(async || setting.mirror.get("local/streams/v1/images.json").await.status() == 404).await;
    wait_for(async || setting.mirror.files("blobs").is_empty() && setting.mirror.files("state").is_empty()).await;
}

#[tokio::test]
async fn what_is_no_image_is_refused_in_one_line_and_changes_nothing() {
    let setting = Setting::make().await;
    let good = (setting.file("meta", &metadata(xz)), setting.file("root", &squashfs()));
    done(&setting.mirror, &["image", "import", &good.0, &good.1, "--alias", "taken", "--public"]).await;
    let before = (setting.document().await, setting.mirror.files("state"));
    let yaml = |text: &str| tarball(&[("metadata.yaml", text.as_bytes())], xz);
    let file = |name: &str, bytes: &[u8]| setting.file(name, bytes);
    let (other, text) = (file("other", &superblock(&noise(900, 9))), file("text", b"<html>not an image</html>"));
    let (empty, broken) = (file("empty", b""), file("broken", &metadata(xz)[..60]));
    let no_yaml = file("no-yaml", &tarball(&[("rootfs/x", b"")], xz));
    let pdp = file("pdp", &yaml("architecture: pdp11\ncreation_date: 1"));
    let dateless = file("dateless", &yaml("architecture: x86_64"));
    let gzipped = file("gzipped-root", &tarball(&[("x", b"y")], gzip));
    let unified = file("unified", &tarball(&[("metadata.yaml", YAML.as_bytes()), ("rootfs/x", b"")], xz));
    let cut = file("cut", &squashfs()[..2000]);
    let whole = tarball(&[("metadata.yaml", YAML.as_bytes()), ("rootfs/x", &noise(50_000, 3))], gzip);
    let half = file("half", &whole[..whole.len() / 2]);
    // The tarball in it is whole, and only the checksum at the end says that it is another one.
    let mut odd = tarball(&[("metadata.yaml", YAML.as_bytes()), ("rootfs/x", b"")], gzip);
    let checksum = odd.len() - 8;
    odd[checksum] ^= 1;
    let odd = file("odd", &odd);
    let tail_less = metadata(xz);
    let tail_less = file("tail-less", &tail_less[..tail_less.len() - 12]);
    let long_root = tarball(&[("x", &noise(200_000, 4)), ("y", &noise(200_000, 5))], xz);
    let cut_root = file("cut-root", &long_root[..long_root.len() / 2]);
    let endless = file("endless", include_bytes!("../../fuzz/corpus/tarballs/endless-name"));
    let padded = format!("{YAML}#{}", "#".repeat(1 << 20));
    let large = file("large", &tarball(&[("metadata.yaml", padded.as_bytes()), ("rootfs/x", b"")], gzip));
    let missing = setting.folder.path().join("missing").display().to_string();
    for (arguments, code, said) in [
        (vec![&*missing], 1, "cannot read"),
        (vec![&*text], 1, "text is none of the kinds of files"),
        (vec![&*empty], 1, "empty is none of the kinds"),
        (vec![&*broken, &*other], 1, "broken cannot be unpacked"),
        (vec![&*no_yaml, &*other], 1, "no-yaml has no metadata.yaml"),
        (vec![&*good.0], 1, "meta has no rootfs"),
        (vec![&*good.0, &*text], 1, "text is none of the kinds of files that images are made of; a root is"),
        (vec![&*good.0, &*cut], 1, "cut is a squashfs that ends before its end"),
        (vec![&*half], 1, "half cannot be unpacked"),
        (vec![&*odd], 1, "odd cannot be unpacked"),
        (vec![&*tail_less, &*other], 1, "tail-less cannot be unpacked"),
        (vec![&*good.0, &*cut_root], 1, "cut-root cannot be unpacked"),
        (vec![&*large], 1, "large cannot be unpacked: its metadata.yaml has more than 1048576 bytes"),
        (vec![&*endless], 1, "endless cannot be unpacked: a header in it has more than 4194304 bytes"),
        (vec![&*good.0, &*other, "requirements.=x"], 1, "is no property"),
        (vec![&*good.0, &*gzipped], 1, "gzipped-root is packed with gzip"),
        (vec![&*unified, &*other], 1, "unified has a rootfs of its own"),
        (vec![&*pdp, &*other], 1, "the architecture 'pdp11'"),
        (vec![&*dateless, &*other], 1, "has no creation_date"),
        (vec![&*good.0, &*other, "--alias", "taken"], 1, "the alias 'taken' means"),
        (vec![&*good.0, &*other, "--alias", "a b"], 1, "is no name for an image"),
        (vec![&*good.0, &*other, "--alias", "a\u{1b}b"], 1, "is no name for an image"),
        (vec!["x=y"], 2, "an image has one file, or metadata and root"),
        (vec![&*good.0, "x=y", &*other], 2, "files come first"),
    ] {
        let arguments: Vec<&str> = ["image", "import", "--public"].into_iter().chain(arguments).collect();
        let (actual, line) = failed(&setting.mirror, &arguments).await;
        assert!(actual == code && line.contains(said) && !line.contains('\u{1b}'), "{arguments:?}: {actual} {line}");
    }
    assert_eq!((setting.document().await, setting.mirror.files("state")), before);
}

/// design.md §3: "Aliases are as upstream gives them; operators may add more. The successor inherits … aliases of operators."
#[tokio::test]
async fn a_name_that_a_person_gives_means_a_held_image_and_follows_its_updates() {
    let origin = Origin::start().await;
    let arch = if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" };
    let product = format!("busy:1:{arch}");
    let version =
        |folder: &str| Version::new(folder).file("squashfs", &noise(3000, folder.len() as u64)).metadata("lxd.tar.xz", folder.as_bytes());
    origin.put(Stream::default().add(&product, "busy", "20260101", version("a")).tree());
    let mirror = Builder::default().section("[images]\ngrace = \"1s\"").remote("lab", &[origin.url()], "").start().await;
    let (code, line) = failed(&mirror, &["image", "alias", "create", "prod", "lab:busy"]).await;
    assert!(code == 1 && line.contains("is not held"), "{line}");
    done(&mirror, &["image", "copy", "lab:busy", "--auto-update", "--alias", "prod"]).await;
    let prints = ["a", "bb"].map(|folder| fingerprint(folder.as_bytes(), &noise(3000, folder.len() as u64)));
    let meaning = async || -> Value {
        let aliases: Value = serde_json::from_str(&done(&mirror, &["image", "alias", "list", "--format", "json"]).await).unwrap();
        aliases[0].clone()
    };
    assert_eq!(
        (&meaning().await["name"], &meaning().await["fingerprint"], &meaning().await["remote"]),
        (&"prod".into(), &prints[0].as_str().into(), &"lab".into())
    );
    let root = mirror.json("streams/v1/local.images.json").await;
    let aliases = root["products"].as_object().unwrap().values().next().unwrap()["aliases"].as_str().unwrap().to_owned();
    assert!(
        aliases.split(',').any(|alias| alias == "prod") && aliases.split(',').any(|alias| alias == "busy"),
        "at the root the image is there once, with all its names: {aliases}"
    );
    assert_eq!(mirror.body("local/lab/a/squashfs").await, noise(3000, 1));

    origin.put(Stream::default().add(&product, "busy", "20260102", version("bb")).tree());
    done(&mirror, &["image", "refresh", "busy"]).await;
    wait_for(async || meaning().await["fingerprint"] == prints[1].as_str()).await;
    wait_for(async || mirror.files("records").len() == 1).await;
    assert_eq!(meaning().await["fingerprint"], prints[1].as_str(), "also when the old one is gone");
    let (code, line) = failed(&mirror, &["image", "alias", "create", "prod", "lab:busy"]).await;
    assert!(code == 1 && line.contains("the alias 'prod' means"), "{line}");
    done(&mirror, &["image", "alias", "rename", "prod", "stable"]).await;
    done(&mirror, &["image", "alias", "delete", "stable"]).await;
    let (code, line) = failed(&mirror, &["image", "alias", "delete", "stable"]).await;
    assert!(code == 1 && line.contains("there is no alias 'stable' of yours"), "{line}");
    assert!(Path::new(&mirror.store().join("state/aliases")).read_dir().unwrap().next().is_none());
}

/// It cannot be gone on with, and what was counted of it is not there any more.
#[tokio::test]
async fn what_an_import_left_and_is_too_long_counts_no_more() {
    let setting = Setting::make().await;
    let root = squashfs();
    let expected = Expected { claim: Claim::Sha256(Digest::of(&root)), size: Some(root.len() as u64) };
    let too_long = [&root[..], &[0; 1000]].concat();
    let mirror =
        setting.mirror.restart_after_in_store(|store| std::fs::write(Layout::new(store).partial(expected), too_long).unwrap()).await;
    let setting = Setting { mirror, ..setting };
    let (meta, root) = (setting.file("meta", &metadata(xz)), setting.file("root", &root));
    done(&setting.mirror, &["image", "import", &meta, &root]).await;
    wait_for(async || is_counted(&setting.mirror).await.is_ok()).await;
}
