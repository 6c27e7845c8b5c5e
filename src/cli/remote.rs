//! `cistern remote`

use std::path::Path;

use clap::Subcommand;
use clap_complete::engine::ArgValueCompleter;
use hyper::Method;

use crate::api::{FailingUrl, HeldBack, Missing, RefreshReport, RefreshRequest, RefreshResult, RemoteStatus};
use crate::cli::admin::ask;
use crate::cli::completion;
use crate::cli::exit::{FAILED, Failure};
use crate::cli::serve::runtime;
use crate::cli::table::{Format, print, size};

/// How many names of products are shown of those that came or went.
const SHOWN_PRODUCTS: usize = 20;

/// What to do with remotes.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List remotes: their URLs, how they are doing, and what they have
    List,
    /// Refresh remotes now, and say what changed
    Refresh {
        /// The remote [default: all]
        #[arg(add = ArgValueCompleter::new(completion::remotes))]
        name: Option<String>,
        /// Take what upstream has, even if it is older or much is gone
        #[arg(long)]
        accept: bool,
    },
}

/// Lists or refreshes remotes.
pub fn run(socket: &Path, format: Format, command: &Command) -> Result<(), Failure> {
    let runtime = runtime(0)?;
    match command {
        Command::List => list(&runtime.block_on(remotes(socket))?, format),
        Command::Refresh { name, accept } => {
            let reports = runtime.block_on(refresh(socket, name.as_deref(), *accept))?;
            show(&reports, format)?;
            let bad = reports.iter().filter(|report| !is_good(report)).count();
            if bad == 0 { Ok(()) } else { Err(Failure::new(FAILED, format!("{bad} of {} remotes could not be refreshed", reports.len()))) }
        }
    }
}

async fn remotes(socket: &Path) -> Result<Vec<RemoteStatus>, Failure> {
    ask(socket, Method::GET, "/1.0/remotes", Vec::new()).await
}

async fn refresh(socket: &Path, name: Option<&str>, accept: bool) -> Result<Vec<RefreshReport>, Failure> {
    let names = match name {
        Some(name) => vec![name.to_owned()],
        // Nobody is asked for one that is offline.
        None => remotes(socket).await?.into_iter().filter(|remote| remote.mode != "offline").map(|remote| remote.name).collect(),
    };
    let body = serde_json::to_vec(&RefreshRequest { accept }).map_err(|error| Failure::new(FAILED, error))?;
    let mut reports = Vec::new();
    for name in names {
        reports.push(ask(socket, Method::POST, &format!("/1.0/remotes/{name}/refresh"), body.clone()).await?);
    }
    Ok(reports)
}

fn list(remotes: &[RemoteStatus], format: Format) -> Result<(), Failure> {
    let headers = ["NAME", "MODE", "IMAGES", "HEALTH", "LAST REFRESH", "RESULT", "URL"];
    let rows: Vec<Vec<String>> = remotes.iter().map(row).collect();
    print(format, &headers, &rows, &remotes)?;
    if format == Format::Table {
        remotes.iter().flat_map(notes).for_each(|note| println!("{note}"));
    }
    Ok(())
}

/// What does not fit into a row.
fn notes(remote: &RemoteStatus) -> Vec<String> {
    let name = &remote.name;
    let and = |problem: &Option<String>| problem.as_ref().map(|problem| format!("; {problem}")).unwrap_or_default();
    let reason = remote.last_refresh.as_ref().and_then(|last| last.reason.as_ref()).map(|reason| format!("{name}: {reason}"));
    let failing = remote.failing.iter().map(|FailingUrl { url, failures, asked_last_until }| {
        let times = if *failures == 1 { "once".to_owned() } else { format!("{failures} times in a row") };
        format!("{name}: {url} failed {times} and is asked last until {asked_last_until}")
    });
    let missing = remote
        .missing
        .as_ref()
        .filter(|missing| missing.files > 0)
        .map(|Missing { files, bytes, problem }| format!("{name}: {files} files ({}) are not held yet{}", size(*bytes), and(problem)));
    let held_back = remote.held_back.iter().map(|HeldBack { product, version, image_type, since, problem }| {
        format!("{name}: {product} {version} ({image_type}) is held back since {since} until it is held{}", and(problem))
    });
    reason.into_iter().chain(failing).chain(missing).chain(held_back).collect()
}

fn row(remote: &RemoteStatus) -> Vec<String> {
    let RemoteStatus { name, mode, images, healthy, failing, urls, last_refresh, .. } = remote;
    let (at, result) = last_refresh.as_ref().map_or(("never", "-"), |last| (last.at.as_str(), last.result.label()));
    let at = at.split('.').next().unwrap_or(at).trim_end_matches('Z');
    let health = if mode == "offline" {
        "-"
    } else if !*healthy {
        "poor"
    } else if failing.is_empty() {
        "good"
    } else {
        "fair"
    };
    vec![name.clone(), mode.clone(), images.to_string(), health.to_owned(), at.to_owned(), result.to_owned(), urls.join(" ")]
}

fn show(reports: &[RefreshReport], format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        return print(format, &[], &[], &reports);
    }
    reports.iter().for_each(|report| print!("{}", told(report)));
    Ok(())
}

fn is_good(report: &RefreshReport) -> bool {
    matches!(report.result, RefreshResult::Changed | RefreshResult::Unchanged)
}

fn told(report: &RefreshReport) -> String {
    let RefreshReport { remote, result, images_before, images_after, products_added, products_gone, .. } = report;
    let reason = report.reason.as_deref().unwrap_or_default();
    let mut lines = match result {
        RefreshResult::Unchanged => format!("{remote}: unchanged, {images_after} images\n"),
        RefreshResult::Changed => format!("{remote}: changed, {images_before} images before, {images_after} now\n"),
        RefreshResult::Refused if !report.acceptable => format!("{remote}: refused: {reason}\n"),
        RefreshResult::Refused => {
            format!("{remote}: refused: {reason}\n  take it all the same with: cistern remote refresh {remote} --accept\n")
        }
        RefreshResult::Failed => format!("{remote}: failed: {reason}\n"),
    };
    for (sign, products) in [('+', products_added), ('-', products_gone)] {
        products.iter().take(SHOWN_PRODUCTS).for_each(|product| lines.push_str(&format!("  {sign} {product}\n")));
        if products.len() > SHOWN_PRODUCTS {
            lines.push_str(&format!("  {sign} and {} more\n", products.len() - SHOWN_PRODUCTS));
        }
    }
    lines
}
