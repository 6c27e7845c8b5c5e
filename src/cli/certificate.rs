//! `cistern certificate`
//!
//! Works on the store's folder itself: a certificate is wanted before the server runs, too.

use std::path::Path;

use clap::Subcommand;

use crate::cli::exit::{FAILED, Failure};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::disk::{Disk as _, OsDisk};
use crate::store::layout::Layout;
use crate::tls::authority::Authority;
use crate::tls::names;

/// What to do with the certificate.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Print the certificate that hosts are to trust, as PEM
    Show,
    /// Print what makes a host trust this server
    Trust,
    /// Make the server's certificate anew; the CA that hosts trust stays
    Renew,
}

/// Shows the CA, says how to trust it, or renews what it signed.
pub fn run(path: Option<&Path>, command: Command) -> Result<(), Failure> {
    let config = Config::load(&OsDisk, path)?;
    if config.certificate.is_some() {
        return operators_own(&config, command);
    }
    let folder = Layout::new(&config.file.storage.path).tls();
    OsDisk.create_directory(&folder).map_err(|error| Failure::new(FAILED, format!("cannot use {}: {error}", folder.display())))?;
    let authority = Authority::new(&OsDisk, &folder);
    let failed = |error| Failure::new(FAILED, error);
    let ca = authority.ca(SystemClock.now()).map_err(failed)?;
    match command {
        Command::Show => print!("{ca}"),
        Command::Trust => print!("{}", trust(&ca, config.file.server.listen.first().map_or(443, std::net::SocketAddr::port))),
        Command::Renew => {
            authority.server(&names::of_this_machine(&config.certificate_names()), SystemClock.now(), true).map_err(failed)?;
            println!("made; a running server takes it on SIGHUP (systemctl reload cistern)");
        }
    }
    Ok(())
}

fn operators_own(config: &Config, command: Command) -> Result<(), Failure> {
    match command {
        Command::Show | Command::Trust => {
            let path = &config.file.tls.certificate;
            println!("# {} is the operator's own; hosts must trust whoever issued it", path.display());
            Ok(())
        }
        Command::Renew => Err(Failure::new(FAILED, "tls.certificate is set: renew that file where it comes from, then send SIGHUP")),
    }
}

fn trust(ca: &str, port: u16) -> String {
    let indented: String = ca.lines().flat_map(|line| ["      ", line, "\n"]).collect();
    format!(
        "# 1. The system's trust store, on each host. Daemons see it after a restart.\n\
         cat > /usr/local/share/ca-certificates/cistern.crt <<'END'\n{ca}END\n\
         update-ca-certificates\n\
         systemctl restart snap.lxd.daemon || systemctl restart incus\n\
         lxc remote add mirror https://THIS-SERVER:{port} --protocol=simplestreams\n\
         \n\
         # 2. Or for one user's lxc and one remote alone: pin the CA, which stays the same when certificates are renewed.\n\
         lxc remote add mirror https://THIS-SERVER:{port} --protocol=simplestreams\n\
         mkdir -p ~/snap/lxd/common/config/servercerts    # without snap: ~/.config/lxc/servercerts; Incus: ~/.config/incus/servercerts\n\
         cat > ~/snap/lxd/common/config/servercerts/mirror.crt <<'END'\n{ca}END\n\
         \n\
         # 3. Or in cloud-init, for hosts that are still to be made:\n\
         #cloud-config\n\
         ca_certs:\n  trusted:\n    - |\n{indented}"
    )
}
