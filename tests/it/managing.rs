//! What people do with images and with the store, typed as they type it.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::mirror::{Builder, Mirror, wait_for};
use crate::support::origin::{Act, Origin};
use crate::support::stream::{Stream, Version, fingerprint, noise};

pub const CISTERN: &str = env!("CARGO_BIN_EXE_cistern");

/// What a command did: its exit code, standard output and standard error.
pub async fn typed(mirror: &Mirror, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::new(CISTERN);
    command.args(arguments).env("CISTERN_SOCKET", mirror.socket()).env_remove("EDITOR").stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// What a command that must succeed prints.
pub async fn done(mirror: &Mirror, arguments: &[&str]) -> String {
    let (code, out, error) = typed(mirror, arguments, "").await;
    assert_eq!(code, 0, "{arguments:?}: {error}");
    out
}

/// How a command fails: its exit code, and the one line that says why.
pub async fn failed(mirror: &Mirror, arguments: &[&str]) -> (i32, String) {
    let (code, _, error) = typed(mirror, arguments, "").await;
    assert!(error.lines().count() == 1, "{arguments:?}: {error}");
    (code, error)
}

fn version(folder: &str) -> Version {
    Version::new(folder).file("squashfs", &noise(5000, folder.len() as u64)).metadata("lxd.tar.xz", folder.as_bytes())
}

fn print(folder: &str) -> String {
    fingerprint(folder.as_bytes(), &noise(5000, folder.len() as u64))
}

fn arch() -> &'static str {
    if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" }
}

async fn setting(images: &str) -> (Origin, Mirror) {
    let origin = Origin::start().await;
    let busy = format!("busy:1:{}", arch());
    let stream = Stream::default().add(&busy, "busy", "20260101", version("a")).add(
        &format!("rare:1:{}", arch()),
        "rare",
        "20260101",
        version("bb"),
    );
    origin.put(stream.add("far:1:s390x", "far", "20260101", version("ccc")).tree());
    let mirror = Builder::default().section(&format!("[images]\n{images}")).remote("lab", &[origin.url()], "").start().await;
    (origin, mirror)
}

async fn shown(mirror: &Mirror, image: &str) -> Value {
    serde_json::from_str(&done(mirror, &["image", "info", image, "--format", "json"]).await).unwrap()
}

/// design.md §3: "Only pull-through in proxy mode and its successors are `cached`; what a mirror-mode selection, a bundle, `image copy` or
/// `image import` brought in is `cached: false`."
#[tokio::test]
async fn a_copied_image_is_not_cached_and_stays() {
    let (origin, mirror) = setting("remote_cache_expiry = \"500ms\"\ngrace = \"100ms\"").await;
    let out = done(&mirror, &["image", "copy", "lab:busy"]).await;
    assert_eq!(out, format!("lab:busy: {}\n", print("a")));
    let image = shown(&mirror, "busy").await;
    assert_eq!((&image["held"], &image["cached"], &image["auto_update"]), (&true.into(), &false.into(), &false.into()));
    for file in ["metadata.tar.xz", "squashfs"] {
        mirror.body(&format!("lab/bb/{file}")).await;
    }
    wait_for(async || shown(&mirror, "rare").await["held"] == true).await;
    wait_for(async || shown(&mirror, "rare").await["held"] == false).await;
    assert_eq!(shown(&mirror, "busy").await["held"], true, "what hosts left goes, what a person copied stays");
    assert_eq!(origin.requests("a/squashfs").len(), 1);

    std::fs::remove_file(mirror.store().join("records").join(print("a"))).unwrap();
    let path = mirror.store().join("ledger.sqlite");
    let mirror = mirror.restart_after(|| std::fs::remove_file(path).unwrap()).await;
    wait_for(async || shown(&mirror, "busy").await["held"] == true).await;
    assert_eq!(shown(&mirror, "busy").await["cached"], false, "what people decided survives the database");
}

/// design.md §3: "A copied one is kept up to date only if `--auto-update` was given. `auto_update` can be edited afterwards."
#[tokio::test]
async fn a_copied_image_is_kept_up_to_date_only_if_that_was_asked_for() {
    let (origin, mirror) = setting("").await;
    done(&mirror, &["image", "copy", "lab:busy", "lab:rare", "--auto-update"]).await;
    done(&mirror, &["image", "set", "rare", "auto_update=false"]).await;
    let [busy, rare] = ["busy", "rare"].map(|os| format!("{os}:1:{}", arch()));
    origin.put(Stream::default().add(&busy, "busy", "20260102", version("a2")).add(&rare, "rare", "20260102", version("bb2")).tree());
    let out = done(&mirror, &["image", "refresh", "busy"]).await;
    assert_eq!(out, format!("busy: {}\n", print("a2")));
    let image = shown(&mirror, "busy").await;
    assert_eq!(
        (&image["version"], &image["cached"], &image["auto_update"]),
        (&"20260102".into(), &false.into(), &true.into()),
        "it inherits"
    );
    let mirror = mirror.restart().await;
    assert_eq!(shown(&mirror, "busy").await["auto_update"], true);
    assert_eq!(shown(&mirror, "rare").await["held"], false, "the new one was not fetched");
    assert_eq!(shown(&mirror, &print("bb")).await["held"], true, "and the old one stays listed");
    assert!(done(&mirror, &["image", "refresh", "busy"]).await.contains("unchanged"));
}

/// design.md §3: "A host's request never changes the flags of an image already recorded."
#[tokio::test]
async fn a_hosts_request_changes_no_flag_of_an_image_that_is_there() {
    let (_origin, mirror) = setting("").await;
    done(&mirror, &["image", "copy", "busy"]).await;
    let flags = |image: &Value| [&image["cached"], &image["auto_update"], &image["expires_at"]].map(Clone::clone);
    let before = shown(&mirror, "busy").await;
    for file in ["metadata.tar.xz", "squashfs"] {
        mirror.body(&format!("lab/a/{file}")).await;
    }
    let after = shown(&mirror, "busy").await;
    assert_eq!(flags(&after), flags(&before));
    assert_eq!(after["use_count"], before["use_count"].as_u64().unwrap() + 1, "it was a use all the same");
}

/// design.md §3: "An image past its `expires_at` (set by an operator …) goes as soon as it has not been used for `images.grace`."
#[tokio::test]
async fn an_end_that_a_person_sets_counts_and_never_is_one_too() {
    let (_origin, mirror) = setting("grace = \"300ms\"").await;
    done(&mirror, &["image", "copy", "busy"]).await;
    done(&mirror, &["image", "set", "busy", "expires_at=2020-01-31"]).await;
    assert_eq!(shown(&mirror, "busy").await["expires_at"], "2020-01-31T00:00:00Z");
    done(&mirror, &["image", "set", "busy", "expires_at=never"]).await;
    assert_eq!(shown(&mirror, "busy").await["expires_at"], Value::Null);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(shown(&mirror, "busy").await["held"], true);
    done(&mirror, &["image", "set", "busy", "expires_at=2020-01-31T10:00:00Z"]).await;
    wait_for(async || shown(&mirror, "busy").await["held"] == false).await;
}

#[tokio::test]
async fn an_image_is_edited_as_yaml_and_what_cannot_be_edited_is_refused_with_its_line() {
    let (_origin, mirror) = setting("").await;
    done(&mirror, &["image", "copy", "busy"]).await;
    let (code, _, error) = typed(&mirror, &["image", "edit", "busy"], "auto_update: true\nexpires_at: 2031-05-06\npublic: true\n").await;
    assert!(code == 1 && error.contains("cannot be changed"), "no properties means to remove all: {error}");
    let properties = shown(&mirror, "busy").await["properties"].clone();
    let yaml = format!("auto_update: true\nexpires_at: 2031-05-06\npublic: true\nproperties: {properties}\n");
    assert_eq!(typed(&mirror, &["image", "edit", "busy"], &yaml).await.0, 0);
    let image = shown(&mirror, "busy").await;
    assert_eq!((&image["auto_update"], &image["expires_at"]), (&true.into(), &"2031-05-06T00:00:00Z".into()));
    let (code, _, error) =
        typed(&mirror, &["image", "edit", "busy"], "auto_update: true\nfingerprint: abc\nexpires_at: never\npublic: true\n").await;
    assert!(code == 1 && error.contains("fingerprint") && error.contains("line 2"), "{error}");
    let (code, _, error) = typed(&mirror, &["image", "edit", "busy"], "auto_update: [").await;
    assert!(code == 1 && error.lines().count() == 1, "{error}");
    assert_eq!(shown(&mirror, "busy").await["auto_update"], true, "nothing changed");
}

/// What a command prints that runs on a terminal, and whether it went well; `script` is the terminal.
async fn on_a_terminal(mirror: &Mirror, arguments: &str, editor: &std::path::Path) -> (bool, String) {
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{CISTERN} {arguments}"), "/dev/null"]).stdin(Stdio::null());
    command.env("CISTERN_SOCKET", mirror.socket()).env("TERM", "xterm").env("EDITOR", editor).env_remove("VISUAL");
    let output = command.output().await.unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn on_a_terminal_an_image_is_edited_in_the_editor_however_that_writes_its_file() {
    let (_origin, mirror) = setting("").await;
    done(&mirror, &["image", "copy", "busy"]).await;
    let folder = tempfile::tempdir().unwrap();
    let editor = folder.path().join("editor");
    for (script, expected) in [
        ("sed 's/^auto_update:.*/auto_update: true/' \"$1\" > \"$1.new\" && cat \"$1.new\" > \"$1\"; rm \"$1.new\"", true),
        // Many editors put a new file in the place of the old one.
        ("sed 's/^auto_update:.*/auto_update: false/' \"$1\" > \"$1.new\" && mv \"$1.new\" \"$1\"", false),
    ] {
        std::fs::write(&editor, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let (is_well, said) = on_a_terminal(&mirror, "image edit busy", &editor).await;
        assert!(is_well, "{script}: {said}");
        assert_eq!(shown(&mirror, "busy").await["auto_update"], expected, "{script}: {said}");
    }
    std::fs::write(&editor, "#!/bin/sh\nexit 3\n").unwrap();
    let (is_well, said) = on_a_terminal(&mirror, "image edit busy", &editor).await;
    assert!(!is_well && said.contains("nothing was changed"), "{said}");
}

#[tokio::test]
async fn a_copy_shows_bytes_rate_and_time_left_on_a_terminal() {
    let (origin, mirror) = setting("").await;
    origin.act("a/squashfs", [Act::Dribble(500, Duration::from_millis(150))]);
    let (is_well, said) = on_a_terminal(&mirror, "image copy lab:busy", std::path::Path::new("false")).await;
    assert!(is_well && said.contains(&print("a")), "{said}");
    assert!(said.contains(" KiB/4.88 KiB ") && said.contains("/s "), "how much of how much, and how fast: {said}");
    let is_time =
        |word: &str| word.strip_suffix('s').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    assert!(said.split(|c: char| c.is_whitespace() || c == '\u{1b}').any(is_time), "how long yet: {said}");
}

#[tokio::test]
async fn what_cannot_be_done_is_said_in_one_line_and_changes_nothing() {
    let (origin, mirror) = setting("").await;
    done(&mirror, &["image", "copy", "busy"]).await;
    origin.act("bb/squashfs", vec![Act::WrongBytes; 20]);
    for (arguments, code, said) in [
        (&["image", "copy", "lab:nothing"][..], 1, "no image is called 'nothing'"),
        (&["image", "copy", "elsewhere:busy"], 1, "there is no remote 'elsewhere'"),
        (&["image", "copy", "lab:far"], 1, "'far' is there for s390x"),
        (&["image", "copy", "lab:busy", "--arch", "pdp11"], 1, "'pdp11' is no architecture"),
        (&["image", "copy", "lab:rare"], 1, "wrong bytes"),
        (&["image", "copy", "lab:a\u{7}b"], 1, "no image is called"),
        (&["image", "set", "rare", "auto_update=true"], 1, "is not held; cistern image copy"),
        (&["image", "set", "busy", "auto_update=perhaps"], 2, "true or false"),
        (&["image", "set", "busy", "size=7"], 2, "cannot be set"),
        (&["image", "set", "busy", "expires_at=soon"], 1, "'soon' is no time"),
        (&["image", "set", "busy", "requirements.secureboot=false"], 1, "only images of 'local'"),
        (&["image", "set", "busy", "public=false"], 1, "public cannot be changed"),
        (&["image", "delete", "rare"], 1, "is not held"),
        (&["image", "refresh", "nothing"], 1, "no image is called"),
        (&["image", "export", "nothing"], 1, "no image is called"),
    ] {
        let (actual, line) = failed(&mirror, arguments).await;
        assert!(actual == code && line.contains(said), "{arguments:?}: {actual} {line}");
        assert!(!line.contains('\u{7}'), "{arguments:?}: {line:?}");
    }
    assert_eq!(shown(&mirror, "busy").await["auto_update"], false);
}

#[tokio::test]
async fn a_deleted_image_is_gone_and_its_path_pulls_through_again() {
    let (origin, mirror) = setting("").await;
    done(&mirror, &["image", "copy", "busy"]).await;
    done(&mirror, &["image", "delete", "busy"]).await;
    assert!(mirror.files("blobs").is_empty() && mirror.files("records").is_empty() && mirror.files("state/images").is_empty());
    assert_eq!(shown(&mirror, "busy").await["held"], false);
    mirror.body("lab/a/squashfs").await;
    assert_eq!(origin.requests("a/squashfs").len(), 2);
}

/// design.md §3: "What only we hold is unlisted first and unlinked after grace (invariant 5)."
#[tokio::test]
async fn an_image_that_only_we_have_is_listed_no_more_at_once_and_goes_after_grace() {
    let (origin, mirror) = setting("grace = \"1s\"").await;
    done(&mirror, &["image", "copy", "busy"]).await;
    origin.put(Stream::default().add(&format!("rare:1:{}", arch()), "rare", "20260101", version("bb")).tree());
    mirror.refresh("lab", true).await;
    let is_listed = async || {
        mirror.json("lab/streams/v1/images.json").await["products"].as_object().unwrap().contains_key(&format!("busy:1:{}", arch()))
    };
    assert!(is_listed().await, "a copied image stays when its product is gone");
    done(&mirror, &["image", "delete", "busy"]).await;
    wait_for(async || !is_listed().await).await;
    assert_eq!(mirror.body("lab/a/squashfs").await, noise(5000, 1), "hosts with documents of before can have it");
    wait_for(async || mirror.files("blobs").is_empty() && mirror.files("records").is_empty()).await;
}

#[tokio::test]
async fn what_was_decided_counts_also_if_the_database_is_a_batch_behind() {
    let (_origin, mirror) = setting("").await;
    done(&mirror, &["image", "copy", "busy", "--auto-update"]).await;
    let path = mirror.store().join("ledger.sqlite");
    let mirror = mirror
        .restart_after(|| {
            let changed = rusqlite::Connection::open(path).unwrap().execute("UPDATE images SET owner = 'hosts', auto_update = 0", []);
            assert_eq!(changed.unwrap(), 1);
        })
        .await;
    let image = shown(&mirror, "busy").await;
    assert_eq!((&image["cached"], &image["auto_update"]), (&false.into(), &true.into()));
}

#[tokio::test]
async fn an_image_is_exported_under_upstreams_names_held_or_not() {
    let (_origin, mirror) = setting("").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out").display().to_string();
    done(&mirror, &["image", "export", "busy", &path]).await;
    assert_eq!(std::fs::read(folder.path().join("out/squashfs")).unwrap(), noise(5000, 1));
    assert_eq!(std::fs::read(folder.path().join("out/metadata.tar.xz")).unwrap(), b"a");
    let (code, line) = failed(&mirror, &["image", "export", "busy", &path]).await;
    assert!(code == 1 && line.contains("is there already"), "{line}");
}

#[tokio::test]
async fn the_store_says_how_full_it_is_what_would_go_and_what_is_broken() {
    let (_origin, mirror) = setting("remote_cache_expiry = \"1h\"").await;
    done(&mirror, &["image", "copy", "busy"]).await;
    mirror.body("lab/bb/squashfs").await;
    wait_for(async || mirror.files("blobs").len() == 3).await;
    let info: Value = serde_json::from_str(&done(&mirror, &["cache", "info", "--format", "json"]).await).unwrap();
    assert_eq!((&info["blobs"], &info["loose_blobs"], &info["images"], &info["size"]), (&3.into(), &1.into(), &1.into(), &10001.into()));
    assert_eq!(done(&mirror, &["cache", "prune", "--dry-run", "--format", "json"]).await.trim(), "[]");
    assert!(done(&mirror, &["cache", "verify"]).await.contains("3 files are what they are called"));

    let digest = cistern::digest::Digest::of(&noise(5000, 1)).to_string();
    let path = mirror.store().join("blobs/sha256").join(&digest[..2]).join(&digest);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[77] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (code, line) = failed(&mirror, &["cache", "verify"]).await;
    assert!(code == 1 && line.contains("1 of 3 files are broken"), "{line}");
    assert!(!mirror.is_hit("lab/a/squashfs").await, "and nobody gets it");
    // Somebody puts a good one there, and it is one again; and then the disk changes that.
    std::fs::write(&path, noise(5000, 1)).unwrap();
    assert!(done(&mirror, &["cache", "verify"]).await.contains("3 files are what they are called"));
    assert!(mirror.is_hit("lab/a/squashfs").await);
    let mut bytes = noise(5000, 1);
    bytes[77] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let out = done(&mirror, &["cache", "verify", "--repair"]).await;
    assert!(out.contains(&digest) && out.contains("left the store"), "{out}");
    assert_eq!(mirror.body("lab/a/squashfs").await, noise(5000, 1));
    wait_for(async || shown(&mirror, "busy").await["held"] == true).await;
    assert_eq!(shown(&mirror, "busy").await["cached"], false, "it was copied, and so it is again");

    // What is not there is not what it is called, and what has such a name and is no file is nothing.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(path.with_file_name(format!("{}{}", &digest[..2], "0".repeat(62)))).unwrap();
    std::fs::write(path.with_file_name(format!("{}{}", &digest[..2], "A".repeat(62))), b"x").unwrap();
    let (code, line) = failed(&mirror, &["cache", "verify"]).await;
    assert!(code == 1 && line.contains("1 of 3 files are broken or missing"), "{line}");
    mirror.body("lab/a/squashfs").await;
    wait_for(async || shown(&mirror, "busy").await["held"] == true).await;
    std::fs::remove_file(&path).unwrap();
    let out = done(&mirror, &["cache", "verify", "--repair"]).await;
    assert!(out.contains(&format!("{digest} was not there any more; it was fetched again")), "{out}");
    assert!(done(&mirror, &["cache", "verify"]).await.contains("3 files are what they are called"));
}

#[tokio::test]
async fn what_would_go_is_said_with_its_reason_and_does_not_go() {
    let (_origin, mirror) = setting("remote_cache_expiry = \"1s\"\ngrace = \"20s\"").await;
    for file in ["metadata.tar.xz", "squashfs"] {
        mirror.body(&format!("lab/bb/{file}")).await;
    }
    wait_for(async || shown(&mirror, "rare").await["held"] == true).await;
    let due =
        async || -> Value { serde_json::from_str(&done(&mirror, &["cache", "prune", "--dry-run", "--format", "json"]).await).unwrap() };
    // It goes by itself soon after; the dry run is quicker now and then.
    let mut seen = Value::Null;
    for _ in 0..200 {
        seen = due().await;
        if seen != Value::Array(Vec::new()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if let Some(first) = seen.as_array().and_then(|seen| seen.first()) {
        assert_eq!((&first["kind"], &first["reason"], &first["name"]), (&"image".into(), &"idle".into(), &print("bb").into()));
    }
}

#[tokio::test]
async fn completions_know_what_the_running_server_has() {
    let (_origin, mirror) = setting("").await;
    done(&mirror, &["image", "copy", "busy", "--alias", "prod"]).await;
    let completed = async |words: &[&str]| {
        let mut command = Command::new(CISTERN);
        command.env("COMPLETE", "fish").env("CISTERN_SOCKET", mirror.socket()).args(["--", "cistern"]).args(words);
        let output = command.output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let images = completed(&["image", "info", "lab:"]).await;
    assert!(images.contains(&"lab:busy".to_owned()) && images.contains(&"lab:rare".to_owned()), "{images:?}");
    assert_eq!(completed(&["image", "delete", "bus"]).await, ["busy"]);
    assert_eq!(completed(&["image", "export", &print("a")[..5]]).await, [&print("a")[..12]]);
    assert_eq!(completed(&["image", "alias", "rename", "p"]).await, ["prod"]);
    assert_eq!(completed(&["remote", "refresh", "l"]).await, ["lab"]);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(done(&mirror, &["completions", shell]).await.contains("COMPLETE"), "{shell}");
    }
}
