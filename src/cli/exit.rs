//! Exit codes (interface.md, Commands; the numbers above 2 are those of `sysexits.h`).

use std::fmt;

use crate::app::StartError;
use crate::app::team::TeamError;
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What people typed comes back here; a terminal is not to obey it.
        self.message.chars().try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") })
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
