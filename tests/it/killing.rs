//! The program is killed at random moments while hosts download and upstream publishes (T20).

use std::path::PathBuf;

use cistern::digest::Digest;
use serde_json::Value;

use crate::support::mirror::wait_for;
use crate::support::origin::Origin;
use crate::support::server::Server;
use crate::support::stream::{Stream, Version, noise};

const IMAGES: &str = "lab/streams/v1/images.json";

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
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    wait_for(async || listed(&client, &format!("http://{}", server.addresses()[0])).await.is_ok()).await;
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
        .metadata("lxd.tar.xz", b"metadata")
}

/// What hosts do, until it is aborted: they read documents and download what is listed, and some leave in the middle.
async fn load(server: String) {
    let host = || async {
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        loop {
            let Ok(files) = listed(&client, &server).await else { continue };
            let Some((path, _)) = fastrand::choice(&files) else { continue };
            let Ok(mut response) = client.get(format!("{server}/lab/{path}")).header("connection", "close").send().await else { continue };
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
