//! `cistern bundle`

pub mod archive;
pub mod export;
pub mod folder;
pub mod import;
pub mod key;
pub mod lock;
pub mod part;
pub mod place;
pub mod report;
pub mod selections;
pub mod stream;
pub mod tree;
pub mod trust;
pub mod verify;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hyper::Method;

use crate::cli::ServerArguments;
use crate::cli::admin::{self, ask, collect, request};
use crate::cli::exit::Failure;
use crate::cli::serve::runtime;
use crate::cli::table::Format;
use crate::seal::PublicKey;

/// What to do with bundles.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write images, with documents that list them, to a folder that can be carried elsewhere
    Export(export::Arguments),
    /// Print what this site holds, signed, so that the next bundle for it has the rest
    Inventory,
    /// Take a bundle in, and list what it has
    Import(import::Arguments),
    /// Show the newest bundle of each selection, and those of which not everything came yet
    List,
    /// Let go of what came of a bundle, or of a whole selection: what only that lists is listed no more
    Forget {
        /// The id of the selection, as 'bundle list' shows it
        id: String,
    },
    /// Take the bundles of a key from now on
    Trust(trust::Arguments),
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
    if let Command::Verify { folders, key } = command {
        return verify::run(server.format, folders, key.as_deref());
    }
    let socket = admin::socket(server.socket, server.config.as_deref())?;
    runtime(0)?.block_on(with_server(&socket, server.format, command))
}

async fn with_server(socket: &Path, format: Format, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Export(arguments) => export::run(socket, format, arguments).await,
        Command::Import(arguments) if arguments.is_stream() => stream::run(socket, format, arguments).await,
        Command::Import(arguments) => import::run(socket, format, arguments).await,
        Command::List => selections::list(socket, format).await,
        Command::Forget { id } => selections::forget(socket, id).await,
        Command::Trust(arguments) => trust::run(socket, format, arguments).await,
        Command::Inventory => {
            let inventory = collect(request(socket, Method::GET, "/1.0/bundles/inventory", Vec::new()).await?).await?;
            print!("{}", String::from_utf8_lossy(&inventory));
            Ok(())
        }
        Command::Key => {
            let pem: String = ask(socket, Method::GET, "/1.0/bundles/key", Vec::new()).await?;
            print!("{pem}");
            // What people read out to whoever is to trust it.
            PublicKey::from_pem(&pem).into_iter().for_each(|key| eprintln!("key {key}"));
            Ok(())
        }
        Command::Verify { folders, key } => verify::run(format, folders, key.as_deref()),
    }
}
