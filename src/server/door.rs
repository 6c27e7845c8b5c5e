//! What every connection of a host shares, and what is known of one request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::HeaderMap;

use crate::cache::Cache;
use crate::cache::current::Current;
use crate::clock::Clock;
use crate::digest::Expected;
use crate::fetch::Fetcher;
use crate::fetch::shares::Shares;
use crate::metrics::Metrics;
use crate::server::access::{Form, Scribe};

/// What may go over plain HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// Files; for the rest there is a redirect to HTTPS.
    Files,
    /// Everything: a proxy in front does the TLS.
    All,
    /// Nothing.
    Off,
}

/// The bounds of connections.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many there may be.
    pub connections: usize,
    /// How long a head of a request may be, in bytes.
    pub header_bytes: usize,
    /// How long a handshake, a head of a request, or a pause between requests may take.
    pub header_timeout: Duration,
    /// How long a host may take no byte of what is sent to it.
    pub write_timeout: Duration,
    /// How long a host waits for upstream's first answer.
    pub answer_timeout: Duration,
    /// How many hosts may read one file at once.
    pub file_readers: usize,
    /// How long a file that came with wrong bytes is not fetched again.
    pub retry_wrong: Duration,
}

/// What can be changed while the server runs.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What may go over plain HTTP.
    pub plain_http: PlainHttp,
    /// Whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// In which form requests are logged, if they are.
    pub access_log: Option<Form>,
}

/// What all connections share.
#[derive(Debug)]
pub struct Door {
    /// What is served.
    pub current: Current,
    /// Who has the files.
    pub fetcher: Arc<Fetcher>,
    /// What is held of them.
    pub cache: Arc<Cache>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who writes the access log.
    pub scribe: Scribe,
    /// The bounds.
    pub bounds: Bounds,
    /// Who reads which file.
    pub readers: Shares<Expected>,
    /// What the operator said.
    pub policy: ArcSwap<Policy>,
}

/// Who asks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address at the other end.
    pub address: IpAddr,
    /// Whether it speaks TLS.
    pub is_tls: bool,
}

impl Policy {
    /// Who asks in truth: behind proxies that are trusted, the one that they name.
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        if !self.trusted_proxies.contains(&peer.address.to_canonical()) {
            return peer;
        }
        let forwarded =
            headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        // From the right: what stands before one that is not trusted, or that cannot be read, anybody may have written there.
        let addresses: Vec<Option<IpAddr>> = forwarded.map(|address| forwarded_address(address.trim())).collect();
        let is_trusted = |address: &Option<IpAddr>| address.is_some_and(|address| self.trusted_proxies.contains(&address.to_canonical()));
        let address = addresses.into_iter().rev().find(|address| !is_trusted(address)).flatten();
        let is_tls = peer.is_tls || headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
        Peer { address: address.unwrap_or(peer.address), is_tls }
    }
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    let alone = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    alone.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use crate::server::door::{Peer, PlainHttp, Policy};

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let proxy = "10.0.0.1".parse().unwrap();
        let policy = Policy { plain_http: PlainHttp::All, trusted_proxies: vec![proxy], access_log: None };
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "1.1.1.1, 192.0.2.7, 10.0.0.1".parse().unwrap());
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        let from = |address: &str| policy.client(Peer { address: address.parse().unwrap(), is_tls: false }, &headers);
        assert_eq!(from("10.0.0.1"), Peer { address: "192.0.2.7".parse().unwrap(), is_tls: true });
        let mut seen_as = |forwarded: &str| {
            headers.insert("x-forwarded-for", forwarded.parse().unwrap());
            policy.client(Peer { address: proxy, is_tls: false }, &headers).address.to_string()
        };
        assert_eq!(seen_as("1.1.1.1, 192.0.2.7:4711"), "192.0.2.7");
        assert_eq!(seen_as("1.1.1.1, [2001:db8::1]:80"), "2001:db8::1");
        assert_eq!(seen_as("1.1.1.1, [2001:db8::1]"), "2001:db8::1");
        assert_eq!(seen_as("1.1.1.1, unknown"), "10.0.0.1", "what anybody may have written is not believed");
        assert_eq!(seen_as("1.1.1.1, unknown, 10.0.0.1"), "10.0.0.1");
        headers.insert("x-forwarded-for", "1.1.1.1, 192.0.2.7, 10.0.0.1".parse().unwrap());
        let from = |address: &str| policy.client(Peer { address: address.parse().unwrap(), is_tls: false }, &headers);
        assert_eq!(from("10.0.0.2"), Peer { address: "10.0.0.2".parse().unwrap(), is_tls: false });
    }
}
