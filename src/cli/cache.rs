//! `cistern cache`

use std::path::Path;

use clap::Subcommand;
use hyper::Method;

use crate::api::{CacheStatus, PruneRequest, Pruned, VerifyRequest};
use crate::cli::admin::{ask, body, follow, request};
use crate::cli::exit::Failure;
use crate::cli::serve::runtime;
use crate::cli::table::{Format, print, size};

/// What to do with the store.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show how full it is
    Info,
    /// Let go of what is due now, without waiting for the next round
    Prune {
        /// Say what would go and why, and let nothing go
        #[arg(long)]
        dry_run: bool,
    },
    /// Read every file, and say which are not what they are called
    Verify {
        /// Take broken files out, so that they are fetched again
        #[arg(long)]
        repair: bool,
    },
}

/// Does it.
pub fn run(socket: &Path, format: Format, command: &Command) -> Result<(), Failure> {
    runtime(0)?.block_on(execute(socket, format, command))
}

async fn execute(socket: &Path, format: Format, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Info => info(&ask(socket, Method::GET, "/1.0/cache", Vec::new()).await?, format),
        Command::Prune { dry_run } => {
            let pruned: Vec<Pruned> = ask(socket, Method::POST, "/1.0/cache/prune", body(&PruneRequest { dry_run: *dry_run })?).await?;
            show(&pruned, format)
        }
        Command::Verify { repair } => {
            let reply = request(socket, Method::POST, "/1.0/cache/verify", body(&VerifyRequest { repair: *repair })?).await?;
            println!("{}", follow(reply, "verifying").await?);
            Ok(())
        }
    }
}

fn info(status: &CacheStatus, format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        return print(format, &[], &[], status);
    }
    let CacheStatus { blobs, loose_blobs, images, cached_images, leaving_images, .. } = status;
    println!("Path: {}", status.path);
    println!("Size: {} of {}", size(status.size), size(status.capacity));
    println!("File system: {} free, {} of that are kept free", size(status.free), size(status.min_free));
    println!("Files: {blobs}, {loose_blobs} of them belong to no image");
    println!("Images: {images}, {cached_images} of them cached for hosts, {leaving_images} on their way out");
    println!("Oldest use: {}", status.oldest_use_at.as_deref().unwrap_or("never"));
    Ok(())
}

fn show(pruned: &[Pruned], format: Format) -> Result<(), Failure> {
    let row = |pruned: &Pruned| {
        let when = if pruned.at_once { "now" } else { "after grace" };
        vec![
            pruned.kind.clone(),
            pruned.name.clone(),
            pruned.reason.clone(),
            when.to_owned(),
            size(pruned.size),
            pruned.last_used_at.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = pruned.iter().map(row).collect();
    print(format, &["KIND", "NAME", "REASON", "GOES", "SIZE", "LAST USED"], &rows, &pruned)
}
