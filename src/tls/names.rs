//! The names that a certificate of ours is for.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// What hosts may call this machine: `localhost`, its host name, the addresses of its interfaces, and `extra` ones.
pub fn of_this_machine(extra: &[String]) -> BTreeSet<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let addresses = interfaces.iter().map(if_addrs::Interface::ip).filter(|address| !is_link_local(*address));
    let loopback = ["localhost", "127.0.0.1", "::1"].map(ToOwned::to_owned);
    let named = addresses.map(|address| address.to_string()).chain([host]).chain(loopback).chain(extra.iter().cloned());
    named.filter(|name| !name.is_empty()).collect()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
