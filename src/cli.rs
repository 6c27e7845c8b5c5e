//! What is typed: arguments in, exit code out.

pub mod admin;
pub mod bundle;
pub mod cache;
pub mod certificate;
pub mod completion;
pub mod configuration;
pub mod exit;
pub mod image;
pub mod logging;
pub mod plain;
pub mod remote;
pub mod serve;
pub mod table;
pub mod trial;
pub mod upload;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::cli::exit::Failure;
use crate::cli::table::Format;

/// A caching proxy and mirror for LXD and Incus image servers.
#[derive(Debug, Parser)]
#[command(name = "cistern", version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve {
        /// The configuration [default: /etc/cistern/cistern.toml, else built-in defaults]
        #[arg(long, value_name = "FILE", env = "CISTERN_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Run a sample image server and a mirror of it on loopback, with nothing to configure
    Demo {
        /// Where the mirror listens [default: 127.0.0.1:9443, or any free port]
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
        /// Fetch an image cold and warm, print both, and exit
        #[arg(long)]
        once: bool,
    },
    /// Check or show the configuration
    #[command(subcommand)]
    Config(configuration::Command),
    /// Show the certificate of the CA, or what makes a host trust it
    Certificate {
        /// The configuration [default: /etc/cistern/cistern.toml, else built-in defaults]
        #[arg(long, value_name = "FILE", env = "CISTERN_CONFIG", global = true)]
        config: Option<PathBuf>,
        #[command(subcommand)]
        command: certificate::Command,
    },
    /// List or refresh remotes of the running server
    Remote {
        #[command(flatten)]
        server: ServerArguments,
        #[command(subcommand)]
        command: remote::Command,
    },
    /// List, show, bring in and let go images of the running server
    Image {
        #[command(flatten)]
        server: ServerArguments,
        #[command(subcommand)]
        command: image::Command,
    },
    /// Show, prune or verify what the running server holds
    Cache {
        #[command(flatten)]
        server: ServerArguments,
        #[command(subcommand)]
        command: cache::Command,
    },
    /// Carry images to where there is no way to an image server
    Bundle {
        #[command(flatten)]
        server: ServerArguments,
        #[command(subcommand)]
        command: bundle::Command,
    },
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// How the running server is found.
#[derive(Debug, clap::Args)]
pub struct ServerArguments {
    /// The admin socket of the server [default: the configuration's]
    #[arg(long, value_name = "PATH", env = "CISTERN_SOCKET", global = true)]
    socket: Option<PathBuf>,
    /// The configuration that names the socket [default: /etc/cistern/cistern.toml, else built-in defaults]
    #[arg(long, value_name = "FILE", env = "CISTERN_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// How lists are printed
    #[arg(long, value_enum, default_value_t, global = true)]
    format: Format,
}

/// Runs the program; errors become one line and an exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    exit::end_with_output();
    // A shell that asks for completions gets them, and nothing else is done.
    clap_complete::CompleteEnv::with_factory(Arguments::command).var(completion::VARIABLE).complete();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors to clap either; if nobody reads them, nothing is lost.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::WRONG_USAGE));
        }
    };
    match execute(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cistern: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve { config } => serve::run(config.as_deref()),
        Command::Demo { listen, once } => trial::run(listen, once),
        Command::Config(command) => configuration::run(&command),
        Command::Certificate { config, command } => certificate::run(config.as_deref(), command),
        Command::Remote { server, command } => {
            let socket = admin::socket(server.socket, server.config.as_deref())?;
            remote::run(&socket, server.format, &command)
        }
        Command::Image { server, command } => {
            let socket = admin::socket(server.socket, server.config.as_deref())?;
            image::run(&socket, server.format, &command)
        }
        Command::Cache { server, command } => {
            let socket = admin::socket(server.socket, server.config.as_deref())?;
            cache::run(&socket, server.format, &command)
        }
        Command::Bundle { server, command } => bundle::run(server, &command),
        Command::Completions { shell } => completion::register(shell),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use crate::cli::Arguments;

    #[test]
    fn the_arguments_make_sense_to_clap() {
        Arguments::command().debug_assert();
    }
}
