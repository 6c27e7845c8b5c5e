//! Where the log goes: text for people, JSON for programs.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::file::{Format, Level, Log};

/// Begins to log on standard error. `RUST_LOG` goes before the configuration.
pub fn start(log: &Log) {
    let level = match log.level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("warn,cistern={level}")));
    let is_terminal = std::io::stderr().is_terminal();
    let is_text = log.format == Format::Text || (log.format == Format::Auto && is_terminal);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(is_terminal);
    let started = if is_text { builder.with_target(false).finish().try_init() } else { builder.json().finish().try_init() };
    if let Err(error) = started {
        eprintln!("cistern: logging as before: {error}");
    }
}
