//! `cistern image`

pub mod alias;
pub mod edit;
pub mod export;
pub mod import;
pub mod listing;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use hyper::Method;

use crate::api::{AliasRequest, CopyRequest, Image};
use crate::cli::admin::{Target, ask, body, follow, request};
use crate::cli::completion;
use crate::cli::exit::{FAILED, Failure, WRONG_USAGE};
use crate::cli::serve::runtime;
use crate::cli::table::Format;

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List images
    #[command(visible_alias = "ls")]
    List {
        /// A remote, as NAME:, and filters: KEY=VALUE, or a part of an alias or fingerprint
        #[arg(value_name = "[REMOTE:][FILTER]")]
        filters: Vec<String>,
        /// Only those that are held whole
        #[arg(long)]
        held: bool,
    },
    /// Show what is known of an image
    #[command(visible_alias = "show")]
    Info {
        /// Which
        #[command(flatten)]
        image: Named,
    },
    /// Bring images in now, to stay until they are deleted
    #[command(visible_alias = "cp")]
    Copy {
        /// Aliases, or 12 or more digits of fingerprints
        #[arg(required = true, value_name = "[REMOTE:]IMAGE", add = ArgValueCompleter::new(completion::images))]
        images: Vec<String>,
        /// Bring newer versions in when there are any, in the place of these
        #[arg(long)]
        auto_update: bool,
        /// A name for it here; may be given several times
        #[arg(long, value_name = "NAME")]
        alias: Vec<String>,
        /// For which machines
        #[command(flatten)]
        machine: Machine,
    },
    /// Set how an image is held: `auto_update`, `expires_at`, `public`, or a property
    Set {
        /// Which
        #[command(flatten)]
        image: Named,
        /// What to set; an empty value removes a property
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Edit how an image is held, in $EDITOR or from standard input
    Edit {
        /// Which
        #[command(flatten)]
        image: Named,
    },
    /// Look for newer versions of images now, and bring them in
    Refresh {
        /// Aliases, or 12 or more digits of fingerprints
        #[arg(required = true, value_name = "[REMOTE:]IMAGE", add = ArgValueCompleter::new(completion::images))]
        images: Vec<String>,
        /// For which machines
        #[command(flatten)]
        machine: Machine,
    },
    /// Let images go
    #[command(visible_alias = "rm")]
    Delete {
        /// Aliases, or 12 or more digits of fingerprints
        #[arg(required = true, value_name = "[REMOTE:]IMAGE", add = ArgValueCompleter::new(completion::images))]
        images: Vec<String>,
        /// For which machines
        #[command(flatten)]
        machine: Machine,
    },
    /// Publish an image of your own under 'local'; without --public it is held and not listed
    Import {
        /// What, and as what
        #[command(flatten)]
        arguments: import::Arguments,
    },
    /// List, give and take away names of images
    Alias {
        /// What to do
        #[command(subcommand)]
        command: alias::Command,
    },
    /// Write the files of an image to a folder, named as upstream names them
    Export {
        /// Which
        #[command(flatten)]
        image: Named,
        /// The folder [default: the current one]
        folder: Option<PathBuf>,
    },
}

/// One image.
#[derive(Debug, Args)]
pub struct Named {
    /// An alias, or 12 or more digits of a fingerprint
    #[arg(value_name = "[REMOTE:]IMAGE", add = ArgValueCompleter::new(completion::images))]
    image: String,
    #[command(flatten)]
    machine: Machine,
}

/// For which machines an alias is meant.
#[derive(Clone, Debug, Args)]
pub struct Machine {
    /// For this architecture [default: the server's]
    #[arg(long)]
    arch: Option<String>,
    /// A virtual machine, where there is a container of that name too
    #[arg(long)]
    vm: bool,
}

/// Does it.
pub fn run(socket: &Path, format: Format, command: &Command) -> Result<(), Failure> {
    runtime(0)?.block_on(execute(socket, format, command))
}

async fn execute(socket: &Path, format: Format, command: &Command) -> Result<(), Failure> {
    match command {
        Command::List { filters, held } => {
            let target = listing::target(filters, *held)?;
            listing::list(&ask::<Vec<Image>>(socket, Method::GET, &target, Vec::new()).await?, format)
        }
        Command::Info { image } => listing::info(&info(socket, image).await?, format),
        Command::Copy { images, auto_update, alias, machine } => {
            if images.len() > 1 && !alias.is_empty() {
                return Err(Failure::new(WRONG_USAGE, "--alias names one image; copy them one by one"));
            }
            copy(socket, images, *auto_update, machine).await?;
            name(socket, &images[0], alias, machine).await
        }
        Command::Set { image, settings } => {
            let change = edit::of_settings(settings)?;
            ask::<()>(socket, Method::PATCH, &target(&image.image, &image.machine, &[])?, body(&change)?).await
        }
        Command::Edit { image } => {
            let change = edit::edited(&info(socket, image).await?)?;
            match change {
                Some(change) => ask::<()>(socket, Method::PATCH, &target(&image.image, &image.machine, &[])?, body(&change)?).await,
                None => Ok(()),
            }
        }
        Command::Refresh { images, machine } => {
            for image in images {
                let reply = request(socket, Method::POST, &target(image, machine, &["refresh"])?, Vec::new()).await?;
                println!("{image}: {}", follow(reply, image).await?);
            }
            Ok(())
        }
        Command::Delete { images, machine } => {
            for image in images {
                ask::<()>(socket, Method::DELETE, &target(image, machine, &[])?, Vec::new()).await?;
            }
            Ok(())
        }
        Command::Import { arguments } => import::run(socket, arguments).await,
        Command::Alias { command } => alias::run(socket, format, command).await,
        Command::Export { image, folder } => export::run(socket, image, folder.as_deref().unwrap_or(Path::new("."))).await,
    }
}

async fn info(socket: &Path, Named { image, machine }: &Named) -> Result<Image, Failure> {
    ask(socket, Method::GET, &target(image, machine, &[])?, Vec::new()).await
}

async fn copy(socket: &Path, images: &[String], auto_update: bool, Machine { arch, vm }: &Machine) -> Result<(), Failure> {
    for image in images {
        let wish = CopyRequest { image: image.clone(), auto_update, architecture: arch.clone(), virtual_machine: *vm };
        let reply = request(socket, Method::POST, "/1.0/images", body(&wish)?).await?;
        println!("{image}: {}", follow(reply, image).await?);
    }
    Ok(())
}

/// Gives an image names.
async fn name(socket: &Path, image: &str, aliases: &[String], machine: &Machine) -> Result<(), Failure> {
    for alias in aliases {
        let Image { fingerprint, .. } = ask(socket, Method::GET, &target(image, machine, &[])?, Vec::new()).await?;
        let wish = AliasRequest { image: Some(fingerprint), ..AliasRequest::default() };
        ask::<()>(socket, Method::PUT, &Target::new(&["1.0", "aliases", alias])?.to_string(), body(&wish)?).await?;
    }
    Ok(())
}

/// Where the server has an image, or something of it.
fn target(image: &str, Machine { arch, vm }: &Machine, rest: &[&str]) -> Result<String, Failure> {
    if ["", ".", ".."].contains(&image) {
        return Err(Failure::new(FAILED, format!("no image is called '{image}'; cistern image list shows what there is")));
    }
    let target = Target::new(&[&["1.0", "images", image], rest].concat())?;
    Ok(target.with("vm", vm.then_some("true")).with("arch", arch.as_deref()).to_string())
}

#[cfg(test)]
mod tests {
    use crate::cli::image::{Machine, target};

    #[test]
    fn a_name_is_one_segment_whatever_it_has() {
        let machine = Machine { arch: Some("arm64".to_owned()), vm: true };
        assert_eq!(
            target("ubuntu:noble/amd64", &machine, &["refresh"]).unwrap(),
            "/1.0/images/ubuntu:noble%2Famd64/refresh?vm=true&arch=arm64"
        );
        assert!(target("..", &machine, &[]).is_err());
    }
}
