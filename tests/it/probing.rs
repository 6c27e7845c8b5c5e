//! What load balancers and Prometheus are told, and what that costs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cistern::disk::OsDisk;
use futures_util::future::join_all;
use hyper::Method;

use crate::managing::done;
use crate::support::disk::FullDisk;
use crate::support::faulty::FaultyDisk;
use crate::support::mirror::{Builder, Mirror, free_port, wait_for};
use crate::support::origin::{Act, Origin};
use crate::support::stream::{Stream, Version, noise};

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

/// T38: a rate needs a zero to begin at. Whatever happens, no series comes that was not there from the start.
#[tokio::test]
async fn every_series_is_there_at_zero_before_anything_happens() {
    let origin = Origin::start().await;
    let large = noise(2 << 20, 1);
    let version = Version::new("images/noble").file("squashfs", &large).metadata("lxd.tar.xz", b"metadata");
    let gone = Version::new("images/gone").file("squashfs", b"gone").metadata("lxd.tar.xz", b"metadata");
    let stream = Stream::default().add("ubuntu:noble:amd64", "24.04", "20260101", version);
    let stream = stream.add("ubuntu:gone:amd64", "gone", "20260101", gone);
    origin.put(stream.tree());
    origin.remove("images/gone/squashfs");
    let builder = Builder::default().metrics(free_port()).section("[limits]\nretry_wrong = \"100ms\"");
    let urls = [origin.url(), "http://127.0.0.1:9".to_owned()];
    let mirror = builder.remote("ubuntu", &urls, "max_gone = \"0%\"").start_without_waiting().await;
    let series = async || -> BTreeMap<String, f64> {
        let (_, text) = mirror.probe("metrics").await;
        let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        lines.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    };
    let before = series().await;
    let counters = |name: &&String| name.contains("_total") && !name.starts_with("process_");
    let not_zero: Vec<&String> = before.keys().filter(counters).filter(|name| before[*name] > 0.5).collect();
    let is_of_the_start = |name: &&&String| {
        ["cistern_upstream_requests", "cistern_refresh_total", "cistern_upstream_received", "cistern_upstream_failures"]
            .iter()
            .any(|early| name.starts_with(early))
    };
    assert!(not_zero.iter().all(|name| is_of_the_start(&name)), "{not_zero:?}");
    wait_for(async || mirror.get("ubuntu/streams/v1/index.json").await.status() == 200).await;

    let path = "ubuntu/images/noble/squashfs";
    origin.act("images/noble/squashfs", [Act::CutAt(1 << 20), Act::StallAt(1 << 20, Duration::from_millis(300))]);
    let ask = async |method: Method, path: &str, header: (&'static str, &'static str)| {
        let request = mirror.client().request(method, format!("{}/{path}", mirror.url())).header(header.0, header.1);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        drop(answer.bytes().await);
        status
    };
    let plain = ("accept", "*/*");
    let herd = join_all((0..4).map(|_| ask(Method::GET, path, plain))).await;
    let mut statuses: BTreeSet<u16> = herd.into_iter().collect();
    for (method, path, header) in [
        (Method::HEAD, path, plain),
        (Method::POST, path, plain),
        (Method::from_bytes(b"PROPFIND").unwrap(), path, plain),
        (Method::GET, path, ("range", "bytes=1-2")),
        (Method::GET, path, ("range", "bytes=99999999-")),
        (Method::GET, path, ("if-match", "\"other\"")),
        (Method::GET, path, ("if-none-match", "*")),
        (Method::GET, "ubuntu/images/gone/squashfs", plain),
        (Method::GET, "ubuntu/images/gone/squashfs", plain),
        (Method::GET, "ubuntu/%00", plain),
        (Method::GET, "nobody", plain),
        (Method::GET, "", plain),
        (Method::GET, "streams/v1/index.json", ("accept-encoding", "gzip")),
    ] {
        statuses.insert(ask(method, path, header).await);
    }
    assert!(statuses.is_superset(&BTreeSet::from([200, 206, 304, 400, 404, 405, 412, 416])), "{statuses:?}");
    let secure = mirror.url().replace("https", "http");
    mirror.client().get(format!("{secure}/streams/v1/index.json")).send().await.unwrap();
    // Upstream is in every kind of trouble, and what is held is taken away.
    done(&mirror, &["image", "list", "--held"]).await;
    for act in [Act::Status(503, "Retry-After: 1\r\n"), Act::Page("<html>")] {
        origin.act("streams/v1/index.json", [act]);
        mirror.refresh("ubuntu", false).await;
    }
    origin.put(
        Stream::default()
            .add("ubuntu:noble:amd64", "24.04", "20260201", Version::new("images/new").file("squashfs", b"n").metadata("lxd.tar.xz", b"m"))
            .tree(),
    );
    assert_eq!(mirror.refresh("ubuntu", false).await.result.label(), "refused");
    mirror.refresh("ubuntu", true).await;
    done(&mirror, &["cache", "prune"]).await;

    let after = series().await;
    let new: Vec<&String> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert!(new.is_empty(), "{new:#?}");
    let moved = after.iter().filter(|(name, value)| before.get(*name).is_some_and(|old| (*value - old).abs() > 0.5)).count();
    assert!(moved > 30, "much happened: {moved}");
}
