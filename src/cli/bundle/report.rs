//! Says what came of an import.

use serde::Serialize;

use crate::api::{ImportPlan, ImportReport, ImportedRemote, MissingVolume};
use crate::cli::exit::{FAILED, Failure};
use crate::cli::plain::plain;
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

/// Shows it; what a bundle lacks is a failure.
pub fn show(format: Format, report: &ImportReport, plan: &ImportPlan, is_trial: bool) -> Result<(), Failure> {
    if format == Format::Table {
        show_table(report, plan, is_trial);
    } else {
        print(format, &[], &[], &Report { report, blobs: plan.blobs.len() })?;
    }
    match &report.why {
        Some(why) => Err(Failure::new(FAILED, why)),
        None => Ok(()),
    }
}

fn show_table(report: &ImportReport, plan: &ImportPlan, is_trial: bool) {
    let ImportReport { generation, created_at, signed_by, listed, remotes, missing, lacking, why } = report;
    let how = match (why.is_some(), is_trial, listed, plan.is_known) {
        (true, ..) => "cannot be imported",
        (_, true, ..) => "would be imported",
        (_, _, true, true) => "was imported already",
        (_, _, true, false) => "is imported",
        (_, _, false, _) => "is not listed yet",
    };
    println!("Bundle {generation} of {created_at}, signed by key {signed_by}, {how}; {} files were not held before", plan.blobs.len());
    lacking.iter().for_each(|file| println!("Missing: {}", plain(file)));
    if why.is_none() {
        remotes.iter().for_each(show_remote);
        missing.iter().for_each(|volume| show_volume(volume, is_trial));
    }
}

fn show_volume(MissingVolume { volume, blobs, size: bytes }: &MissingVolume, is_trial: bool) {
    let what = if is_trial { "to come" } else { "import it too" };
    println!("Volume {volume}: {blobs} files, {}, {what}", size(*bytes));
}

fn show_remote(of: &ImportedRemote) {
    let ImportedRemote { remote, is_new, added, gone, images } = of;
    let offline = if *is_new { ", an offline remote from now on" } else { "" };
    println!("{remote}{offline}: {images} images; {} new, {} listed no more", added.len(), gone.len());
    for (sign, names) in [('+', added), ('-', gone)] {
        names.iter().take(NAMED).for_each(|name| println!("  {sign} {}", plain(name)));
        if names.len() > NAMED {
            println!("  {sign} {} more", names.len() - NAMED);
        }
    }
}
