//! What load balancers and Prometheus are told, and what that costs.

use std::time::Duration;

use cistern::disk::OsDisk;
use futures_util::future::join_all;

use crate::support::disk::FullDisk;
use crate::support::faulty::FaultyDisk;
use crate::support::mirror::{Builder, Mirror, free_port, wait_for};
use crate::support::origin::Origin;
use crate::support::stream::{Stream, Version};

fn stream() -> Stream {
    let version = Version::new("images/noble").file("squashfs", &[7; 10_000]).metadata("lxd.tar.xz", b"metadata");
    Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", version)
}

async fn mirror(builder: Builder) -> (Origin, Mirror) {
    let origin = Origin::start().await;
    origin.put(stream().tree());
    let mirror = builder.metrics(free_port()).remote("ubuntu", &[origin.url()], "").start().await;
    (origin, mirror)
}

/// T37: nobody makes it work by asking how it is.
#[tokio::test]
async fn a_storm_of_probes_touches_neither_the_disk_nor_upstream() {
    let disk = FaultyDisk::over(OsDisk);
    let (origin, mirror) = mirror(Builder::default().disk(disk.clone())).await;
    wait_for(async || {
        let before = disk.counts();
        tokio::time::sleep(Duration::from_millis(200)).await;
        disk.counts() == before
    })
    .await;
    let (asked, touched) = (origin.total(), disk.counts());
    for _ in 0..20 {
        let probes = (0..50).map(|number| mirror.probe(["livez", "readyz", "metrics"][number % 3]));
        assert!(join_all(probes).await.iter().all(|(status, _)| *status == 200));
    }
    assert_eq!(disk.counts(), touched);
    assert_eq!(origin.total(), asked);
}

/// T22: hosts are served while nothing can be stored, and so they may be sent here; whoever looks is told.
#[tokio::test]
async fn a_mirror_that_cannot_store_is_ready_and_says_what_is_wrong() {
    let disk = FullDisk::empty();
    let (_origin, mirror) = mirror(Builder::default().disk(disk.clone())).await;
    assert_eq!(mirror.probe("readyz").await, (200, "ready\n".to_owned()));
    disk.leave(0);
    assert_eq!(mirror.body("ubuntu/images/noble/squashfs").await, [7; 10_000]);
    let (status, told) = mirror.probe("readyz").await;
    assert!(status == 200 && told.starts_with("ready, but nothing can be stored"), "{status} {told}");
    assert!(mirror.metric("cistern_store_writable").await < 0.5);
    assert_eq!(mirror.probe("livez").await.0, 200);
    disk.leave(u64::MAX);
    wait_for(async || {
        mirror.body("ubuntu/images/noble/squashfs").await;
        mirror.probe("readyz").await.1 == "ready\n"
    })
    .await;
    assert!(mirror.metric("cistern_store_writable").await > 0.5);
}

#[tokio::test]
async fn whoever_stops_is_not_ready() {
    let (origin, mirror) = mirror(Builder::default()).await;
    origin.act("images/noble/squashfs", [crate::support::origin::Act::StallAt(100, Duration::from_millis(600))]);
    let slow = mirror.get("ubuntu/images/noble/squashfs").await;
    mirror.begin_to_stop();
    wait_for(async || mirror.probe("readyz").await == (503, "not ready\n".to_owned())).await;
    assert_eq!(mirror.probe("livez").await.0, 200);
    assert_eq!(slow.bytes().await.unwrap().len(), 10_000);
}
