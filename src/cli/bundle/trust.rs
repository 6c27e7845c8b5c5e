//! Says whose bundles a site takes.

use std::path::{Path, PathBuf};

use clap::Args;
use hyper::Method;

use crate::api::{TrustRequest, TrustedKey};
use crate::cli::admin::{Target, ask, body};
use crate::cli::bundle::key::read_public_key;
use crate::cli::exit::Failure;
use crate::cli::table::{Format, print};

/// Which key.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The public key of whoever makes bundles for this site; without it, show the keys that are trusted
    #[arg(value_name = "PUB")]
    key: Option<PathBuf>,
    /// Trust the key of this name no more
    #[arg(long, value_name = "NAME", conflicts_with = "key")]
    remove: Option<String>,
}

/// Does it.
pub async fn run(socket: &Path, format: Format, arguments: &Arguments) -> Result<(), Failure> {
    match (&arguments.key, &arguments.remove) {
        (Some(key), _) => {
            let pem = read_public_key(key)?.to_pem();
            let name: String = ask(socket, Method::POST, "/1.0/bundles/trusted", body(&TrustRequest { pem })?).await?;
            println!("{name}");
            Ok(())
        }
        (None, Some(name)) => {
            let target = Target::new(&["1.0", "bundles", "trusted", name])?.to_string();
            ask::<String>(socket, Method::DELETE, &target, Vec::new()).await.map(drop)
        }
        (None, None) => {
            let keys: Vec<TrustedKey> = ask(socket, Method::GET, "/1.0/bundles/trusted", Vec::new()).await?;
            let rows: Vec<Vec<String>> = keys.iter().map(|key| vec![key.name.clone()]).collect();
            print(format, &["KEY"], &rows, &keys)
        }
    }
}
