//! `cistern bundle`

pub mod export;
pub mod folder;
pub mod key;
pub mod lock;
pub mod part;
pub mod tree;
pub mod verify;

use std::path::PathBuf;

use clap::Subcommand;
use hyper::Method;

use crate::cli::ServerArguments;
use crate::cli::admin::{self, ask};
use crate::cli::exit::Failure;
use crate::cli::serve::runtime;

/// What to do with bundles.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write images, with documents that list them, to a folder that can be carried elsewhere
    Export(export::Arguments),
    /// Print the public half of the key that bundles are signed with; a site has to trust it
    Key,
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
            runtime(0)?.block_on(export::run(&socket, server.format, arguments))
        }
        Command::Key => {
            let socket = admin::socket(server.socket, server.config.as_deref())?;
            let pem: String = runtime(0)?.block_on(ask(&socket, Method::GET, "/1.0/bundles/key", Vec::new()))?;
            print!("{pem}");
            Ok(())
        }
        Command::Verify { folders, key } => verify::run(server.format, folders, key.as_deref()),
    }
}
