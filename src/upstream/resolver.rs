//! Finds the addresses of image servers, and keeps a public one from leading into a private network by a name that means an
//! address there.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::upstream::redirect;

/// So many names are remembered that redirects led to; if there are more, every name that is not configured may be one.
const MOST_NAMES: usize = 1024;

/// The resolver of one remote. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Resolver(Arc<State>);

#[derive(Debug)]
struct State {
    /// The remote's own hosts, as they are configured.
    own: Vec<String>,
    /// Whether one of them is in a private network, or the operator allows it: then they may lead to others there.
    is_private: AtomicBool,
    /// Hosts that redirects led to.
    led_to: Mutex<HashSet<String>>,
}

/// A name means only addresses that it must not mean.
#[derive(Debug, thiserror::Error)]
#[error("{0} is in a private network, and a server on the internet led to it")]
struct Private(String);

impl Resolver {
    /// The resolver of a remote with these URLs. Whoever allows that a public one leads into a private network says so.
    pub fn new(urls: &[Url], private: bool) -> Self {
        let own = urls.iter().filter_map(Url::host_str).map(str::to_owned).collect();
        let is_private = AtomicBool::new(private || urls.iter().any(redirect::is_private));
        Self(Arc::new(State { own, is_private, led_to: Mutex::default() }))
    }

    /// Notes that a redirect leads there.
    pub fn led_to(&self, url: &Url) {
        let Some(host) = url.host_str().filter(|host| !self.0.is_own(host)) else { return };
        let mut led_to = self.0.led_to.lock().unwrap_or_else(PoisonError::into_inner);
        if led_to.len() < MOST_NAMES {
            led_to.insert(host.to_owned());
        }
    }
}

impl State {
    fn is_own(&self, host: &str) -> bool {
        self.own.iter().any(|own| own == host)
    }

    /// The addresses of a host that may be used.
    fn sift(&self, host: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Private> {
        let is_private = |address: &SocketAddr| redirect::is_private_address(address.ip());
        if self.is_own(host) {
            if addresses.iter().any(is_private) {
                self.is_private.store(true, Ordering::Relaxed);
            }
            return Ok(addresses);
        }
        let mut led_to = self.led_to.lock().unwrap_or_else(PoisonError::into_inner);
        let is_led = led_to.contains(host) || led_to.len() == MOST_NAMES;
        if self.is_private.load(Ordering::Relaxed) || !is_led {
            return Ok(addresses);
        }
        let public: Vec<SocketAddr> = addresses.into_iter().filter(|address| !is_private(address)).collect();
        if public.is_empty() {
            led_to.remove(host);
            return Err(Private(host.to_owned()));
        }
        Ok(public)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let sifted: Addrs = Box::new(state.sift(name.as_str(), addresses)?.into_iter());
            Ok(sifted)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use reqwest::Url;

    use crate::upstream::resolver::Resolver;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect()
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_public_server_leads_into_no_private_network_by_a_name() {
        let resolver = Resolver::new(&[url("https://images.example")], false);
        resolver.led_to(&url("https://cdn.example/x"));
        let sift = |host, texts: &[&str]| resolver.0.sift(host, addresses(texts)).map_err(|error| error.to_string());
        assert_eq!(sift("images.example", &["203.0.113.1"]), Ok(addresses(&["203.0.113.1"])));
        assert_eq!(sift("cdn.example", &["203.0.113.2", "10.0.0.1"]), Ok(addresses(&["203.0.113.2"])));
        assert!(sift("cdn.example", &["10.0.0.1", "::1"]).is_err_and(|error| error.contains("cdn.example is in a private network")));
        assert!(sift("proxy.corp", &["10.0.0.3"]).is_ok(), "nobody led there: it is what the operator configured");
        let allowed = Resolver::new(&[url("https://images.example")], true);
        allowed.led_to(&url("https://cdn.example/x"));
        assert!(allowed.0.sift("cdn.example", addresses(&["10.0.0.1"])).is_ok());
    }

    #[test]
    fn a_server_in_a_private_network_may_lead_to_others_there() {
        let by_address = Resolver::new(&[url("http://10.0.0.1")], false);
        by_address.led_to(&url("http://store.lan/x"));
        assert!(by_address.0.sift("store.lan", addresses(&["10.0.0.2"])).is_ok());
        let by_name = Resolver::new(&[url("http://images.lan")], false);
        by_name.led_to(&url("http://store.lan/x"));
        assert!(by_name.0.sift("store.lan", addresses(&["10.0.0.2"])).is_err(), "nobody knows yet where it is itself");
        by_name.led_to(&url("http://store.lan/x"));
        assert!(by_name.0.sift("images.lan", addresses(&["10.0.0.1"])).is_ok());
        assert!(by_name.0.sift("store.lan", addresses(&["10.0.0.2"])).is_ok());
    }

    #[tokio::test]
    async fn names_are_looked_up_where_the_machine_looks_them_up() {
        use reqwest::dns::Resolve as _;
        let resolver = Resolver::new(&[url("https://images.example")], false);
        let found = resolver.resolve("localhost".parse().unwrap()).await.unwrap().count();
        assert!(found > 0);
        resolver.led_to(&url("https://localhost/x"));
        assert!(resolver.resolve("localhost".parse().unwrap()).await.is_err());
    }
}
