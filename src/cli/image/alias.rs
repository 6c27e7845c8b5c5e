//! `cistern image alias`

use std::path::Path;

use clap::Subcommand;
use clap_complete::engine::ArgValueCompleter;
use hyper::Method;

use crate::api::{Alias, AliasRequest};
use crate::cli::admin::{Target, ask, body};
use crate::cli::completion;
use crate::cli::exit::Failure;
use crate::cli::table::{Format, print};

/// What to do with names that people gave.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the names that people gave here
    #[command(visible_alias = "ls")]
    List,
    /// Give an image that is held a name, under 'local' and at the root
    Create {
        /// The name
        name: String,
        /// An alias, or 12 or more digits of a fingerprint
        #[arg(value_name = "[REMOTE:]IMAGE", add = ArgValueCompleter::new(completion::images))]
        image: String,
        /// A virtual machine, where there is a container of that name too
        #[arg(long)]
        vm: bool,
    },
    /// Take a name away
    #[command(visible_alias = "rm")]
    Delete {
        /// The name
        #[arg(add = ArgValueCompleter::new(completion::aliases))]
        name: String,
    },
    /// Give an image another name in the place of one
    #[command(visible_alias = "mv")]
    Rename {
        /// The name that it has
        #[arg(add = ArgValueCompleter::new(completion::aliases))]
        old: String,
        /// The name that it gets
        new: String,
    },
}

/// Does it.
pub async fn run(socket: &Path, format: Format, command: &Command) -> Result<(), Failure> {
    let at = |name: &str| Target::new(&["1.0", "aliases", name]).map(|target| target.to_string());
    match command {
        Command::List => list(&ask::<Vec<Alias>>(socket, Method::GET, "/1.0/aliases", Vec::new()).await?, format),
        Command::Create { name, image, vm } => {
            let wish = AliasRequest { image: Some(image.clone()), virtual_machine: *vm, name: None };
            ask(socket, Method::PUT, &at(name)?, body(&wish)?).await
        }
        Command::Delete { name } => ask(socket, Method::DELETE, &at(name)?, Vec::new()).await,
        Command::Rename { old, new } => {
            let wish = AliasRequest { name: Some(new.clone()), ..AliasRequest::default() };
            ask(socket, Method::PATCH, &at(old)?, body(&wish)?).await
        }
    }
}

fn list(aliases: &[Alias], format: Format) -> Result<(), Failure> {
    let row = |alias: &Alias| {
        let Alias { name, fingerprint, remote, image_type, architecture, description } = alias;
        vec![
            name.clone(),
            fingerprint.chars().take(12).collect(),
            remote.clone(),
            image_type.to_uppercase(),
            architecture.clone(),
            description.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = aliases.iter().map(row).collect();
    print(format, &["ALIAS", "FINGERPRINT", "REMOTE", "TYPE", "ARCHITECTURE", "DESCRIPTION"], &rows, &aliases)
}
