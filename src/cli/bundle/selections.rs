//! Shows which bundles a site has, and lets go of those of a selection.

use std::path::Path;

use hyper::Method;

use crate::api::{BundleState, ImportedBundle};
use crate::cli::admin::{Target, ask};
use crate::cli::exit::Failure;
use crate::cli::table::{Format, print, size};

/// Shows the newest bundle of each selection, and what came in part.
pub async fn list(socket: &Path, format: Format) -> Result<(), Failure> {
    let bundles: Vec<ImportedBundle> = ask(socket, Method::GET, "/1.0/bundles/imports", Vec::new()).await?;
    let row = |bundle: &ImportedBundle| {
        let state = match bundle.state {
            BundleState::Listed => "listed",
            BundleState::Incomplete => "incomplete",
            BundleState::Damaged => "damaged",
        };
        vec![
            bundle.id.clone(),
            bundle.generation.to_string(),
            bundle.created_at.clone(),
            state.to_owned(),
            bundle.remotes.join(","),
            size(bundle.size),
            bundle.selection.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = bundles.iter().map(row).collect();
    print(format, &["ID", "BUNDLE", "MADE", "STATE", "REMOTES", "SIZE", "SELECTION"], &rows, &bundles)
}

/// Has nothing more waited for, or nothing listed any more that only the bundles of this selection list.
pub async fn forget(socket: &Path, id: &str) -> Result<(), Failure> {
    let target = Target::new(&["1.0", "bundles", "imports", id])?.to_string();
    println!("{}", ask::<String>(socket, Method::DELETE, &target, Vec::new()).await?);
    Ok(())
}
