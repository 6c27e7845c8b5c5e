//! Cistern beside what people would use instead: Debian's nginx and squid, on this machine, in this run.
//! `cargo bench --bench peers`, or with the names of works to do these only: `cargo bench --bench peers -- plain tls`.
//!
//! Each work is done by one after the other, again and again, so that the machine's moods fall on all of them. Times are
//! medians, and what counts is how they stand to each other. A table goes to standard output, everything to
//! `target/peers.json`. Both peers are set up as well as they can be for the work (`peers/nginx.conf`, `peers/squid.conf`).
//! `cargo bench --bench peers -- --write` does all of them and makes `benches/RESULTS.md` anew.

#![allow(clippy::cast_precision_loss, reason = "what is measured is no exact thing")]

mod load;
mod machine;
mod origin;
mod results;
mod secure;
mod server;
mod table;
mod works;

use crate::table::Table;
use crate::works::{Bench, WORKS};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|wanted| WORKS.iter().all(|(name, _)| name != wanted)) {
        eprintln!("there is no work '{unknown}'; there are {}", WORKS.map(|(name, _)| name).join(", "));
        std::process::exit(2);
    }
    let bench = Bench::start();
    let mut table = Table::default();
    for (name, work) in WORKS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            let before = table.len();
            work(&bench, &mut table);
            table.print_since(before);
        }
    }
    table.write(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers.json")));
    if std::env::args().any(|argument| argument == "--write") {
        results::write(&table);
    }
}
