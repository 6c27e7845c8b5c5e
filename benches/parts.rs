//! What the parts cost: reading, judging, rendering and packing a large document. `cargo bench --bench parts`

#[path = "../tests/support/large.rs"]
mod large;

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
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
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

criterion_group!(parts, document);
criterion_main!(parts);
