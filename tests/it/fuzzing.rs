//! What fuzzing is tried with, as plain tests: the small corpus of each target, the real documents, and tarballs that are made
//! here.

use std::path::Path;

#[path = "../../fuzz/targets.rs"]
mod targets;

/// Runs a target with every file below a folder; how many there were.
fn run(target: fn(&[u8]), folder: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count += run(target, &path);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            std::panic::catch_unwind(|| target(&bytes)).unwrap_or_else(|_| panic!("{} broke it", path.display()));
            count += 1;
        }
    }
    count
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn what_fuzzing_found_worth_keeping_breaks_nothing() {
    for (name, target) in [
        ("documents", targets::documents as fn(&[u8])),
        ("headers", targets::headers),
        ("paths", targets::paths),
        ("tarballs", targets::tarballs),
        ("manifests", targets::manifests),
    ] {
        let count = run(target, &top().join("fuzz/corpus").join(name));
        assert!(count >= 10, "{name} has {count}");
    }
}

#[test]
fn real_documents_break_nothing() {
    assert!(run(targets::documents, &top().join("tests/documents")) >= 5);
}
