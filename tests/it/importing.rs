//! A site without a way out is fed by bundles: what comes, what is listed then, what goes, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cistern::api::ImportPlan;
use cistern::cli::admin::ask;
use cistern::manifest::{MANIFEST, Manifest, SIGNATURE};
use cistern::seal::SigningKey;
use serde_json::Value;
use tempfile::TempDir;

use crate::managing::{CISTERN, done, failed, typed};
use crate::publishing::{metadata_xz, squashfs};
use crate::support::mirror::{Builder, Mirror, wait_for};
use crate::support::origin::Origin;
use crate::support::server::Server;
use crate::support::stream::{Stream, Version, noise};

/// Two Cisterns, of which only the first has a way to the origin, and what is carried from it to the second.
pub struct Setting {
    pub origin: Origin,
    pub connected: Mirror,
    pub site: Mirror,
    pub disk: TempDir,
}

fn version(folder: &str, len: usize) -> Version {
    Version::new(folder).file("squashfs", &noise(len, len as u64)).metadata("lxd.tar.xz", folder.as_bytes())
}

fn arch() -> &'static str {
    if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" }
}

pub fn stream(busy: &[(&str, &str, usize)]) -> Stream {
    let of_busy = |stream: Stream, (serial, folder, len): &(&str, &str, usize)| {
        stream.add(&format!("busy:1:{}", arch()), "busy", serial, version(folder, *len))
    };
    busy.iter().fold(Stream::default(), of_busy).add(&format!("rare:1:{}", arch()), "rare", "20260101", version("rare", 200_000))
}

pub const FIRST: (&str, &str, usize) = ("20260101", "busy/1", 300_000);
pub const SECOND: (&str, &str, usize) = ("20260102", "busy/2", 310_000);

pub fn site() -> Builder {
    // It has a remote, or else it would have the public ones.
    Builder::default().remote("other", &[], "mode = \"offline\"").section("[images]\ngrace = \"1s\"")
}

impl Setting {
    pub async fn new() -> Self {
        Self::with(site()).await
    }

    pub async fn with(site: Builder) -> Self {
        let origin = Origin::start().await;
        origin.put(stream(&[FIRST]).tree());
        let connected = Builder::default().remote("lab", &[origin.url()], "").start().await;
        let site = site.start_without_waiting().await;
        let setting = Self { origin, connected, site, disk: tempfile::tempdir().unwrap() };
        setting.trust().await;
        setting
    }

    async fn trust(&self) {
        let key = self.disk.path().join("key.pem");
        fs::write(&key, done(&self.connected, &["bundle", "key"]).await).unwrap();
        done(&self.site, &["bundle", "trust", &text(&key)]).await;
    }

    /// Exports to a new folder.
    pub async fn export(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let to = self.disk.path().join(name);
        done(&self.connected, &[&["bundle", "export", "--to", &text(&to)], arguments].concat()).await;
        to
    }

    /// What the site says that it has, in a file.
    async fn inventory(&self) -> String {
        let path = self.disk.path().join("site.inv");
        fs::write(&path, done(&self.site, &["bundle", "inventory"]).await).unwrap();
        text(&path)
    }

    pub async fn import(&self, folder: &Path, arguments: &[&str]) -> String {
        done(&self.site, &[&["bundle", "import", &text(folder)], arguments].concat()).await
    }

    /// Why an import is refused: everything that it said, on both channels.
    pub async fn refused(&self, folder: &Path, arguments: &[&str]) -> String {
        let (code, out, error) = typed(&self.site, &[&["bundle", "import", &text(folder)], arguments].concat(), "").await;
        assert_eq!(code, 1, "{out}{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        out + &error
    }

    /// A new version of what is busy.
    pub async fn publish(&self, busy: &[(&str, &str, usize)]) {
        self.origin.put(stream(busy).tree());
        self.connected.refresh("lab", false).await;
    }

    /// The versions that the site lists of a product of `lab`.
    pub async fn versions(&self, product: &str) -> Vec<String> {
        let response = self.site.get("lab/streams/v1/images.json").await;
        if response.status() != 200 {
            return Vec::new();
        }
        let images: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        let versions = images["products"][format!("{product}:1:{}", arch())]["versions"].as_object().cloned();
        versions.map(|versions| versions.keys().cloned().collect()).unwrap_or_default()
    }

    /// How many products it lists of `lab`.
    async fn products(&self) -> usize {
        let response = self.site.get("lab/streams/v1/images.json").await;
        if response.status() != 200 {
            return 0;
        }
        let images: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        images["products"].as_object().unwrap().len()
    }

    pub async fn is_served(&self, path: &str) -> bool {
        let response = self.site.get(&format!("lab/{path}")).await;
        response.status() == 200 && response.bytes().await.is_ok()
    }

    /// The images that the site holds, as people see them.
    pub async fn images(&self) -> Vec<Value> {
        let images: Value = serde_json::from_str(&done(&self.site, &["image", "list", "--format", "json"]).await).unwrap();
        images.as_array().unwrap().clone()
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

pub fn manifest(folder: &Path) -> Manifest {
    Manifest::parse(&fs::read(folder.join(MANIFEST)).unwrap()).unwrap()
}

fn blob_bytes(folder: &Path) -> u64 {
    manifest(folder).blobs().map(|(_, file)| file.size).sum()
}

#[tokio::test]
async fn a_site_has_what_a_bundle_brings() {
    let setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:"]).await;
    let said = setting.import(&bundle, &[]).await;
    assert!(said.contains("Bundle 1 of ") && said.contains("is imported; 4 files were not held before"), "{said}");
    assert!(said.contains("lab, an offline remote from now on: 2 images; 2 new, 0 listed no more"), "{said}");
    assert_eq!(
        (setting.versions("busy").await, setting.versions("rare").await),
        (vec!["20260101".to_owned()], vec!["20260101".to_owned()])
    );
    assert_eq!(setting.site.body("lab/busy/1/squashfs").await, noise(300_000, 300_000));
    wait_for(async || setting.images().await.iter().filter(|image| image["held"] == true).count() == 2).await;
    for image in setting.images().await {
        assert_eq!((&image["cached"], &image["remote"]), (&Value::Bool(false), &Value::String("lab".to_owned())), "{image}");
    }
    let remotes = setting.site.remotes().await;
    let lab = remotes.iter().find(|remote| remote.name == "lab").unwrap();
    assert_eq!((lab.mode.as_str(), lab.images), ("offline", 2));
    assert!(lab.documents_from.as_deref().unwrap().starts_with("bundle:1 of "), "{lab:?}");
    let root: Value = setting.site.json("streams/v1/index.json").await;
    assert_eq!(root["index"]["images"]["path"], "streams/v1/lab.images.json");
}

#[tokio::test]
async fn what_was_imported_is_there_after_a_restart_and_after_a_reload() {
    let mut setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:busy"]).await;
    setting.import(&bundle, &[]).await;
    setting.site = setting.site.restart().await;
    wait_for(async || setting.is_served("busy/1/squashfs").await).await;
    assert_eq!(setting.versions("busy").await, ["20260101"]);
    setting.site.reload(|text| text.replace("grace = \"1s\"", "grace = \"2s\"")).await;
    assert_eq!(setting.versions("busy").await, ["20260101"]);
    let said = setting.import(&bundle, &[]).await;
    assert!(said.contains("was imported already; 0 files were not held before"), "{said}");
}

#[tokio::test]
async fn in_the_second_round_only_the_difference_travels_and_the_old_version_goes_after_grace() {
    let setting = Setting::new().await;
    let first = setting.export("first", &["lab:"]).await;
    setting.import(&first, &[]).await;
    wait_for(async || setting.images().await.iter().filter(|image| image["held"] == true).count() == 2).await;
    setting.publish(&[SECOND]).await;
    let second = setting.export("second", &["lab:", "--have", &setting.inventory().await]).await;
    assert_eq!(blob_bytes(&second), 310_000 + "busy/2".len() as u64, "rare did not travel again");
    assert_eq!((manifest(&second).generation, manifest(&second).parent), (2, Some(1)));
    let said = setting.import(&second, &[]).await;
    assert!(said.contains("lab: 2 images; 1 new, 1 listed no more"), "{said}");
    assert_eq!(setting.versions("busy").await, ["20260102"], "the alias moved");
    assert!(setting.is_served("busy/1/squashfs").await, "hosts that have older documents may still ask");
    wait_for(async || !done(&setting.site, &["cache", "prune"]).await.is_empty() && !setting.is_served("busy/1/squashfs").await).await;
    assert!(setting.is_served("busy/2/squashfs").await && setting.is_served("rare/squashfs").await);
    let inventory = fs::read_to_string(setting.inventory().await).unwrap();
    assert_eq!(inventory.matches("\"generation\":2").count(), 1, "{inventory}");
}

#[tokio::test]
async fn a_bundle_of_a_key_that_nobody_trusts_is_refused() {
    let setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:"]).await;
    let listed: Value = serde_json::from_str(&done(&setting.site, &["bundle", "trust", "--format", "json"]).await).unwrap();
    let name = listed[0]["name"].as_str().unwrap();
    done(&setting.site, &["bundle", "trust", "--remove", name]).await;
    let reason = setting.refused(&bundle, &[]).await;
    assert!(reason.contains("no key that this site trusts has signed it") && reason.contains("cistern bundle trust PUB"), "{reason}");
    assert!(setting.site.files("blobs/sha256").is_empty(), "nothing came in");
    let (_, reason) = failed(&setting.site, &["bundle", "trust", "--remove", name]).await;
    assert!(reason.contains(&format!("no key is called '{name}'")), "{reason}");
    let (_, reason) = failed(&setting.site, &["bundle", "trust", &text(&bundle.join(MANIFEST))]).await;
    assert!(reason.contains("no public key in PEM"), "{reason}");
}

#[tokio::test]
async fn a_difference_to_what_was_never_imported_says_what_is_missing() {
    let setting = Setting::new().await;
    let first = setting.export("first", &["lab:"]).await;
    setting.import(&first, &[]).await;
    wait_for(async || setting.images().await.iter().filter(|image| image["held"] == true).count() == 2).await;
    let inventory = setting.inventory().await;
    setting.publish(&[SECOND]).await;
    let second = setting.export("second", &["lab:", "--have", &inventory]).await;
    let elsewhere = Setting { site: site().start_without_waiting().await, ..setting };
    elsewhere.trust().await;
    let reason = elsewhere.refused(&second, &[]).await;
    assert!(
        reason.contains("it is what came after bundle 1, which was never imported here; 2 files are neither in it nor held"),
        "{reason}"
    );
    assert!(reason.contains(&format!("lab/rare/squashfs of rare:1:{} 20260101 (container)", arch())), "{reason}");
    assert!(reason.contains("'cistern bundle inventory'") && reason.contains("'cistern bundle export --have'"), "{reason}");
    assert!(elsewhere.versions("busy").await.is_empty() && elsewhere.site.files("blobs/sha256").is_empty(), "nothing came in");
    elsewhere.import(&first, &[]).await;
    elsewhere.import(&second, &[]).await;
    assert_eq!(elsewhere.versions("busy").await, ["20260102"]);
}

#[tokio::test]
async fn an_older_bundle_is_taken_only_if_somebody_says_so() {
    let setting = Setting::new().await;
    let first = setting.export("first", &["lab:"]).await;
    setting.publish(&[SECOND]).await;
    let second = setting.export("second", &["lab:"]).await;
    setting.import(&first, &[]).await;
    setting.import(&second, &[]).await;
    let reason = setting.refused(&first, &[]).await;
    assert!(reason.contains("of the same selection was imported before; --allow-rollback"), "{reason}");
    assert_eq!(setting.versions("busy").await, ["20260102"]);
    setting.import(&first, &["--allow-rollback"]).await;
    assert_eq!(setting.versions("busy").await, ["20260101"]);
    assert!(setting.is_served("busy/1/squashfs").await);
    setting.import(&second, &[]).await;
    assert_eq!(setting.versions("busy").await, ["20260102"]);
}

#[tokio::test]
async fn a_bundle_replaces_those_of_its_own_selection_and_others_stay() {
    let setting = Setting::new().await;
    let (rare, busy) = (setting.export("rare", &["lab:rare"]).await, setting.export("busy", &["lab:busy"]).await);
    setting.import(&rare, &[]).await;
    setting.import(&busy, &[]).await;
    assert_eq!((setting.versions("busy").await.len(), setting.versions("rare").await.len()), (1, 1));
    setting.publish(&[FIRST, SECOND]).await;
    let newest = setting.export("newest", &["lab:busy"]).await;
    let said = setting.import(&newest, &[]).await;
    assert!(said.contains("lab: 2 images; 1 new, 1 listed no more"), "{said}");
    assert_eq!((setting.versions("busy").await, setting.versions("rare").await.len()), (vec!["20260102".to_owned()], 1));
    // One that has both again lists nothing twice.
    let all = setting.export("all", &["lab:", "--versions", "1"]).await;
    setting.import(&all, &[]).await;
    assert_eq!((setting.versions("busy").await, setting.versions("rare").await.len()), (vec!["20260102".to_owned()], 1));
}

#[tokio::test]
async fn volumes_come_in_any_order_and_the_last_one_completes_the_bundle() {
    let setting = Setting::new().await;
    let bundle = setting.export("split", &["lab:", "--volume-size", "320KB"]).await;
    let (one, two) = (bundle.join("volume-1"), bundle.join("volume-2"));
    let said = setting.import(&two, &[]).await;
    assert!(said.contains("is not listed yet") && said.contains("Volume 1: ") && said.contains("import it too"), "{said}");
    assert!(setting.versions("busy").await.is_empty() && setting.versions("rare").await.is_empty());
    let said = setting.import(&one, &[]).await;
    assert!(said.contains("is imported"), "{said}");
    assert_eq!((setting.versions("busy").await.len(), setting.versions("rare").await.len()), (1, 1));
}

#[tokio::test]
async fn both_volumes_at_once_are_one_import() {
    let setting = Setting::new().await;
    let bundle = setting.export("split", &["lab:", "--volume-size", "320KB"]).await;
    let (one, two) = (text(&bundle.join("volume-1")), text(&bundle.join("volume-2")));
    let said = done(&setting.site, &["bundle", "import", &two, &one]).await;
    assert!(said.contains("is imported; 4 files"), "{said}");
}

#[tokio::test]
async fn a_dry_run_says_what_would_come_and_changes_nothing() {
    let setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:"]).await;
    let said = setting.import(&bundle, &["--dry-run"]).await;
    assert!(said.contains("would be imported; 4 files were not held before") && said.contains("from now on: 2 images; 2 new"), "{said}");
    assert!(setting.site.files("blobs/sha256").is_empty() && setting.versions("busy").await.is_empty());
    assert!(!setting.site.remotes().await.iter().any(|remote| remote.name == "lab"));
    let report = done(&setting.site, &["bundle", "import", &text(&bundle), "--dry-run", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["listed"], &report["blobs"], &report["remotes"][0]["images"]), (&false.into(), &4.into(), &2.into()));
}

#[tokio::test]
async fn a_bundle_comes_through_a_line_that_goes_one_way() {
    let setting = Setting::new().await;
    let (archive, again) = (setting.disk.path().join("bundle.tar"), setting.disk.path().join("again.tar"));
    for to in [&archive, &again] {
        shell(&setting.connected, &format!("{} bundle export --stdout lab: > {}", CISTERN, to.display())).await;
    }
    assert_eq!(fs::read(&archive).unwrap(), fs::read(&again).unwrap(), "the same bundle has the same bytes");
    // What breaks off is gone on with by the next transmission, and nothing is listed before.
    let half = fs::read(&archive).unwrap();
    fs::write(&again, &half[..half.len() * 2 / 3]).unwrap();
    let (code, _, error) = shell_of(&setting.site, &format!("{} bundle import - < {}", CISTERN, again.display())).await;
    assert_eq!((code, setting.versions("rare").await.len()), (75, 0), "{error}");
    let (code, out, error) = shell_of(&setting.site, &format!("{} bundle import - < {}", CISTERN, archive.display())).await;
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("is imported"), "{out}");
    assert_eq!((setting.versions("busy").await.len(), setting.versions("rare").await.len()), (1, 1));
    // The same, unpacked, is a bundle as any other.
    let folder = setting.disk.path().join("unpacked");
    fs::create_dir(&folder).unwrap();
    shell(&setting.site, &format!("tar -xf {} -C {}", archive.display(), folder.display())).await;
    done(&setting.site, &["bundle", "verify", &text(&folder)]).await;
    assert!(setting.import(&folder, &[]).await.contains("was imported already"));
    let (code, _, error) = typed(&setting.site, &["bundle", "import", "-"], "no archive").await;
    assert!(code != 0 && error.contains("standard input"), "{error}");
}

pub async fn shell_of(mirror: &Mirror, command: &str) -> (i32, String, String) {
    let mut shell = tokio::process::Command::new("sh");
    let output = shell.arg("-c").arg(command).env("CISTERN_SOCKET", mirror.socket()).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

async fn shell(mirror: &Mirror, command: &str) {
    let (code, _, error) = shell_of(mirror, command).await;
    assert_eq!(code, 0, "{command}: {error}");
}

#[tokio::test]
async fn a_remote_that_is_asked_is_not_fed() {
    let origin = Origin::start().await;
    origin.put(stream(&[FIRST]).tree());
    let setting = Setting::with(Builder::default().remote("lab", &[origin.url()], "")).await;
    let bundle = setting.export("first", &["lab:rare"]).await;
    for arguments in [&["--dry-run"][..], &[]] {
        let reason = setting.refused(&bundle, arguments).await;
        assert!(reason.contains("images of remote 'lab', which is not offline here; set remotes.lab.mode to \"offline\""), "{reason}");
    }
    assert!(setting.site.files("blobs/sha256").is_empty(), "and that is said before anything came");
}

#[tokio::test]
async fn images_of_the_exporters_own_are_of_a_remote_of_their_own() {
    let setting = Setting::new().await;
    let [meta, root] = ["meta.tar.xz", "root.squashfs"].map(|name| setting.disk.path().join(name));
    fs::write(&meta, metadata_xz()).unwrap();
    fs::write(&root, squashfs()).unwrap();
    done(&setting.connected, &["image", "import", &text(&meta), &text(&root), "--alias", "ours", "--public"]).await;
    let bundle = setting.export("all", &[]).await;
    let said = setting.import(&bundle, &[]).await;
    assert!(said.contains("carried, an offline remote from now on: 1 images; 1 new"), "{said}");
    assert_eq!(setting.site.get("carried/streams/v1/images.json").await.status(), 200);
}

type Spoil<'a> = Box<dyn Fn(&Path) + 'a>;

/// What somebody may do to a disk on its way, and what is said of it.
#[tokio::test]
async fn what_was_done_to_a_bundle_on_its_way_is_named_and_changes_nothing() {
    let setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:"]).await;
    let rare = setting.export("rare", &["lab:rare"]).await;
    setting.import(&rare, &[]).await;
    let root = manifest(&bundle).blobs().find(|(_, file)| file.size == 300_000).unwrap().1.path.to_string();
    let listed = "rendered/lab/streams/v1/images.json";
    let faults: [(&str, Spoil<'_>, String); 10] = [
        ("flipped", Box::new(|folder: &Path| flip(&folder.join(&root), 1000)), format!("{root}: ")),
        ("lost", Box::new(|folder: &Path| fs::remove_file(folder.join(&root)).unwrap()), format!("{root}: is missing")),
        ("short", Box::new(|folder: &Path| truncate(&folder.join(&root), 10)), "it has 10 bytes where its document says 300000".to_owned()),
        ("document", Box::new(|folder: &Path| flip(&folder.join(listed), 10)), format!("{listed}: is not what the manifest says")),
        ("cut", Box::new(|folder: &Path| truncate(&folder.join(MANIFEST), 100)), format!("{MANIFEST}: it is no manifest")),
        ("swapped", Box::new(|folder: &Path| flip(&folder.join(SIGNATURE), 5)), "no key that this site trusts".to_owned()),
        ("surplus", Box::new(|folder: &Path| fs::write(folder.join("extra"), "x").unwrap()), "extra: is not in the manifest".to_owned()),
        ("link", Box::new(|folder: &Path| link(&folder.join(&root))), format!("{root}: is no plain file")),
        (
            "newer",
            Box::new(|folder: &Path| replace(&folder.join(MANIFEST), "bundle:1.0", "bundle:9.0")),
            "its format is 'bundle:9.0'".to_owned(),
        ),
        (
            "climbs",
            Box::new(|folder: &Path| replace(&folder.join(MANIFEST), listed, "../../etc/passwd")),
            "'../../etc/passwd' is no place".to_owned(),
        ),
    ];
    for (name, spoil, expected) in &faults {
        let folder = setting.disk.path().join(name);
        shell(&setting.site, &format!("cp -r {} {}", bundle.display(), folder.display())).await;
        spoil(&folder);
        let reason = setting.refused(&folder, &[]).await;
        assert!(reason.contains(expected), "{name}: {reason}");
        assert!(setting.versions("busy").await.is_empty(), "{name}");
        assert!(setting.versions("rare").await.len() == 1 && setting.is_served("rare/squashfs").await, "{name}");
    }
    setting.import(&bundle, &[]).await;
    assert_eq!((setting.versions("busy").await.len(), setting.versions("rare").await.len()), (1, 1));
}

fn flip(path: &Path, place: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[place] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path, len: usize) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..len]).unwrap();
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from));
    fs::write(path, text.replace(from, to)).unwrap();
}

fn link(path: &Path) {
    let aside = path.with_extension("aside");
    fs::rename(path, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, path).unwrap();
}

#[tokio::test]
async fn a_signed_bundle_that_makes_no_sense_is_refused_too() {
    let setting = Setting::new().await;
    let key = SigningKey::from_seed(&[9; 32]).unwrap();
    let public = setting.disk.path().join("other.pem");
    fs::write(&public, key.public().to_pem()).unwrap();
    done(&setting.site, &["bundle", "trust", &text(&public)]).await;
    let bundle = setting.export("first", &["lab:"]).await;
    let sign = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = manifest(&bundle);
        change(&mut manifest);
        fs::write(bundle.join(MANIFEST), manifest.to_json()).unwrap();
        fs::write(bundle.join(SIGNATURE), key.sign(&manifest.to_json())).unwrap();
    };
    let rename = |name: &'static str| {
        move |manifest: &mut Manifest| {
            for file in &mut manifest.documents {
                let path = file.path.to_string().replace("/lab/", &format!("/{name}/"));
                file.path = cistern::manifest::BundlePath::parse(&path).unwrap();
            }
        }
    };
    sign(&rename("streams"));
    shell(&setting.site, &format!("cd {} && mv rendered/lab rendered/streams && mv documents/lab documents/streams", bundle.display()))
        .await;
    let reason = setting.refused(&bundle, &[]).await;
    assert!(reason.contains("it has a remote 'streams': this name is taken by a path of the server"), "{reason}");
}

#[tokio::test]
async fn imports_that_are_killed_at_any_moment_are_gone_on_with() {
    const KILLS: u64 = 25;
    let setting = Setting::new().await;
    let mut big = stream(&[FIRST]);
    for number in 0..8 {
        big = big.add(
            &format!("big{number}:1:{}", arch()),
            &format!("big{number}"),
            "20260101",
            version(&format!("big{number}"), 4_000_000 + number),
        );
    }
    setting.origin.put(big.tree());
    setting.connected.refresh("lab", false).await;
    let bundle = setting.export("first", &["lab:"]).await;
    let mut random = fastrand::Rng::with_seed(6);
    let all = manifest(&bundle).blobs().count();
    let (mut lacking, mut in_the_middle) = (all, 0);
    for _ in 0..KILLS {
        let mut command = tokio::process::Command::new(CISTERN);
        command.args(["bundle", "import", &text(&bundle)]).env("CISTERN_SOCKET", setting.site.socket());
        let mut child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(random.u64(1..120))).await;
        drop(child.kill().await);
        // All or nothing is listed, and all that is listed is there.
        let listed = setting.products().await;
        assert!(listed == 0 || listed == 10, "{listed}");
        if listed > 0 {
            assert_eq!(setting.site.body("lab/big7/squashfs").await, noise(4_000_007, 4_000_007));
        }
        // What was whole is not asked for again.
        let still = wanted(&setting, &bundle).await;
        assert!(still <= lacking, "{still} of {all} after {lacking}");
        lacking = still;
        in_the_middle += usize::from(0 < still && still < all);
    }
    assert!(in_the_middle > 0, "some kill came while files were on their way");
    let said = setting.import(&bundle, &[]).await;
    assert!(said.contains("imported"), "{said}");
    for number in 0..8 {
        let len = 4_000_000 + number;
        assert_eq!(setting.site.body(&format!("lab/big{number}/squashfs")).await, noise(len, len as u64));
    }
}

/// How many files of a bundle the site wants.
async fn wanted(setting: &Setting, bundle: &Path) -> usize {
    let said: Value = serde_json::from_str(&setting.import(bundle, &["--dry-run", "--format", "json"]).await).unwrap();
    usize::try_from(said["blobs"].as_u64().unwrap()).unwrap()
}

/// An import may end between the moment when its remotes are there and the one when its bundle is listed.
#[tokio::test]
async fn a_remote_of_which_no_bundle_was_ever_listed_is_none_after_a_start() {
    let config = "[server]\nlisten = [\"127.0.0.1:0\"]\nplain_http = \"all\"\nmetrics = \"127.0.0.1:0\"\n\
                  admin_socket = \"{folder}/admin.sock\"\n[remotes.other]\nmode = \"offline\"";
    let server = Server::start_with(config, |folder| {
        let names = folder.join("store/state/bundles/remotes");
        std::fs::create_dir_all(&names).unwrap();
        std::fs::write(names.join("lab"), "").unwrap();
    });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/lab/streams/v1/images.json", server.addresses()[0]);
    // What bundles say is given to remotes beside the serving.
    for _ in 0..25 {
        assert_eq!(client.get(&url).send().await.unwrap().status(), 404, "hosts would keep an empty list for an hour");
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// A site that is fed two bundles in turn, and whose server is killed at random moments, lists one of them or the other.
#[tokio::test]
async fn a_site_whose_server_is_killed_while_it_is_fed_lists_all_of_a_bundle_or_nothing() {
    const KILLS: u64 = 30;
    let setting = Setting::new().await;
    // Large enough for a kill to find them on their way.
    setting.publish(&[("20260103", "busy/3", 6_000_000)]).await;
    let first = setting.export("first", &["lab:"]).await;
    setting.publish(&[("20260104", "busy/4", 6_100_000)]).await;
    let second = setting.export("second", &["lab:"]).await;
    let config = "[server]\nlisten = [\"127.0.0.1:0\"]\nplain_http = \"all\"\nmetrics = \"127.0.0.1:0\"\n\
                  admin_socket = \"{folder}/admin.sock\"\n[remotes.other]\nmode = \"offline\"";
    let mut server = Server::start(config, &[]);
    let socket = server.folder().join("admin.sock");
    let command = |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(CISTERN);
        command.args(arguments).env("CISTERN_SOCKET", &socket).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.kill_on_drop(true);
        command
    };
    let key = text(&setting.disk.path().join("key.pem"));
    assert!(command(&["bundle", "trust", &key]).status().await.unwrap().success());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut listed_once = false;
    for number in 0..KILLS {
        let bundle = if number % 2 == 0 { &first } else { &second };
        let importing = command(&["bundle", "import", "--allow-rollback", &text(bundle)]).spawn().unwrap();
        // A busy machine is given more time, until one came to its end.
        let patience = if listed_once { 1 } else { 1 + number / 4 };
        tokio::time::sleep(Duration::from_millis(random.u64(5..150) * patience)).await;
        server = server.kill_and_restart();
        drop(importing);
        let top = format!("http://{}/lab", server.addresses()[0]);
        let response = client.get(format!("{top}/streams/v1/images.json")).send().await.unwrap();
        if response.status() != 200 {
            assert!(!listed_once, "kill {number}: what was listed is listed no more: {}", response.status());
            continue;
        }
        listed_once = true;
        let images: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(images["products"].as_object().unwrap().len(), 2, "kill {number}: {images}");
        for item in items(&images) {
            let response = client.get(format!("{top}/{}", item["path"].as_str().unwrap())).send().await.unwrap();
            assert_eq!(response.status(), 200, "kill {number}: {item}");
            let digest = cistern::digest::Digest::of(&response.bytes().await.unwrap());
            assert_eq!(digest.to_string(), item["sha256"].as_str().unwrap(), "kill {number}");
        }
    }
    assert!(listed_once, "some import came to its end");
    assert!(command(&["bundle", "import", "--allow-rollback", &text(&second)]).status().await.unwrap().success());
}

fn items(images: &Value) -> Vec<Value> {
    let versions = images["products"].as_object().unwrap().values().flat_map(|product| product["versions"].as_object().unwrap().values());
    versions.flat_map(|version| version["items"].as_object().unwrap().values().cloned()).collect()
}

#[tokio::test]
async fn a_bundle_that_is_imported_already_is_compared_and_not_read() {
    let setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:"]).await;
    setting.import(&bundle, &[]).await;
    // Nobody sees that, who does not read it; what `verify` is for.
    for (_, blob) in manifest(&bundle).blobs() {
        flip(&bundle.join(blob.path.to_string()), 0);
    }
    let said = setting.import(&bundle, &[]).await;
    assert!(said.contains("was imported already; 0 files were not held before"), "{said}");
    assert!(setting.is_served("busy/1/squashfs").await);
}

#[tokio::test]
async fn what_a_person_deleted_comes_back_with_a_bundle_that_lists_it() {
    let setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:"]).await;
    setting.import(&bundle, &[]).await;
    wait_for(async || setting.images().await.iter().filter(|image| image["held"] == true).count() == 2).await;
    done(&setting.site, &["image", "delete", "lab:busy"]).await;
    wait_for(async || setting.versions("busy").await.is_empty()).await;
    setting.import(&bundle, &[]).await;
    assert_eq!(setting.versions("busy").await, ["20260101"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    done(&setting.site, &["cache", "prune"]).await;
    assert!(setting.is_served("busy/1/squashfs").await, "grace is over, and it stays");
}

#[tokio::test]
async fn a_remote_that_was_asked_before_it_was_offline_is_fed_and_keeps_what_a_person_copied() {
    let origin = Origin::start().await;
    origin.put(stream(&[FIRST]).tree());
    let site = Builder::default().remote("lab", &[origin.url()], "mode = \"proxy\"").section("[images]\ngrace = \"1s\"");
    let mut setting = Setting::with(site).await;
    done(&setting.site, &["image", "copy", "lab:rare"]).await;
    setting.site.body("lab/busy/1/squashfs").await;
    setting.site.body("lab/busy/1/metadata.tar.xz").await;
    wait_for(async || setting.images().await.iter().filter(|image| image["held"] == true).count() == 2).await;
    setting.site.reload(|text| text.replace("mode = \"proxy\"", "mode = \"offline\"")).await;
    let both = setting.export("both", &["lab:"]).await;
    setting.import(&both, &[]).await;
    let cached: Vec<bool> = setting.images().await.iter().map(|image| image["cached"] == true).collect();
    assert_eq!(cached, [false, false]);
    // The next one of the same selection has neither.
    setting.origin.put(Stream::default().add(&format!("busy:1:{}", arch()), "busy", "20260102", version("busy/2", 310_000)).tree());
    setting.connected.refresh("lab", true).await;
    done(&setting.connected, &["image", "delete", "lab:rare"]).await;
    let next = setting.export("next", &["lab:"]).await;
    setting.import(&next, &[]).await;
    assert_eq!(setting.versions("busy").await, ["20260102"]);
    wait_for(async || !done(&setting.site, &["cache", "prune"]).await.is_empty() && !setting.is_served("busy/1/squashfs").await).await;
    assert!(setting.is_served("rare/squashfs").await, "a person copied it");
}

#[tokio::test]
async fn a_bundle_that_finds_no_room_beside_what_has_to_stay_is_refused_at_once() {
    let setting = Setting::with(site().storage("min_free = \"0%\"\ncapacity = \"700KB\"")).await;
    let first = setting.export("first", &["lab:"]).await;
    setting.import(&first, &[]).await;
    wait_for(async || setting.images().await.iter().filter(|image| image["held"] == true).count() == 2).await;
    setting.publish(&[SECOND]).await;
    let second = setting.export("second", &["lab:"]).await;
    let reason = setting.refused(&second, &[]).await;
    assert!(reason.contains("310006 bytes of it are not held, and there is room for ") && reason.contains("storage.capacity"), "{reason}");
    assert_eq!(setting.versions("busy").await, ["20260101"]);
    assert!(setting.is_served("busy/1/squashfs").await && setting.is_served("rare/squashfs").await, "nothing went for it");
}

#[tokio::test]
async fn two_imports_of_one_bundle_at_once_do_not_disturb_each_other() {
    let setting = Setting::new().await;
    let bundle = setting.export("split", &["lab:", "--volume-size", "320KB"]).await;
    let [one, two] = ["volume-1", "volume-2"].map(|name| text(&bundle.join(name)));
    let imports = (0..8).map(|number| {
        let (site, volume) = (&setting.site, if number % 2 == 0 { &one } else { &two });
        async move { done(site, &["bundle", "import", volume]).await }
    });
    let said = futures_util::future::join_all(imports).await;
    assert!(said.iter().any(|said| said.contains("is imported") || said.contains("was imported already")), "{said:?}");
    assert_eq!((setting.versions("busy").await.len(), setting.versions("rare").await.len()), (1, 1));
}

#[tokio::test]
async fn notes_do_not_come_between_the_bytes_of_an_archive() {
    let setting = Setting::new().await;
    let first = setting.export("first", &["lab:rare"]).await;
    setting.import(&first, &[]).await;
    wait_for(async || setting.images().await.iter().any(|image| image["held"] == true)).await;
    let (inventory, archive) = (setting.inventory().await, setting.disk.path().join("bundle.tar"));
    let command = format!("{CISTERN} bundle export --stdout lab: --have {inventory} > {}", archive.display());
    let (code, _, error) = shell_of(&setting.connected, &command).await;
    assert!(code == 0 && error.contains("the inventory is signed by key") && error.contains("not trusted here"), "{error}");
    shell(&setting.site, &format!("{CISTERN} bundle import - < {}", archive.display())).await;
    assert_eq!((setting.versions("busy").await.len(), setting.versions("rare").await.len()), (1, 1));
}

#[tokio::test]
async fn what_a_site_has_is_not_fetched_for_its_bundle() {
    let setting = Setting::new().await;
    let first = setting.export("first", &["lab:"]).await;
    setting.import(&first, &[]).await;
    wait_for(async || setting.images().await.iter().filter(|image| image["held"] == true).count() == 2).await;
    let inventory = setting.inventory().await;
    let elsewhere = Setting { connected: Builder::default().remote("lab", &[setting.origin.url()], "").start().await, ..setting };
    let before = elsewhere.origin.requests("rare/squashfs").len();
    elsewhere.publish(&[SECOND]).await;
    let second = elsewhere.export("second", &["lab:", "--have", &inventory]).await;
    assert_eq!(elsewhere.origin.requests("rare/squashfs").len(), before);
    elsewhere.trust().await;
    elsewhere.import(&second, &[]).await;
    assert_eq!((elsewhere.versions("busy").await, elsewhere.versions("rare").await.len()), (vec!["20260102".to_owned()], 1));
}

#[tokio::test]
async fn a_remote_that_the_next_bundle_has_no_more_does_not_hold_it_up() {
    let mut setting = Setting::new().await;
    let folder = setting.export("both", &["lab:"]).await;
    setting.import(&folder, &[]).await;
    // Somebody asks its image server again, and the selection has nothing of it any more.
    let url = setting.origin.url();
    setting.site.reload(|text| format!("{text}\n[remotes.lab]\nurl = [\"{url}\"]\n")).await;
    let reason = setting.refused(&folder, &[]).await;
    assert!(reason.contains("remote 'lab', which is not offline here"), "{reason}");
    let remotes = setting.site.remotes().await;
    assert_eq!(remotes.iter().find(|remote| remote.name == "lab").unwrap().mode, "proxy");
}

#[tokio::test]
async fn what_was_imported_and_cannot_be_read_is_named_and_taken_again() {
    let setting = Setting::new().await;
    let [all, rare] = [setting.export("all", &["lab:"]).await, setting.export("rare", &["lab:rare"]).await];
    setting.import(&all, &[]).await;
    let kept = setting.site.store().join("state/bundles/imported");
    let name = fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path();
    let listed = name.join("00000000000000000001/rendered/lab/streams/v1/images.json");
    flip(&listed, 10);
    let reason = setting.refused(&rare, &[]).await;
    assert!(reason.contains("cannot be read") && reason.contains("import the bundle of that selection again"), "{reason}");
    setting.import(&all, &[]).await;
    setting.import(&rare, &[]).await;
    assert_eq!((setting.versions("busy").await.len(), setting.versions("rare").await.len()), (1, 1));
}

/// The documents that a site serves are damaged while it is stopped; those that came in bundles are still there.
#[tokio::test]
async fn a_site_goes_on_where_its_bundles_left_it() {
    let mut setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:"]).await;
    setting.import(&bundle, &[]).await;
    wait_for(async || setting.images().await.iter().filter(|image| image["held"] == true).count() == 2).await;
    let documents = setting.site.store().join("documents/lab");
    setting.site = setting.site.restart_after(|| fs::remove_dir_all(documents).unwrap()).await;
    wait_for(async || setting.versions("busy").await.len() == 1).await;
    assert!(setting.is_served("busy/1/squashfs").await);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_an_import() {
    let setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:"]).await;
    let mut commands = Vec::new();
    for _ in 0..4 {
        let mut command = tokio::process::Command::new(CISTERN);
        command.args(["bundle", "import", &text(&bundle)]).env("CISTERN_SOCKET", setting.site.socket()).kill_on_drop(true);
        commands.push(command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap());
    }
    tokio::time::sleep(Duration::from_millis(fastrand::u64(10..80))).await;
    tokio::time::timeout(Duration::from_secs(20), setting.site.stop()).await.expect("it stops");
}

#[tokio::test]
async fn so_many_bundles_may_be_on_their_way_and_one_that_is_used_is_not_forgotten() {
    let setting = Setting::new().await;
    let mut ids = Vec::new();
    for number in 1..=6 {
        let bundle = setting.export(&format!("bundle-{number}"), &["lab:", "--versions", &number.to_string()]).await;
        let signature = URL_SAFE_NO_PAD.encode(fs::read(bundle.join(SIGNATURE)).unwrap());
        let target = format!("/1.0/bundles/imports?signature={signature}");
        let text = fs::read(bundle.join(MANIFEST)).unwrap();
        let plan: ImportPlan = ask(&setting.site.socket(), hyper::Method::POST, &target, text).await.unwrap();
        ids.push(plan.id);
        // The first one is looked at again and again.
        assert!(is_known(&setting, &ids[0]).await);
    }
    let mut known = Vec::new();
    for id in &ids {
        known.push(is_known(&setting, id).await);
    }
    assert_eq!(known, [true, false, false, true, true, true]);
}

/// Whether a bundle is on its way. None of its documents came.
async fn is_known(setting: &Setting, id: &str) -> bool {
    let target = format!("/1.0/bundles/imports/{id}");
    let looked: Result<Value, _> = ask(&setting.site.socket(), hyper::Method::GET, &target, Vec::new()).await;
    looked.unwrap_err().message.contains("did not come")
}

#[tokio::test]
async fn a_key_that_is_trusted_no_more_lists_nothing_that_was_begun() {
    let setting = Setting::new().await;
    let bundle = setting.export("first", &["lab:"]).await;
    let signature = URL_SAFE_NO_PAD.encode(fs::read(bundle.join(SIGNATURE)).unwrap());
    let target = format!("/1.0/bundles/imports?signature={signature}");
    let text = fs::read(bundle.join(MANIFEST)).unwrap();
    let plan: ImportPlan = ask(&setting.site.socket(), hyper::Method::POST, &target, text).await.unwrap();
    for path in &plan.documents {
        let target = format!("/1.0/bundles/imports/{}/{path}", plan.id);
        let () = ask(&setting.site.socket(), hyper::Method::PUT, &target, fs::read(bundle.join(path)).unwrap()).await.unwrap();
    }
    let listed: Value = serde_json::from_str(&done(&setting.site, &["bundle", "trust", "--format", "json"]).await).unwrap();
    done(&setting.site, &["bundle", "trust", "--remove", listed[0]["name"].as_str().unwrap()]).await;
    let target = format!("/1.0/bundles/imports/{}", plan.id);
    let committed: Result<Value, _> = ask(&setting.site.socket(), hyper::Method::POST, &target, Vec::new()).await;
    assert!(committed.unwrap_err().message.contains("no key that this site trusts"));
}

/// An image server may name another document, or put another build at the same paths: bundles of before and after go together.
#[tokio::test]
async fn bundles_of_documents_that_do_not_go_together_are_both_listed() {
    let setting = Setting::new().await;
    let rare = setting.export("rare", &["lab:rare"]).await;
    let renamed = stream(&[SECOND]).tree().into_iter().map(|(path, bytes)| match String::from_utf8(bytes.clone()) {
        Ok(text) if path.starts_with("streams/") => (path, text.replace("\"images\"", "\"others\"").into_bytes()),
        _ => (path, bytes),
    });
    setting.origin.put(renamed.collect::<Vec<_>>());
    setting.connected.refresh("lab", true).await;
    let busy = setting.export("busy", &["lab:busy"]).await;
    setting.import(&rare, &[]).await;
    setting.import(&busy, &[]).await;
    assert!(setting.is_served("busy/2/squashfs").await && setting.is_served("rare/squashfs").await);
    let index: Value = setting.site.json("lab/streams/v1/index.json").await;
    assert_eq!(index["index"].as_object().unwrap().len(), 2, "{index}");
}

#[tokio::test]
async fn a_command_whose_output_nobody_takes_ends_in_order() {
    let setting = Setting::new().await;
    let (code, _, error) = shell_of(&setting.site, &format!("{CISTERN} bundle key > /dev/full")).await;
    assert!(code == 1 && error.lines().count() == 1 && error.contains("cannot write to standard output"), "{code} {error}");
    let (code, _, error) = shell_of(&setting.site, &format!("{{ {CISTERN} bundle key; echo $? >&2; }} | true")).await;
    assert!(code == 0 && !error.contains("panicked"), "{error}");
}
