//! The power goes at each single change of the disk, and what was not synced is lost, kept or torn: what is found afterwards
//! is sound, and what was said to be done is done (design.md §6, invariants 2, 3, 5 and 7; T20).

#![allow(clippy::type_complexity, reason = "what a deed is made of has no name that would say more")]

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

use cistern::api;
use cistern::digest::Digest;
use futures_util::FutureExt as _;
use serde_json::Value;

use crate::managing::{done, typed};
use crate::support::mirror::{Builder, Mirror, wait_for};
use crate::support::origin::Origin;
use crate::support::power::{Database, Outcome, PowerDisk, Unsynced};
use crate::support::server::Server;
use crate::support::stream::{Stream, Version, fingerprint, noise};

const IMAGES: &str = "lab/streams/v1/images.json";
const METADATA: &[u8] = b"metadata";

/// What may be found when the power is back. Each kind of loss meets each other one at some point.
const OUTCOMES: [Outcome; 6] = [
    Outcome { names: Unsynced::Lost, bytes: Unsynced::Lost, database: Database::Now },
    Outcome { names: Unsynced::Kept, bytes: Unsynced::Lost, database: Database::Then },
    Outcome { names: Unsynced::Kept, bytes: Unsynced::Torn, database: Database::Missing },
    Outcome { names: Unsynced::Torn, bytes: Unsynced::Kept, database: Database::Now },
    Outcome { names: Unsynced::Lost, bytes: Unsynced::Kept, database: Database::Missing },
    Outcome { names: Unsynced::Torn, bytes: Unsynced::Torn, database: Database::Then },
];

struct Stage {
    origin: Origin,
    mirror: Mirror,
    disk: PowerDisk,
}

fn version(folder: &str) -> Version {
    Version::new(folder).file("squashfs", &root(folder)).metadata("lxd.tar.xz", METADATA)
}

fn root(folder: &str) -> Vec<u8> {
    noise(3000, folder.bytes().map(u64::from).sum())
}

fn print(folder: &str) -> String {
    fingerprint(METADATA, &root(folder))
}

fn stream(serials: &[(&str, &str)]) -> Stream {
    let arch = if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" };
    let add = |stream: Stream, (serial, folder): &(&str, &str)| stream.add(&format!("busy:1:{arch}"), "busy", serial, version(folder));
    serials.iter().fold(Stream::default(), add)
}

/// A mirror of one version, which holds nothing yet.
async fn stage() -> Stage {
    let origin = Origin::start().await;
    origin.put(stream(&[("20260101", "a")]).tree());
    let disk = PowerDisk::default();
    let mirror = Builder::default().disk(disk.clone()).section("[images]\ngrace = \"1h\"").remote("lab", &[origin.url()], "").start().await;
    Stage { origin, mirror, disk }
}

/// The same, and it holds that version.
async fn stage_that_holds() -> Stage {
    let stage = stage().await;
    pull(&stage.mirror, "a").await;
    wait_for(async || held(&stage.mirror).await.len() == 1).await;
    stage
}

/// Downloads an image as a host does; whether all of it arrived.
async fn pull(mirror: &Mirror, folder: &str) -> bool {
    let mut is_whole = true;
    for file in ["metadata.tar.xz", "squashfs"] {
        let response = mirror.get(&format!("lab/{folder}/{file}")).await;
        is_whole &= response.status() == 200 && response.bytes().await.is_ok();
    }
    is_whole
}

async fn images(mirror: &Mirror, query: &str) -> Vec<api::Image> {
    let path = format!("/1.0/images{query}");
    cistern::cli::admin::ask(&mirror.socket(), hyper::Method::GET, &path, Vec::new()).await.unwrap()
}

async fn held(mirror: &Mirror) -> Vec<api::Image> {
    images(mirror, "?held").await
}

/// What `act` was promised must be there afterwards, and what is there must be sound; the reason if not.
type Verdict = Result<(), String>;

/// Something that changes the disk, and what it promises.
struct Deed<S, A, C> {
    stage: S,
    act: A,
    check: C,
}

impl<P, S: AsyncFn() -> Stage, A: AsyncFn(&Stage) -> P, C: AsyncFn(&Mirror, &P) -> Verdict> Deed<S, A, C> {
    /// Lets the power go instead of each change, one after the other, and looks at whatever is found then, upstream being
    /// away.
    async fn survives(&self) {
        for changes in 0.. {
            assert!(changes < 200, "it goes on changing the disk");
            // Half of the outcomes each time: with the next change the others have their turn.
            let (went_at, verdicts) = self.verdicts(changes, None, OUTCOMES.into_iter().skip(changes % 2).step_by(2)).await;
            for (outcome, verdict) in verdicts {
                assert_eq!(verdict, Ok(()), "the power went at change {changes}, {went_at:?}; then {outcome:?}");
            }
            if went_at.is_none() {
                return;
            }
        }
    }

    /// Ignores all syncs of one kind of path at a time, and expects that this shows. What is in `harmless` need not.
    async fn needs_every_sync_but(&self, harmless: &[&str]) {
        let stage = (self.stage)().await;
        stage.disk.arm(&stage.mirror.store(), usize::MAX);
        (self.act)(&stage).await;
        let kinds = stage.disk.synced();
        stage.mirror.stop().await;
        for kind in kinds.iter().filter(|kind| !harmless.contains(&kind.as_str())) {
            let (_, verdicts) = self.verdicts(usize::MAX, Some(kind), OUTCOMES).await;
            assert!(verdicts.iter().any(|(_, verdict)| verdict.is_err()), "without the sync of {kind} all is well; all are {kinds:?}");
        }
    }

    /// What is found when the power went after so many changes.
    async fn verdicts(
        &self,
        changes: usize,
        deaf: Option<&str>,
        outcomes: impl IntoIterator<Item = Outcome>,
    ) -> (Option<String>, Vec<(Outcome, Verdict)>) {
        let mut stage = (self.stage)().await;
        deaf.into_iter().for_each(|kind| stage.disk.ignore_syncs_of(kind));
        stage.disk.arm(&stage.mirror.store(), changes);
        let promise = (self.act)(&stage).await;
        let went_at = stage.disk.went_at();
        stage.disk.cut();
        stage.origin.stop().await;
        let Stage { mut mirror, disk, .. } = stage;
        let mut verdicts = Vec::new();
        for outcome in outcomes {
            let started = AssertUnwindSafe(mirror.restart_after(|| disk.restore(outcome))).catch_unwind().await;
            let Ok(again) = started else {
                verdicts.push((outcome, Err("it does not start".to_owned())));
                return (went_at, verdicts);
            };
            mirror = again;
            let verdict = match is_sound(&mirror).await {
                Ok(()) => (self.check)(&mirror, &promise).await,
                unsound => unsound,
            };
            verdicts.push((outcome, verdict));
        }
        mirror.stop().await;
        (went_at, verdicts)
    }
}

/// Invariant 2: what lies under `blobs/` is what it is called. Invariant 5: what is held can be had, and is the image that it
/// is called; here upstream is away.
async fn is_sound(mirror: &Mirror) -> Verdict {
    let blobs: Vec<PathBuf> = mirror.files("blobs").iter().map(|blob| mirror.store().join("blobs").join(blob)).collect();
    let mut size = 0;
    for blob in &blobs {
        let bytes = std::fs::read(blob).unwrap();
        ensure(blob.ends_with(Digest::of(&bytes).to_string()), || format!("{} has other bytes", blob.display()))?;
        size += bytes.len() as u64;
    }
    for image in held(mirror).await.iter().filter(|image| image.public) {
        let Some(folder) = ["a", "b"].into_iter().find(|folder| print(folder) == image.fingerprint) else { continue };
        let mut bytes = Vec::new();
        for file in ["metadata.tar.xz", "squashfs"] {
            let response = mirror.get(&format!("lab/{folder}/{file}")).await;
            ensure(response.status() == 200, || format!("{file} of {folder} is held and cannot be had: {}", response.status()))?;
            bytes.extend(response.bytes().await.map_err(|error| error.to_string())?);
        }
        ensure(Digest::of(&bytes).to_string() == image.fingerprint, || format!("the image of {folder} is another one"))?;
    }
    let info: Value = cistern::cli::admin::ask(&mirror.socket(), hyper::Method::GET, "/1.0/cache", Vec::new()).await.unwrap();
    for partial in mirror.files("partials") {
        size += mirror.store().join("partials").join(partial).metadata().unwrap().len();
    }
    ensure(info["blobs"] == blobs.len() && info["size"] == size, || {
        format!("{} blobs, with partial files {size} bytes, and {info}", blobs.len())
    })
}

/// Whether something comes to hold soon.
async fn comes_to_hold(holds: impl AsyncFn() -> bool) -> bool {
    for _ in 0..150 {
        if holds().await {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    false
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// The serials of the versions that hosts see; none if there are no documents.
async fn serials(mirror: &Mirror) -> Vec<String> {
    let response = mirror.get(IMAGES).await;
    if response.status() != 200 {
        return Vec::new();
    }
    let document: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let versions = document["products"].as_object().unwrap().values().flat_map(|product| product["versions"].as_object().unwrap().keys());
    versions.cloned().collect()
}

/// What is called so on the command line; nothing if nothing is.
async fn shown(mirror: &Mirror, image: &str) -> Option<Value> {
    let (code, out, _) = typed(mirror, &["image", "info", image, "--format", "json"], "").await;
    (code == 0).then(|| serde_json::from_str(&out).unwrap())
}

/// A host downloads an image, and it is recorded. It promises that what was held is held.
fn commit() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> bool, impl AsyncFn(&Mirror, &bool) -> Verdict> {
    let act = async |stage: &Stage| {
        pull(&stage.mirror, "a").await;
        wait_for(async || stage.disk.went_at().is_some() || !held(&stage.mirror).await.is_empty()).await;
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
fn keeping() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> Vec<String>, impl AsyncFn(&Mirror, &Vec<String>) -> Verdict> {
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
fn refresh() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> bool, impl AsyncFn(&Mirror, &bool) -> Verdict> {
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

/// A person deletes an image that upstream lists, and so it goes at once.
fn eviction() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage), impl AsyncFn(&Mirror, &()) -> Verdict> {
    let act = async |stage: &Stage| drop(typed(&stage.mirror, &["image", "delete", "lab:busy"], "").await);
    let check = async |mirror: &Mirror, (): &()| ensure(serials(mirror).await == ["20260101"], || "it is not listed".to_owned());
    Deed { stage: stage_that_holds, act, check }
}

/// A person decides something: whether it was said to be done.
fn decision() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> [bool; 2], impl AsyncFn(&Mirror, &[bool; 2]) -> Verdict> {
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
fn withdrawal() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> bool, impl AsyncFn(&Mirror, &bool) -> Verdict> {
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
fn import() -> Deed<impl AsyncFn() -> Stage, impl AsyncFn(&Stage) -> bool, impl AsyncFn(&Mirror, &bool) -> Verdict> {
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

/// T20
#[tokio::test]
async fn what_was_committed_is_there_and_whole_after_the_power_went() {
    commit().survives().await;
}

#[tokio::test]
async fn what_only_we_hold_stays_listed_after_the_power_went() {
    keeping().survives().await;
}

#[tokio::test]
async fn what_only_we_hold_needs_the_syncs_of_its_record() {
    keeping().needs_every_sync_but(&["documents/lab/validators.json.new"]).await;
}

#[tokio::test]
async fn hosts_see_no_older_documents_after_the_power_went() {
    refresh().survives().await;
}

#[tokio::test]
async fn what_was_to_go_is_there_whole_or_gone_whole_after_the_power_went() {
    eviction().survives().await;
}

#[tokio::test]
async fn what_people_decided_is_so_after_the_power_went() {
    decision().survives().await;
}

#[tokio::test]
async fn a_name_that_was_taken_back_is_gone_after_the_power_went() {
    withdrawal().survives().await;
}

#[tokio::test]
async fn an_image_of_our_own_is_there_and_whole_after_the_power_went() {
    import().survives().await;
}

#[tokio::test]
async fn a_commit_needs_every_sync() {
    // Documents list the image, so that it is found again without its record.
    commit().needs_every_sync_but(&["records", "records/*.new"]).await;
}

#[tokio::test]
async fn a_refresh_needs_every_sync() {
    // Documents that are asked for whole are the same documents.
    refresh().needs_every_sync_but(&["documents/lab/validators.json.new"]).await;
}

#[tokio::test]
async fn decisions_need_every_sync() {
    decision().needs_every_sync_but(&[]).await;
    withdrawal().needs_every_sync_but(&[]).await;
}

#[tokio::test]
async fn an_import_needs_every_sync() {
    // What was published says all that a record does.
    import().needs_every_sync_but(&["records", "records/*.new"]).await;
}

/// A disk that fails once, while the program goes on: nothing wrong is served, and nothing is counted twice or not at all.
#[tokio::test]
async fn one_failure_of_the_disk_leaves_the_store_sound() {
    for kind in ["partials/*", "blobs/sha256/*", "records/*.new", "records"] {
        let Stage { origin: _origin, mirror, disk } = stage().await;
        disk.arm(&mirror.store(), usize::MAX);
        disk.fail_one_sync_of(kind);
        for _ in 0..2 {
            pull(&mirror, "a").await;
        }
        assert!(disk.has_failed(), "{kind} was synced");
        assert!(comes_to_hold(async || is_sound(&mirror).await == Ok(())).await, "{kind}: {:?}", is_sound(&mirror).await);
        assert_eq!(mirror.body("lab/a/squashfs").await, root("a"), "{kind}");
        // A person who wants it has it tried again.
        done(&mirror, &["image", "copy", "lab:busy"]).await;
        assert!(comes_to_hold(async || held(&mirror).await.len() == 1).await, "{kind}");
        assert_eq!(is_sound(&mirror).await, Ok(()), "{kind}");
    }
}

/// So many times the program is killed; `CISTERN_KILLS` asks for more.
const KILLS: u32 = 20;

/// T20: the program is killed at random moments while hosts download and upstream publishes.
#[tokio::test]
async fn killed_at_random_moments_it_serves_nothing_wrong_and_has_lost_nothing() {
    let kills = std::env::var("CISTERN_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let origin = Origin::start().await;
    let publish = |number: u32| {
        let serial = |number: u32| format!("2026{:02}{:02}", number / 28 + 1, number % 28 + 1);
        let folders = [number, number + 1].map(|number| (serial(number), format!("v{number}")));
        let add = |stream: Stream, (serial, folder): &(String, String)| stream.add("busy:1:amd64", "busy", serial, large(folder));
        origin.put(folders.iter().fold(Stream::default(), add).tree());
    };
    publish(0);
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nplain_http = \"all\"\nmetrics = \"127.0.0.1:0\"\nadmin_socket = \"{{folder}}/admin.sock\"\n\
         [images]\nauto_update_interval = \"1s\"\n[remotes.lab]\nurl = [\"{}\"]\ninterval = \"1s\"",
        origin.url()
    );
    let mut server = Server::start(&config, &[]);
    for number in 1..=kills {
        let load = tokio::spawn(load(format!("http://{}", server.addresses()[0])));
        // Not more often than that documents are kept for as long as their files are asked for.
        publish(number / 5);
        tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(20..700))).await;
        let before = blobs_of(&server);
        server = server.kill_and_restart();
        load.abort();
        let after = blobs_of(&server);
        assert!(before.iter().all(|blob| after.contains(blob)), "kill {number}: what was committed is gone");
        for blob in &after {
            assert!(blob.ends_with(Digest::of(&std::fs::read(blob).unwrap()).to_string()), "kill {number}: {}", blob.display());
        }
        served_files_are_right(&server).await;
    }
}

fn large(folder: &str) -> Version {
    let seed = folder.bytes().map(u64::from).sum();
    Version::new(folder)
        .file("squashfs", &noise(2 << 20, seed))
        .file("root.tar.xz", &noise(1 << 20, seed + 1))
        .metadata("lxd.tar.xz", METADATA)
}

/// What hosts do, until it is aborted: they read documents and download what is listed, and some leave in the middle.
async fn load(server: String) {
    let host = || async {
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        loop {
            let Ok(files) = listed(&client, &server).await else { continue };
            let Some((path, _)) = fastrand::choice(&files) else { continue };
            let Ok(mut response) = client.get(format!("{server}/lab/{path}")).send().await else { continue };
            let leaves = fastrand::u8(..4) == 0;
            while response.chunk().await.is_ok_and(|chunk| chunk.is_some()) && !leaves {}
        }
    };
    futures_util::future::join_all((0..4).map(|_| host())).await;
}

/// The files that a document names, each with its digest.
async fn listed(client: &reqwest::Client, server: &str) -> Result<Vec<(String, String)>, reqwest::Error> {
    let bytes = client.get(format!("{server}/{IMAGES}")).send().await?.error_for_status()?.bytes().await?;
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    let versions = document["products"].as_object().unwrap().values().flat_map(|product| product["versions"].as_object().unwrap().values());
    let items = versions.flat_map(|version| version["items"].as_object().unwrap().values());
    Ok(items.map(|item| (item["path"].as_str().unwrap().to_owned(), item["sha256"].as_str().unwrap().to_owned())).collect())
}

async fn served_files_are_right(server: &Server) {
    let (client, address) = (reqwest::Client::builder().no_proxy().build().unwrap(), format!("http://{}", server.addresses()[0]));
    let files = listed(&client, &address).await.unwrap();
    assert!(!files.is_empty());
    for (path, digest) in files {
        let response = client.get(format!("{address}/lab/{path}")).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path} is listed");
        assert_eq!(Digest::of(&response.bytes().await.unwrap()).to_string(), digest, "{path}");
    }
}

fn blobs_of(server: &Server) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(server.folder().join("store/blobs/sha256")).unwrap();
    folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap()).map(|blob| blob.unwrap().path()).collect()
}
