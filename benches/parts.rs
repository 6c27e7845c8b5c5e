//! What the parts cost: reading, judging, rendering and packing a large document, the ledger of a large store, and the way of a
//! request. `cargo bench --bench parts`

#[path = "../tests/support/large.rs"]
mod large;
mod large_store;

use std::hint::black_box;
use std::time::Duration;

use cistern::catalog::document::Document;
use cistern::digest::Digest;
use cistern::http::path::StreamPath;
use cistern::render::policy::Policy;
use cistern::render::remote::{Rendered, render};
use cistern::render::root::{Source as Remote, merge};
use cistern::revalidation::census::Census;
use cistern::simplestreams::products::Products;
use cistern::simplestreams::snapshot::{Role, Snapshot, Source};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;

const ITEMS: usize = 50_000;

fn snapshot() -> Snapshot {
    let documents = large::large_document(ITEMS, "20260101")
        .into_iter()
        .zip([Role::Index, Role::Images])
        .map(|((path, bytes), role)| Source::new(StreamPath::from_document(&path).unwrap(), role, bytes.into()));
    Snapshot { url: "https://example.org".to_owned(), accepted_at: Timestamp::UNIX_EPOCH, documents: documents.collect() }
}

fn rendered(snapshot: &Snapshot, twins: bool) -> Rendered {
    render("ubuntu", snapshot, &Policy { twins, ..Policy::default() })
}

/// What a refresh does with a document of 50,000 items, step by step.
fn document(criterion: &mut Criterion) {
    let snapshot = snapshot();
    let text = std::str::from_utf8(&snapshot.documents[1].bytes).unwrap();
    let mut group = criterion.benchmark_group("document of 50,000 items");
    group.sample_size(10).measurement_time(Duration::from_secs(3)).throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("digest", |bencher| bencher.iter(|| Digest::of(black_box(text.as_bytes()))));
    group.bench_function("parse", |bencher| bencher.iter(|| Products::parse(black_box(text)).unwrap().0.products.len()));
    let (products, _) = Products::parse(text).unwrap();
    group.bench_function("write", |bencher| bencher.iter(|| black_box(&products).to_json().len()));
    group.bench_function("census", |bencher| bencher.iter(|| Census::of(black_box(&snapshot)).unwrap().total()));
    group.bench_function("render as it came", |bencher| bencher.iter(|| rendered(black_box(&snapshot), false).parts.len()));
    group.bench_function("render with twins", |bencher| bencher.iter(|| rendered(black_box(&snapshot), true).parts.len()));
    let Rendered { parts, documents, .. } = rendered(&snapshot, true);
    group.bench_function("merge into the root", |bencher| {
        bencher.iter(|| merge(&[Remote { name: "ubuntu", parts: black_box(&parts) }]).len());
    });
    let bytes = documents[0].bytes.clone();
    group.bench_function("pack", |bencher| bencher.iter(|| Document::new("x.json", black_box(&bytes).clone(), Timestamp::UNIX_EPOCH)));
    group.finish();
}

/// What the ledger is asked for each request and each fetch.
fn ledger(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ledger of 200,000 blobs");
    let (mut ledger, catalog, mut round) = (large_store::ledger(), large_store::catalog(), 0);
    let mut next = || {
        round += 1;
        round
    };
    group.bench_function("touch", |bencher| bencher.iter(|| large_store::touch(&mut ledger, next())));
    group.bench_function("admit and strike", |bencher| bencher.iter(|| large_store::come_and_go(&mut ledger, next())));
    // Each one leaves less, and so it begins anew.
    group.bench_function("make room for a byte, 1,000 times", |bencher| {
        bencher.iter_batched_ref(
            || ledger.clone(),
            |ledger| (0..1000).for_each(|_| large_store::make_room(ledger, &catalog)),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// What a request costs until it is known which file it means.
fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route among 200,000 files");
    let (catalog, ledger) = (large_store::catalog(), large_store::ledger());
    let find = |path: &str| {
        let path = StreamPath::from_request(black_box(path)).unwrap();
        if catalog.document(&path).is_some() {
            return None;
        }
        catalog.file(&path).map(|(_, file)| ledger.has(file.expected))
    };
    group.bench_function("a file that is held", |bencher| bencher.iter(|| assert_eq!(find("ubuntu/77777"), Some(true))));
    group.bench_function("nothing", |bencher| bencher.iter(|| assert_eq!(find("ubuntu/images/no-such-file"), None)));
    group.finish();
}

criterion_group!(parts, document, ledger, route);
criterion_main!(parts);
