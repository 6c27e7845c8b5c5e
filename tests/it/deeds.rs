//! Things that change the disk, what each of them promises, and what must hold of the store whatever happened to them.
//! `crashing` takes the power away while they go on, `failing` lets the disk fail.

#![allow(clippy::type_complexity, reason = "what a deed is made of has no name that would say more")]

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cistern::api::{self, ImportPlan};
use cistern::cli::admin::ask;
use cistern::digest::Digest;
use cistern::manifest::{MANIFEST, SIGNATURE};
use hyper::Method;
use serde_json::Value;

use crate::managing::{done, typed};
use crate::support::faulty::FaultyDisk;
use crate::support::mirror::{Builder, Mirror, wait_for};
use crate::support::origin::Origin;
use crate::support::power::PowerDisk;
use crate::support::stream::{Stream, Version, fingerprint, noise};

const IMAGES: &str = "lab/streams/v1/images.json";
const METADATA: &[u8] = b"metadata";

/// A mirror of one version, whose disk can lose its power and fail.
pub struct Stage {
    pub origin: Origin,
    pub mirror: Mirror,
    pub disk: PowerDisk,
    pub faults: FaultyDisk,
}

fn version(folder: &str) -> Version {
    Version::new(folder).file("squashfs", &root(folder)).metadata("lxd.tar.xz", METADATA)
}

pub fn root(folder: &str) -> Vec<u8> {
    noise(3000, folder.bytes().map(u64::from).sum())
}

fn print(folder: &str) -> String {
    fingerprint(METADATA, &root(folder))
}

/// The product's name, for this machine.
fn product() -> String {
    let arch = if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" };
    format!("busy:1:{arch}")
}

fn stream(serials: &[(&str, &str)]) -> Stream {
    let add = |stream: Stream, (serial, folder): &(&str, &str)| stream.add(&product(), "busy", serial, version(folder));
    serials.iter().fold(Stream::default(), add)
}

/// A mirror of one version, which holds nothing yet.
pub async fn stage() -> Stage {
    stage_of(&stream(&[("20260101", "a")])).await
}

async fn stage_of(stream: &Stream) -> Stage {
    let origin = Origin::start().await;
    origin.put(stream.tree());
    let disk = PowerDisk::default();
    let faults = FaultyDisk::over(disk.clone());
    let builder = Builder::default().disk(faults.clone()).section("[images]\ngrace = \"1h\"");
    let mirror = builder.remote("lab", &[origin.url()], "").start().await;
    Stage { origin, mirror, disk, faults }
}

/// The same, and it holds that version.
async fn stage_that_holds() -> Stage {
    let stage = stage().await;
    pull(&stage.mirror, "a").await;
    wait_for(async || held(&stage.mirror).await.len() == 1).await;
    stage
}

/// Downloads an image as a host does; whether all of it arrived.
pub async fn pull(mirror: &Mirror, folder: &str) -> bool {
    let mut is_whole = true;
    for file in ["metadata.tar.xz", "squashfs"] {
        let response = mirror.client().get(format!("{}/lab/{folder}/{file}", mirror.url())).send().await;
        is_whole &= match response {
            Ok(response) => response.status() == 200 && response.bytes().await.is_ok(),
            Err(_) => false,
        };
    }
    is_whole
}

async fn images(mirror: &Mirror, query: &str) -> Vec<api::Image> {
    let path = format!("/1.0/images{query}");
    cistern::cli::admin::ask(&mirror.socket(), hyper::Method::GET, &path, Vec::new()).await.unwrap()
}

pub async fn held(mirror: &Mirror) -> Vec<api::Image> {
    images(mirror, "?held").await
}

async fn cache_info(mirror: &Mirror) -> Value {
    cistern::cli::admin::ask(&mirror.socket(), hyper::Method::GET, "/1.0/cache", Vec::new()).await.unwrap()
}

/// What `act` was promised must be there afterwards, and what is there must be sound; the reason if not.
pub type Verdict = Result<(), String>;

/// Something that changes the disk, and what it promises.
pub struct Deed<S, A, C> {
    pub stage: S,
    pub act: A,
    pub check: C,
}

/// Invariant 2: what lies under `blobs/` is what it is called. Invariant 5: what is held can be had, and is the image that it
/// is called; here upstream is away.
pub async fn is_sound(mirror: &Mirror) -> Verdict {
    for blob in mirror.files("blobs").iter().map(|blob| mirror.store().join("blobs").join(blob)) {
        let bytes = std::fs::read(&blob).unwrap();
        ensure(blob.ends_with(Digest::of(&bytes).to_string()), || format!("{} has other bytes", blob.display()))?;
    }
    // The database may know of images of a remote that the disk does not know of any more; no host sees these.
    let remotes: Vec<String> = mirror.remotes().await.into_iter().map(|remote| remote.name).collect();
    for image in held(mirror).await.iter().filter(|image| image.public && remotes.contains(&image.remote)) {
        let Some(folder) = ["a", "b"].into_iter().find(|folder| print(folder) == image.fingerprint) else { continue };
        let mut bytes = Vec::new();
        for file in ["metadata.tar.xz", "squashfs"] {
            let response = mirror.get(&format!("lab/{folder}/{file}")).await;
            ensure(response.status() == 200, || format!("{file} of {folder} is held and cannot be had: {}", response.status()))?;
            bytes.extend(response.bytes().await.map_err(|error| error.to_string())?);
        }
        ensure(Digest::of(&bytes).to_string() == image.fingerprint, || format!("the image of {folder} is another one"))?;
    }
    is_counted(mirror).await
}

/// What is counted as held is what lies there. After a start this comes to hold.
pub async fn is_counted(mirror: &Mirror) -> Verdict {
    let info = cache_info(mirror).await;
    let of = |folder: &str, file: &String| mirror.store().join(folder).join(file).metadata().map_or(0, |metadata| metadata.len());
    let folders = ["blobs", "partials", "trash"];
    let size: u64 = folders.iter().flat_map(|folder| mirror.files(folder).into_iter().map(move |file| of(folder, &file))).sum();
    let blobs = mirror.files("blobs").len();
    ensure(info["blobs"] == blobs && info["size"] == size, || format!("{blobs} blobs, with partial files {size} bytes, and {info}"))
}

/// Whether something comes to hold soon.
pub async fn comes_to_hold(holds: impl AsyncFn() -> bool) -> bool {
    for _ in 0..150 {
        if holds().await {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    false
}

pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// The serials of the versions that hosts see; none if there are no documents.
pub async fn serials(mirror: &Mirror) -> Vec<String> {
    let response = mirror.get(IMAGES).await;
    if response.status() != 200 {
        return Vec::new();
    }
    let document: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let versions = document["products"].as_object().unwrap().values().flat_map(|product| product["versions"].as_object().unwrap().keys());
    versions.cloned().collect()
}

/// What is called so on the command line; nothing if nothing is.
pub async fn shown(mirror: &Mirror, image: &str) -> Option<Value> {
    let (code, out, _) = typed(mirror, &["image", "info", image, "--format", "json"], "").await;
    (code == 0).then(|| serde_json::from_str(&out).unwrap())
}

/// A host downloads an image, and it is recorded. It promises that what was held is held.
pub fn commit() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> bool, impl AsyncFn(&Mirror, &bool) -> Verdict> {
    let act = async |stage: &Stage| {
        pull(&stage.mirror, "a").await;
        let is_cut = || stage.disk.went_at().is_some() || stage.faults.has_failed();
        wait_for(async || is_cut() || !held(&stage.mirror).await.is_empty()).await;
        !held(&stage.mirror).await.is_empty()
    };
    let check = async |mirror: &Mirror, was_held: &bool| {
        if *was_held {
            // Documents list it, so that it is found again without its record.
            ensure(comes_to_hold(async || held(mirror).await.len() == 1).await, || "what was held is not".to_owned())?;
        }
        ensure(serials(mirror).await == ["20260101"], || "the documents are gone".to_owned())
    };
    Deed { stage, act, check }
}

/// A person copies an image, and upstream lists it no more. It promises that it stays listed, and that the newer one does.
pub fn keeping() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> Vec<String>, impl AsyncFn(&Mirror, &Vec<String>) -> Verdict> {
    let act = async |stage: &Stage| {
        let (copied, ..) = typed(&stage.mirror, &["image", "copy", "lab:busy"], "").await;
        stage.origin.put(stream(&[("20260102", "b")]).tree());
        drop(typed(&stage.mirror, &["remote", "refresh", "lab"], "").await);
        let mut promised = serials(&stage.mirror).await;
        promised.retain(|serial| serial != "20260101" || copied == 0);
        promised
    };
    let check = async |mirror: &Mirror, promised: &Vec<String>| {
        let serials = serials(mirror).await;
        ensure(promised.iter().all(|serial| serials.contains(serial)), || format!("hosts see {serials:?} and not {promised:?}"))
    };
    Deed { stage, act, check }
}

/// Upstream has a newer version. It promises that no older one is seen once the newer one was (invariant 7).
pub fn refresh() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> bool, impl AsyncFn(&Mirror, &bool) -> Verdict> {
    let act = async |stage: &Stage| {
        stage.origin.put(stream(&[("20260101", "a"), ("20260102", "b")]).tree());
        drop(typed(&stage.mirror, &["remote", "refresh", "lab"], "").await);
        serials(&stage.mirror).await.len() == 2
    };
    let check = async |mirror: &Mirror, was_seen: &bool| {
        let serials = serials(mirror).await;
        ensure(!serials.is_empty() && (!was_seen || serials.len() == 2), || format!("hosts see {serials:?}, and they saw more"))
    };
    Deed { stage, act, check }
}

/// A person deletes an image that was copied and that upstream lists, and so it goes at once. It promises that it does not
/// come back as one that stays.
pub fn eviction() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> bool, impl AsyncFn(&Mirror, &bool) -> Verdict> {
    let stage = async || {
        let stage = stage_that_holds().await;
        done(&stage.mirror, &["image", "copy", "lab:busy"]).await;
        stage
    };
    let act = async |stage: &Stage| typed(&stage.mirror, &["image", "delete", "lab:busy"], "").await.0 == 0;
    let check = async |mirror: &Mirror, deleted: &bool| {
        ensure(serials(mirror).await == ["20260101"], || "it is not listed".to_owned())?;
        let stays = held(mirror).await.iter().any(|image| !image.cached);
        ensure(!deleted || !stays, || "what was deleted is back, to stay".to_owned())
    };
    Deed { stage, act, check }
}

/// A host downloads a root of which the document gives no SHA-256, and no metadata, so that no record says what it is called.
/// It promises that what was held can be had.
pub fn learning() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> bool, impl AsyncFn(&Mirror, &bool) -> Verdict> {
    let stage = async || {
        let version = version("a").with(|items| without_digest(&mut items["squashfs"], &root("a")));
        stage_of(&Stream::default().add(&product(), "busy", "20260101", version)).await
    };
    let act = async |stage: &Stage| {
        drop(stage.mirror.get_whole("lab/a/squashfs".to_owned()).await);
        let is_held = async || cache_info(&stage.mirror).await["blobs"] == 1;
        let is_cut = || stage.disk.went_at().is_some() || stage.faults.has_failed();
        wait_for(async || is_cut() || is_held().await).await;
        // What could not be given its name for good is held for as long as it is there, and promised to nobody.
        is_held().await && !is_cut()
    };
    let check = async |mirror: &Mirror, was_held: &bool| {
        let is_there = async || mirror.get("lab/a/squashfs").await.status() == 200;
        ensure(!was_held || is_there().await, || "what was held cannot be had".to_owned())
    };
    Deed { stage, act, check }
}

/// Lets an item give no SHA-256 of its file, but another hash.
pub fn without_digest(item: &mut Value, bytes: &[u8]) {
    use sha2::Digest as _;
    item.as_object_mut().unwrap().remove("sha256");
    item["sha512"] = sha2::Sha512::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
}

/// A host downloads an image whose files are not the image that its document says. It promises that nobody sees it again.
pub fn exposure() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> bool, impl AsyncFn(&Mirror, &bool) -> Verdict> {
    let stage = async || {
        let lying = version("b").with(|items| items["lxd.tar.xz"]["combined_squashfs_sha256"] = print("a").into());
        let honest = Stream::default().add(&product(), "busy", "20260101", version("a"));
        stage_of(&honest.add(&product(), "busy", "20260102", lying)).await
    };
    let act = async |stage: &Stage| {
        pull(&stage.mirror, "b").await;
        let is_hidden = async || serials(&stage.mirror).await == ["20260101"];
        let is_cut = || stage.disk.went_at().is_some() || stage.faults.has_failed();
        wait_for(async || is_cut() || is_hidden().await).await;
        is_hidden().await
    };
    let check = async |mirror: &Mirror, was_hidden: &bool| {
        let serials = serials(mirror).await;
        ensure(!was_hidden || serials == ["20260101"], || format!("hosts see {serials:?}"))
    };
    Deed { stage, act, check }
}

/// A person decides something: whether it was said to be done.
pub fn decision() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> [bool; 2], impl AsyncFn(&Mirror, &[bool; 2]) -> Verdict> {
    let act = async |stage: &Stage| {
        let (set, ..) = typed(&stage.mirror, &["image", "set", "lab:busy", "auto_update=false"], "").await;
        let (named, ..) = typed(&stage.mirror, &["image", "alias", "create", "prod", "lab:busy"], "").await;
        [set == 0, named == 0]
    };
    let check = async |mirror: &Mirror, [set, named]: &[bool; 2]| {
        let image = shown(mirror, "lab:busy").await.ok_or("it is not there")?;
        ensure(image["held"] == true, || "it is not held".to_owned())?;
        ensure(!set || image["auto_update"] == false, || "what was set is not".to_owned())?;
        ensure(!named || shown(mirror, "local:prod").await.is_some(), || "the name is gone".to_owned())
    };
    Deed { stage: stage_that_holds, act, check }
}

/// A person takes a name back. It promises that it does not come back.
pub fn withdrawal() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> bool, impl AsyncFn(&Mirror, &bool) -> Verdict> {
    let stage = async || {
        let stage = stage_that_holds().await;
        done(&stage.mirror, &["image", "alias", "create", "prod", "lab:busy"]).await;
        stage
    };
    let act = async |stage: &Stage| typed(&stage.mirror, &["image", "alias", "delete", "prod"], "").await.0 == 0;
    let check = async |mirror: &Mirror, deleted: &bool| {
        ensure(!deleted || shown(mirror, "local:prod").await.is_none(), || "the name is back".to_owned())
    };
    Deed { stage, act, check }
}

/// A person publishes an image. It promises that hosts can have it.
pub fn import() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> bool, impl AsyncFn(&Mirror, &bool) -> Verdict> {
    let act = async |stage: &Stage| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar.gz").display().to_string();
        std::fs::write(&path, own_image()).unwrap();
        typed(&stage.mirror, &["image", "import", &path, "--alias", "mine", "--public"], "").await.0 == 0
    };
    let check = async |mirror: &Mirror, imported: &bool| {
        let Some(image) = shown(mirror, "local:mine").await else {
            return ensure(!imported, || "what was published is not there".to_owned());
        };
        let response = mirror.get(&format!("local/images/{}/image.tar.gz", image["fingerprint"].as_str().unwrap())).await;
        ensure(response.status() == 200, || format!("it is listed and cannot be had: {}", response.status()))?;
        ensure(response.bytes().await.is_ok_and(|bytes| bytes == own_image()), || "it has other bytes".to_owned())
    };
    Deed { stage, act, check }
}

/// A key, and two bundles of that key's owner: of one version, and of the next.
struct Bundles {
    key: String,
    folders: [String; 2],
    _folder: tempfile::TempDir,
}

/// They are made once: how is not what these are about.
async fn bundles() -> &'static Bundles {
    static MADE: tokio::sync::OnceCell<Bundles> = tokio::sync::OnceCell::const_new();
    MADE.get_or_init(async || {
        let stage = stage().await;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (key, folders) = (path("key.pem"), [path("first"), path("second")]);
        std::fs::write(&key, done(&stage.mirror, &["bundle", "key"]).await).unwrap();
        done(&stage.mirror, &["bundle", "export", "lab:", "--to", &folders[0]]).await;
        stage.origin.put(stream(&[("20260102", "b")]).tree());
        done(&stage.mirror, &["remote", "refresh", "lab"]).await;
        done(&stage.mirror, &["bundle", "export", "lab:", "--to", &folders[1]]).await;
        Bundles { key, folders, _folder: folder }
    })
    .await
}

/// A site without a way out. The origin is nobody's.
async fn site() -> Stage {
    let disk = PowerDisk::default();
    let faults = FaultyDisk::over(disk.clone());
    let builder = Builder::default().disk(faults.clone()).section("[images]\ngrace = \"1h\"");
    let mirror = builder.remote("other", &[], "mode = \"offline\"").start_without_waiting().await;
    Stage { origin: Origin::start().await, mirror, disk, faults }
}

/// What a site lists can be had, and is what bundles brought: nothing, or all of one of them.
async fn is_fed(mirror: &Mirror, promised: Option<&str>) -> Verdict {
    let listed = serials(mirror).await;
    ensure(listed.len() <= 1, || format!("parts of two bundles are listed: {listed:?}"))?;
    for (serial, folder) in [("20260101", "a"), ("20260102", "b")] {
        if listed.iter().any(|other| other == serial) {
            let response = mirror.get(&format!("lab/{folder}/squashfs")).await;
            let is_there = response.status() == 200 && response.bytes().await.is_ok_and(|bytes| bytes == root(folder));
            ensure(is_there, || format!("{serial} is listed and cannot be had"))?;
        }
    }
    // Documents that were lost are made again of the bundle, a moment later.
    let is_kept = async || match promised {
        Some(promised) => serials(mirror).await == [promised],
        None => true,
    };
    ensure(comes_to_hold(is_kept).await, || format!("{listed:?} is listed and not {promised:?}"))
}

/// A site that knows nothing yet is told whom to trust, and fed. It promises that hosts can have that.
pub fn feeding() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> [bool; 2], impl AsyncFn(&Mirror, &[bool; 2]) -> Verdict> {
    let act = async |stage: &Stage| {
        let Bundles { key, folders: [first, _], .. } = bundles().await;
        let trusts = typed(&stage.mirror, &["bundle", "trust", key], "").await.0 == 0;
        let is_fed = typed(&stage.mirror, &["bundle", "import", first], "").await.0 == 0;
        [trusts, is_fed]
    };
    let check = async |mirror: &Mirror, [trusts, was_fed]: &[bool; 2]| {
        let (_, keys, error) = typed(mirror, &["bundle", "trust", "--format", "json"], "").await;
        ensure(!trusts || keys.contains("PUBLIC KEY"), || format!("whoever was trusted is not: {error}"))?;
        let (_, inventory, error) = typed(mirror, &["bundle", "inventory"], "").await;
        ensure(!was_fed || inventory.contains("\"generation\":1"), || format!("what was imported is forgotten: {inventory}{error}"))?;
        is_fed(mirror, was_fed.then_some("20260101")).await
    };
    Deed { stage: site, act, check }
}

/// A site is fed again. It promises the newer version, and otherwise there is the older one.
pub fn feeding_again() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> bool, impl AsyncFn(&Mirror, &bool) -> Verdict> {
    let stage = async || {
        let Bundles { key, folders: [first, _], .. } = bundles().await;
        let stage = site().await;
        done(&stage.mirror, &["bundle", "trust", key]).await;
        done(&stage.mirror, &["bundle", "import", first]).await;
        wait_for(async || held(&stage.mirror).await.len() == 1).await;
        stage
    };
    let act = async |stage: &Stage| typed(&stage.mirror, &["bundle", "import", &bundles().await.folders[1]], "").await.0 == 0;
    let check = async |mirror: &Mirror, was_fed: &bool| {
        ensure(!serials(mirror).await.is_empty(), || "nothing is listed any more".to_owned())?;
        is_fed(mirror, was_fed.then_some("20260102")).await
    };
    Deed { stage, act, check }
}

/// A site gets one file of a bundle. It promises to keep that for the rest to come.
pub fn feeding_in_part() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> bool, impl AsyncFn(&Mirror, &bool) -> Verdict> {
    let stage = async || {
        let stage = site().await;
        done(&stage.mirror, &["bundle", "trust", &bundles().await.key]).await;
        stage
    };
    let act = async |stage: &Stage| {
        let folder = Path::new(&bundles().await.folders[0]);
        let signature = URL_SAFE_NO_PAD.encode(std::fs::read(folder.join(SIGNATURE)).unwrap());
        let target = format!("/1.0/bundles/imports?signature={signature}");
        let manifest = std::fs::read(folder.join(MANIFEST)).unwrap();
        let Ok(plan) = ask::<ImportPlan>(&stage.mirror.socket(), Method::POST, &target, manifest).await else { return false };
        let target = format!("/1.0/bundles/imports/{}/{}", plan.id, plan.blobs[0]);
        let bytes = std::fs::read(folder.join(&plan.blobs[0])).unwrap();
        ask::<()>(&stage.mirror.socket(), Method::PUT, &target, bytes).await.is_ok()
    };
    let check = async |mirror: &Mirror, came: &bool| {
        let (_, listed, error) = typed(mirror, &["bundle", "list", "--format", "json"], "").await;
        ensure(!came || listed.contains("incomplete"), || format!("what came is kept for nobody: {listed}{error}"))
    };
    Deed { stage, act, check }
}

/// A person forgets what was imported. It promises that nothing is listed for it; until then everything is.
pub fn forgetting() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> bool, impl AsyncFn(&Mirror, &bool) -> Verdict> {
    let stage = async || {
        let Bundles { key, folders: [first, _], .. } = bundles().await;
        let stage = site().await;
        done(&stage.mirror, &["bundle", "trust", key]).await;
        done(&stage.mirror, &["bundle", "import", first]).await;
        stage
    };
    let act = async |stage: &Stage| {
        let id = imported(&stage.mirror).await.unwrap_or_default();
        typed(&stage.mirror, &["bundle", "forget", &id], "").await.0 == 0
    };
    let check = async |mirror: &Mirror, was_forgotten: &bool| {
        let is_here = imported(mirror).await.is_some();
        ensure(!is_here || !was_forgotten, || "what was forgotten is here again".to_owned())?;
        let is_as_it_says = async || serials(mirror).await.is_empty() != is_here;
        ensure(comes_to_hold(is_as_it_says).await, || format!("imported: {is_here}, and something else is listed"))
    };
    Deed { stage, act, check }
}

/// The id of the selection that was imported.
async fn imported(mirror: &Mirror) -> Option<String> {
    let (_, listed, _) = typed(mirror, &["bundle", "list", "--format", "json"], "").await;
    let listed: Value = serde_json::from_str(&listed).ok()?;
    Some(listed[0]["id"].as_str()?.to_owned())
}

fn own_image() -> Vec<u8> {
    let yaml = format!("architecture: {}\ncreation_date: 1767225600\nproperties:\n  os: Own\n", std::env::consts::ARCH);
    let mut tarball = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, bytes) in [("metadata.yaml", yaml.as_bytes()), ("rootfs/sbin/init", b"init")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tarball.append_data(&mut header, name, bytes).unwrap();
    }
    tarball.into_inner().unwrap().finish().unwrap()
}
