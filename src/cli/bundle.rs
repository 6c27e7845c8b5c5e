//! `cistern bundle`

pub mod export;
pub mod folder;
pub mod verify;

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::ServerArguments;
use crate::cli::admin;
use crate::cli::exit::Failure;
use crate::cli::serve::runtime;

/// What to do with bundles.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write images, with documents that list them, to a folder that can be carried elsewhere
    Export(export::Arguments),
    /// Read all of a bundle, and name what is missing, broken or too much; needs no server
    Verify {
        /// Its folders: of one volume, of some or of all, in any order
        #[arg(required = true, value_name = "DIR")]
        folders: Vec<PathBuf>,
        /// The public key of whoever made it
        #[arg(long, value_name = "PUB")]
        key: Option<PathBuf>,
    },
}

/// Does it.
pub fn run(server: ServerArguments, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Export(arguments) => {
            let socket = admin::socket(server.socket, server.config.as_deref())?;
            runtime(0)?.block_on(export::run(&socket, arguments))
        }
        Command::Verify { folders, key } => verify::run(server.format, folders, key.as_deref()),
    }
}
