//! What a refresh of a large document costs: from the bytes to what is served under the remote's name and at the root, gzipped.
//!
//! The limit in seconds is of a machine whose `serde_json` takes 76 ms for a tree of such a document: that it is missed elsewhere
//! says little, and the ratio more.
#![allow(clippy::cast_precision_loss, reason = "what is measured is no exact thing")]

use std::path::Path;
use std::time::{Duration, Instant};

use cistern::api::{RefreshReport, RefreshRequest};
use cistern::cli::admin::ask;

use crate::support::large::large_document;
use crate::support::origin::Origin;
use crate::{Server, millis, report};

const LIMIT: Duration = Duration::from_millis(250);
const TREE: Duration = Duration::from_millis(76);
/// So many times the document may be in memory, beside what is served.
const TIMES: f64 = 2.0;
/// By then what was freed is given back.
const SETTLED: Duration = Duration::from_secs(3);

/// Several refreshes, each of which changes every version.
pub async fn run() {
    let origin = Origin::start().await;
    origin.put(large_document(50_000, "20260101"));
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &origin.url()).await;
    let host = server.serves(folder.path()).await;
    let (mut times, mut trees, mut memory, mut size) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for serial in ["20260102", "20260103", "20260104", "20260105", "20260106"] {
        origin.put(large_document(50_000, serial));
        tokio::time::sleep(SETTLED).await;
        let direct = Instant::now();
        let bytes = reqwest::get(format!("{}/streams/v1/images.json", origin.url())).await.unwrap().bytes().await.unwrap();
        let direct = direct.elapsed();
        size = bytes.len();
        let tree = time_of_a_tree(&bytes);
        let served = mib_served(&server, &host, size).await;
        server.forget_most();
        let started = Instant::now();
        refresh(folder.path()).await;
        let time = started.elapsed().saturating_sub(direct);
        let most = server.most_mib();
        tokio::time::sleep(SETTLED).await;
        times.push(time.as_secs_f64());
        trees.push(time.as_secs_f64() / tree.as_secs_f64());
        memory.push((most - server.memory_mib("VmRSS:") - served) / mib(size));
    }
    let (time, tree, memory) = (Duration::from_secs_f64(median(times)), median(trees), median(memory));
    let figure = format!("refresh of 50,000 items ({} MiB): from bytes to served", size >> 20);
    report(&figure, &millis(time), &millis(LIMIT), time < LIMIT);
    let limit = LIMIT.as_secs_f64() / TREE.as_secs_f64();
    report("the same: the document as a tree of serde_json = 1", &format!("{tree:.2}"), &format!("{limit:.2}"), tree <= limit);
    report("the same: most memory, beside what is served; document = 1", &format!("{memory:.2}"), &format!("{TIMES:.2}"), memory <= TIMES);
}

async fn refresh(folder: &Path) {
    let body = serde_json::to_vec(&RefreshRequest { accept: true }).unwrap();
    let socket = folder.join("admin.sock");
    let report: RefreshReport = ask(&socket, hyper::Method::POST, "/1.0/remotes/ubuntu/refresh", body).await.unwrap();
    assert_eq!(report.result.label(), "changed");
}

/// What the two documents take that hosts get until a refresh is over, each plain and packed. Upstream's own is kept for longer.
async fn mib_served(server: &Server, host: &reqwest::Client, upstream: usize) -> f64 {
    let mut served = 0.0;
    for path in ["ubuntu/streams/v1/images.json", "streams/v1/ubuntu.images.json"] {
        for coding in ["identity", "gzip"] {
            let answer = host.get(format!("https://{}/{path}", server.address)).header("Accept-Encoding", coding).send().await.unwrap();
            let bytes = answer.bytes().await.unwrap();
            assert_ne!(bytes.len(), upstream, "{path} is another document than upstream's");
            served += mib(bytes.len());
        }
    }
    served
}

/// How long `serde_json` takes to make a tree of a document; the median of three.
fn time_of_a_tree(bytes: &[u8]) -> Duration {
    let times = [(); 3].map(|()| {
        let started = Instant::now();
        let tree = std::hint::black_box(serde_json::from_slice::<serde_json::Value>(bytes).unwrap());
        let time = started.elapsed();
        // To let go of it is no part of that.
        drop(tree);
        time.as_secs_f64()
    });
    Duration::from_secs_f64(median(times.into()))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
