//! Says what came of an import.

use serde::Serialize;

use crate::api::{ImportPlan, ImportReport, ImportedRemote, MissingVolume};
use crate::cli::exit::Failure;
use crate::cli::table::{Format, print, size};

/// So many images of a remote are named.
const NAMED: usize = 10;

/// What programs get.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    report: &'a ImportReport,
    /// How many blobs were not held before.
    blobs: usize,
}

/// Shows it.
pub fn show(format: Format, report: &ImportReport, plan: &ImportPlan, is_trial: bool) -> Result<(), Failure> {
    if format != Format::Table {
        return print(format, &[], &[], &Report { report, blobs: plan.blobs.len() });
    }
    let ImportReport { generation, created_at, signed_by, listed, remotes, missing } = report;
    let how = match (is_trial, listed, plan.is_known) {
        (true, ..) => "would be imported",
        (_, true, true) => "was imported already",
        (_, true, false) => "is imported",
        (_, false, _) => "is not listed yet",
    };
    println!("Bundle {generation} of {created_at}, signed by key {signed_by}, {how}; {} files were not held before", plan.blobs.len());
    remotes.iter().for_each(show_remote);
    for MissingVolume { volume, blobs, size: bytes } in missing {
        let what = if is_trial { "to come" } else { "import it too" };
        println!("Volume {volume}: {blobs} files, {}, {what}", size(*bytes));
    }
    Ok(())
}

fn show_remote(of: &ImportedRemote) {
    let ImportedRemote { remote, added, gone, images } = of;
    println!("{remote}: {images} images; {} new, {} listed no more", added.len(), gone.len());
    for (sign, names) in [('+', added), ('-', gone)] {
        names.iter().take(NAMED).for_each(|name| println!("  {sign} {name}"));
        if names.len() > NAMED {
            println!("  {sign} {} more", names.len() - NAMED);
        }
    }
}
