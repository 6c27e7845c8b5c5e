//! The store is looked through while hosts are served: what its database did not know of, and what is not there.

use std::time::Duration;

use cistern::digest::Digest;
use cistern::disk::OsDisk;
use hyper::Method;

use crate::deeds::{held, is_counted};
use crate::support::faulty::{Call, FaultyDisk};
use crate::support::mirror::{Builder, Mirror, wait_for};
use crate::support::origin::Origin;
use crate::support::stream::{Stream, Version, noise};

const SIZE: usize = 200_000;

fn stream() -> Stream {
    (0..3).fold(Stream::default(), |stream, number| {
        let folder = number.to_string();
        let version =
            Version::new(&folder).file("squashfs", &noise(SIZE, number)).metadata("lxd.tar.xz", format!("metadata {number}").as_bytes());
        stream.add(&format!("busy:{number}:amd64"), "", "20260101", version)
    })
}

/// A mirror that holds the images `0` and `1`, stopped and started again on a disk that does not say which blobs there are.
async fn started_blind(capacity: usize, between: impl FnOnce(&Mirror)) -> (Origin, Mirror, FaultyDisk) {
    let origin = Origin::start().await;
    origin.put(stream().tree());
    let builder = Builder::default().storage(&format!("capacity = \"{capacity}B\"\nmin_free = \"0%\""));
    let mirror = builder.remote("lab", &[origin.url()], "").start().await;
    for file in ["0/squashfs", "0/metadata.tar.xz", "1/squashfs", "1/metadata.tar.xz"] {
        mirror.body(&format!("lab/{file}")).await;
    }
    wait_for(async || held(&mirror).await.len() == 2).await;
    // What was committed last is in the database when it has stopped.
    let mirror = mirror.restart().await;
    let disk = FaultyDisk::over(OsDisk);
    between(&mirror);
    disk.hang(Call::BlobNames);
    (origin, mirror.restart_with(disk.clone(), ToOwned::to_owned).await, disk)
}

fn blob(mirror: &Mirror, bytes: &[u8]) -> std::path::PathBuf {
    let name = Digest::of(bytes).to_string();
    mirror.store().join("blobs/sha256").join(&name[..2]).join(name)
}

#[tokio::test]
async fn hosts_are_served_before_the_store_is_looked_through() {
    let (_origin, mirror, disk) = started_blind(1 << 30, |_| ()).await;
    wait_for(async || disk.hung() > 0).await;
    assert_eq!(mirror.body("lab/0/squashfs").await, noise(SIZE, 0));
    assert!(mirror.is_hit("lab/1/squashfs").await);
    assert_eq!(held(&mirror).await.len(), 2);
    disk.heal();
    wait_for(async || is_counted(&mirror).await.is_ok()).await;
}

/// A file that nobody counts yet takes room all the same.
#[tokio::test]
async fn nobody_is_promised_room_before_all_that_lies_there_is_counted() {
    let stranger = noise(SIZE, 9);
    let (_origin, mirror, disk) = started_blind(3 * SIZE + 1000, |mirror| {
        let path = blob(mirror, &stranger);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &stranger).unwrap();
    })
    .await;
    let early = tokio::time::timeout(Duration::from_millis(500), mirror.get("lab/2/squashfs")).await;
    assert!(early.is_err(), "it waits for room, and upstream for it");
    disk.heal();
    assert_eq!(mirror.body("lab/2/squashfs").await, noise(SIZE, 2));
    wait_for(async || is_counted(&mirror).await.is_ok()).await;
    assert!(cache_size(&mirror).await <= 3 * SIZE as u64 + 1000);
}

async fn cache_size(mirror: &Mirror) -> u64 {
    let info: serde_json::Value = cistern::cli::admin::ask(&mirror.socket(), Method::GET, "/1.0/cache", Vec::new()).await.unwrap();
    info["size"].as_u64().unwrap()
}

#[tokio::test]
async fn what_is_not_there_is_held_no_more_and_is_fetched_again() {
    let (origin, mirror, disk) = started_blind(1 << 30, |mirror| std::fs::remove_file(blob(mirror, &noise(SIZE, 1))).unwrap()).await;
    let asked = || origin.requests("1/squashfs").len();
    assert_eq!((held(&mirror).await.len(), asked()), (2, 1), "nobody has looked yet");
    disk.heal();
    wait_for(async || is_counted(&mirror).await.is_ok()).await;
    assert_eq!(mirror.body("lab/1/squashfs").await, noise(SIZE, 1));
    wait_for(async || held(&mirror).await.len() == 2).await;
    assert_eq!(asked(), 2);
}
