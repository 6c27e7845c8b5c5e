//! Several remotes name the same files: what comes or goes through one of them concerns the others.

use std::time::Duration;

use serde_json::Value;

use crate::deeds::held;
use crate::managing::done;
use crate::support::mirror::{Builder, Mirror, wait_for};
use crate::support::origin::Origin;
use crate::support::stream::{Stream, Version};

fn stream(serials: &[&str]) -> Stream {
    serials.iter().fold(Stream::default(), |stream, serial| {
        let version =
            Version::new(serial).file("squashfs", serial.as_bytes()).metadata("lxd.tar.xz", format!("metadata {serial}").as_bytes());
        stream.add("busy:1:amd64", "busy", serial, version)
    })
}

async fn serials(mirror: &Mirror, remote: &str) -> Vec<String> {
    let document = mirror.json(&format!("{remote}/streams/v1/images.json")).await;
    let versions = document["products"].as_object().unwrap().values().filter_map(|product| product["versions"].as_object());
    versions.flat_map(serde_json::Map::<String, Value>::keys).cloned().collect()
}

async fn origin(serials: &[&str]) -> Origin {
    let origin = Origin::start().await;
    origin.put(stream(serials).tree());
    origin
}

#[tokio::test]
async fn an_offline_remote_lists_what_comes_and_goes_through_another() {
    let origin = origin(&["20260101", "20260102"]).await;
    let builder = Builder::default().section("[images]\ngrace = \"1s\"").remote("lab", &[origin.url()], "");
    let mut mirror = builder.remote("site", &[origin.url()], "mode = \"proxy\"").start().await;
    mirror.reload(|config| config.replace("mode = \"proxy\"", "mode = \"offline\"")).await;
    wait_for(async || serials(&mirror, "site").await.is_empty()).await;
    for file in ["squashfs", "metadata.tar.xz"] {
        mirror.body(&format!("lab/20260101/{file}")).await;
    }
    wait_for(async || serials(&mirror, "site").await == ["20260101"]).await;
    assert_eq!(mirror.body("site/20260101/squashfs").await, b"20260101");
    wait_for(async || !held(&mirror).await.is_empty()).await;
    done(&mirror, &["image", "delete", &held(&mirror).await[0].fingerprint]).await;
    wait_for(async || serials(&mirror, "site").await.is_empty()).await;
}

/// Which of both brings it in is a matter of chance.
#[tokio::test]
async fn two_mirrors_of_the_same_files_both_list_what_is_held() {
    let origin = origin(&["20260101"]).await;
    let more = "mode = \"mirror\"";
    let mirror = Builder::default().remote("one", &[origin.url()], more).remote("two", &[origin.url()], more).start().await;
    wait_for(async || !held(&mirror).await.is_empty()).await;
    let mut all = vec!["20260101".to_owned()];
    for day in 2..10 {
        all.push(format!("202601{day:02}"));
        origin.put(stream(&all.iter().map(String::as_str).collect::<Vec<_>>()).tree());
        tokio::join!(mirror.refresh("one", false), mirror.refresh("two", false));
        for remote in ["one", "two"] {
            let lists_it =
                tokio::time::timeout(Duration::from_secs(20), wait_for(async || serials(&mirror, remote).await.contains(&all[day - 1])));
            assert!(lists_it.await.is_ok(), "{remote} does not list {}", all[day - 1]);
        }
    }
}
