//! `cistern config`

use std::path::{Path, PathBuf};

use clap::Subcommand;

use crate::cli::exit::Failure;
use crate::config::{Config, DEFAULT_PATH, files};
use crate::disk::OsDisk;

/// What to do with a configuration.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read and check it; exit code 78 if it is wrong
    Check {
        /// The file [default: /etc/cistern/cistern.toml]
        file: Option<PathBuf>,
    },
    /// Print the effective configuration, without secrets
    Show {
        /// The file [default: /etc/cistern/cistern.toml, else built-in defaults]
        file: Option<PathBuf>,
    },
}

/// Checks or shows a configuration.
pub fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Check { file } => {
            let file = file.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
            let config = Config::load(&OsDisk, Some(file))?;
            files::check(&config, &OsDisk)?;
            println!(
                "{}: good; remotes: {}",
                file.display(),
                config.remotes.iter().map(|remote| &**remote.name()).collect::<Vec<_>>().join(", ")
            );
        }
        Command::Show { file } => print!("{}", Config::load(&OsDisk, file.as_deref())?.show()),
    }
    Ok(())
}
