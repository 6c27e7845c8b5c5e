//! Debian's `prometheus` scrapes a running Cistern, and `promtool` has nothing to say about what it gets.
//!
//! Skipped, with a line that says so, where they are not installed; with `CISTERN_REQUIRE_PROMETHEUS=1` a failure.

#[path = "support/main.rs"]
mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::mirror::{Builder, free_port, wait_for};
use crate::support::origin::Origin;
use crate::support::stream::{Stream, Version};

fn is_installed() -> bool {
    let found = ["prometheus", "promtool"].iter().all(|program| Command::new(program).arg("--version").output().is_ok());
    assert!(found || std::env::var_os("CISTERN_REQUIRE_PROMETHEUS").is_none(), "prometheus is not installed");
    if !found {
        eprintln!("SKIPPED: a test with the real prometheus; not installed");
    }
    found
}

#[tokio::test]
async fn prometheus_scrapes_a_running_cistern() {
    if !is_installed() {
        return;
    }
    let origin = Origin::start().await;
    let version = Version::new("images/noble").file("squashfs", b"root").metadata("lxd.tar.xz", b"metadata");
    origin.put(Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", version).tree());
    let (metrics, prometheus) = (free_port(), free_port());
    let mirror = Builder::default().metrics(metrics).remote("ubuntu", &[origin.url()], "").start().await;
    mirror.body("ubuntu/images/noble/squashfs").await;

    let text = reqwest::get(format!("http://127.0.0.1:{metrics}/metrics")).await.unwrap().text().await.unwrap();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && said.trim().is_empty(), "promtool check metrics: {said}");

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("prometheus.yml");
    let yaml = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: cistern\n    static_configs:\n      - targets: [\"127.0.0.1:{metrics}\"]\n"
    );
    std::fs::write(&config, yaml).unwrap();
    let mut server = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{prometheus}"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let query = async |query: &str| {
        let answer = reqwest::Client::new().get(format!("http://127.0.0.1:{prometheus}/api/v1/query?query={query}")).send().await.ok()?;
        let json: serde_json::Value = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
        json["data"]["result"][0]["value"][1].as_str().map(ToOwned::to_owned)
    };
    wait_for(async || query("up").await.as_deref() == Some("1")).await;
    assert_eq!(query("cistern_upstream_healthy").await.as_deref(), Some("1"));
    assert_eq!(query("cistern_cache_blobs").await.as_deref(), Some("1"));
    server.kill().unwrap();
    server.wait().unwrap();
}
