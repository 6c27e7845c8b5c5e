//! Exit codes (interface.md, Commands; the numbers above 2 are those of `sysexits.h`).

use std::fmt;

use crate::app::StartError;
use crate::app::team::TeamError;
use crate::cli::plain::plain;
use crate::config::error::ConfigError;

/// Something failed.
pub const FAILED: u8 = 1;
/// The arguments make no sense.
pub const WRONG_USAGE: u8 = 2;
/// The server is not running.
pub const NO_SERVER: u8 = 69;
/// It may work later.
pub const TRY_AGAIN: u8 = 75;
/// The configuration is wrong.
pub const WRONG_CONFIGURATION: u8 = 78;

/// Why a command failed: one line, and an exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// The line.
    pub message: String,
}

impl Failure {
    /// A failure with this code.
    pub fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

/// Ends the program when nothing can be written to standard output any more, without a word if whoever read it has left.
pub fn end_with_output() {
    let otherwise = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| match panic.payload_as_str() {
        Some(text) if text.starts_with("failed printing to stdout") => {
            if !text.contains("Broken pipe") {
                eprintln!("cistern: cannot write to standard output: {}", text.trim_start_matches("failed printing to stdout: "));
            }
            std::process::exit(FAILED.into());
        }
        _ => otherwise(panic),
    }));
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What people typed comes back here; a terminal is not to obey it.
        f.write_str(&plain(&self.message))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(WRONG_CONFIGURATION, error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let code = match &error {
            StartError::Config(_) | StartError::Certificate(_) | StartError::Team(TeamError::Config(_) | TeamError::Remote(_)) => {
                WRONG_CONFIGURATION
            }
            StartError::Store(_) | StartError::Storage(_) | StartError::Intent(_) | StartError::Listen(_) | StartError::Socket { .. } => {
                FAILED
            }
        };
        Self::new(code, error)
    }
}
