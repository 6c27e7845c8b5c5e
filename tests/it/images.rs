//! What people see of images: the program's own commands against a running mirror.

use std::process::Command;

use serde_json::Value;

use crate::support::mirror::{Builder, Mirror, wait_for};
use crate::support::origin::Origin;
use crate::support::stream::{Stream, Version};

const CISTERN: &str = env!("CARGO_BIN_EXE_cistern");

async fn mirror() -> (Origin, Mirror) {
    let version = |folder: &str| Version::new(folder).file("squashfs", folder.as_bytes()).metadata("lxd.tar.xz", b"metadata");
    let stream = ["20260101", "20260102"].iter().fold(Stream::default(), |stream, serial| {
        stream.add("ubuntu:noble:amd64", "24.04,noble", serial, version(&format!("images/{serial}")))
    });
    let origin = Origin::start().await;
    origin.put(stream.tree());
    let mirror = Builder::default().remote("ubuntu", &[origin.url()], "").remote("other", &["http://127.0.0.1:9".to_owned()], "");
    (origin, mirror.start().await)
}

/// Exit code, standard output, and the line on standard error.
async fn image(mirror: &Mirror, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(CISTERN);
    command.arg("image").args(arguments).arg("--socket").arg(mirror.socket());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn list(mirror: &Mirror, arguments: &[&str]) -> Vec<Value> {
    let (code, json, said) = image(mirror, &[&["list", "--format", "json"], arguments].concat()).await;
    assert_eq!(code, 0, "{said}");
    serde_json::from_str(&json).unwrap()
}

#[tokio::test]
async fn images_are_listed_and_those_that_are_held_are_known() {
    let (_origin, mirror) = mirror().await;
    let all = list(&mirror, &[]).await;
    let serials: Vec<_> = all.iter().map(|image| image["version"].as_str().unwrap()).collect();
    assert_eq!(serials, ["20260102", "20260101"]);
    assert_eq!(all[0]["aliases"], serde_json::json!(["24.04", "noble"]));
    assert_eq!((all[1]["aliases"].as_array().unwrap().len(), &all[1]["held"]), (0, &Value::Bool(false)));
    assert_eq!((&all[0]["type"], &all[0]["architecture"], &all[0]["remote"]), (&"container".into(), &"x86_64".into(), &"ubuntu".into()));

    assert_eq!(list(&mirror, &["--held"]).await.len(), 0);
    mirror.body("ubuntu/images/20260101/squashfs").await;
    assert_eq!(list(&mirror, &["--held"]).await.len(), 0, "half an image is none");
    mirror.body("ubuntu/images/20260101/metadata.tar.xz").await;
    wait_for(async || list(&mirror, &["--held"]).await.len() == 1).await;
    assert_eq!(list(&mirror, &["ubuntu:", "serial=20260101"]).await[0]["held"], true);
    assert_eq!(list(&mirror, &["other:"]).await.len(), 0, "a remote without documents lists nothing");

    let (_, table, _) = image(&mirror, &["list", "ubuntu:nob"]).await;
    assert!(table.lines().count() == 2 && table.contains("24.04 (1 more)") && table.contains("CONTAINER"), "{table}");
}

#[tokio::test]
async fn an_image_is_found_by_alias_and_fingerprint_and_what_is_not_there_has_a_reason() {
    let (_origin, mirror) = mirror().await;
    let fingerprint = list(&mirror, &[]).await[1]["fingerprint"].as_str().unwrap().to_owned();
    let (code, info, _) = image(&mirror, &["info", &fingerprint[..12]]).await;
    assert!(code == 0 && info.contains(&format!("Fingerprint: {fingerprint}")) && info.contains("Version: 20260101"), "{info}");
    let (_, json, _) = image(&mirror, &["show", "ubuntu:noble/amd64", "--format", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["version"], "20260102");
    for (name, reason) in [
        ("nobody:noble", "there is no remote 'nobody'"),
        ("ubuntu:bookworm", "no image is called 'bookworm'"),
        ("ubuntu:noble/riscv64", "no image is called 'noble/riscv64'"),
        ("\u{7}", "no image is called"),
        ("", "no image is called ''"),
        ("..", "no image is called '..'"),
    ] {
        let (code, _, said) = image(&mirror, &["info", name]).await;
        assert!(code == 1 && said.contains(reason) && said.trim_end().lines().count() == 1, "{name}: {said}");
    }
    assert_eq!(image(&mirror, &["list", "nobody:"]).await.0, 1);
}
