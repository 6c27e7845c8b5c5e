//! `cistern demo`

use std::net::SocketAddr;

use crate::cli::exit::{FAILED, Failure};
use crate::cli::logging;
use crate::cli::serve::{outside, runtime};
use crate::config::file::{Access, Format, Level, Log};
use crate::demo;

/// Runs the demonstration.
pub fn run(listen: Option<SocketAddr>, once: bool) -> Result<(), Failure> {
    logging::start(&Log { level: Level::Warn, format: Format::Auto, access: Access::Off });
    runtime(8)?.block_on(demo::run(outside(), listen, once)).map_err(|error| Failure::new(FAILED, error))
}
