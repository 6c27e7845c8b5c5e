//! Finds the addresses of image servers, and keeps a public one from leading into a private network by a name that means an
//! address there.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Whether the operator allows that a public one leads into a private network.
    is_allowed: bool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Those of the remote's own hosts that are in a private network. They may lead to others there.
    private: HashSet<String>,
    /// Hosts that redirects led to, each with those of the remote's own that led there.
    led_to: HashMap<String, HashSet<String>>,
}

/// A name means only addresses that it must not mean.
#[derive(Debug, thiserror::Error)]
#[error("{0} is in a private network, and a server on the internet led to it")]
struct Private(String);

impl Resolver {
    /// The resolver of a remote with these URLs, its proxy's among them. Whoever allows that a public one leads into a private network says so.
    pub fn new<'a>(urls: impl IntoIterator<Item = &'a Url>, private: bool) -> Self {
        let urls: Vec<&Url> = urls.into_iter().collect();
        let own = urls.iter().filter_map(|url| url.host_str()).map(str::to_owned).collect();
        let private_ones =
            urls.iter().filter(|url| redirect::is_private(url)).filter_map(|url| url.host_str()).map(str::to_owned).collect();
        let known = Mutex::new(Known { private: private_ones, led_to: HashMap::new() });
        Self(Arc::new(State { own, is_allowed: private, known }))
    }

    /// Notes that a redirect of `origin`, which is one of the remote's own URLs, leads there.
    pub fn led_to(&self, origin: &Url, url: &Url) {
        let (Some(origin), Some(host)) = (origin.host_str(), url.host_str().filter(|host| !self.0.is_own(host))) else { return };
        let led_to = &mut self.0.known().led_to;
        if led_to.len() < MOST_NAMES || led_to.contains_key(host) {
            led_to.entry(host.to_owned()).or_default().insert(origin.to_owned());
        }
    }
}

impl State {
    fn is_own(&self, host: &str) -> bool {
        self.own.iter().any(|own| own == host)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of a host that may be used.
    fn sift(&self, host: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Private> {
        let is_private = |address: &SocketAddr| redirect::is_private_address(address.ip());
        let mut known = self.known();
        if self.is_own(host) {
            if addresses.iter().any(is_private) {
                known.private.insert(host.to_owned());
            }
            return Ok(addresses);
        }
        if self.is_allowed || !known.is_led_by_a_public_one(host) {
            return Ok(addresses);
        }
        let public: Vec<SocketAddr> = addresses.into_iter().filter(|address| !is_private(address)).collect();
        if public.is_empty() { Err(Private(host.to_owned())) } else { Ok(public) }
    }
}

impl Known {
    /// Whether one of the remote's own hosts that is on the internet, or of which nobody knows yet, led to a host.
    fn is_led_by_a_public_one(&self, host: &str) -> bool {
        match self.led_to.get(host) {
            Some(origins) => !origins.is_subset(&self.private),
            // Hosts that there was no room for may have been led to by anybody.
            None => self.led_to.len() == MOST_NAMES,
        }
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
        resolver.led_to(&url("https://images.example"), &url("https://cdn.example/x"));
        let sift = |host, texts: &[&str]| resolver.0.sift(host, addresses(texts)).map_err(|error| error.to_string());
        assert_eq!(sift("images.example", &["203.0.113.1"]), Ok(addresses(&["203.0.113.1"])));
        assert_eq!(sift("cdn.example", &["203.0.113.2", "10.0.0.1"]), Ok(addresses(&["203.0.113.2"])));
        assert!(sift("cdn.example", &["10.0.0.1", "::1"]).is_err_and(|error| error.contains("cdn.example is in a private network")));
        assert!(sift("proxy.corp", &["10.0.0.3"]).is_ok(), "nobody led there: it is what the operator configured");
        let allowed = Resolver::new(&[url("https://images.example")], true);
        allowed.led_to(&url("https://images.example"), &url("https://cdn.example/x"));
        assert!(allowed.0.sift("cdn.example", addresses(&["10.0.0.1"])).is_ok());
    }

    #[test]
    fn a_server_in_a_private_network_may_lead_to_others_there() {
        let by_address = Resolver::new(&[url("http://10.0.0.1")], false);
        by_address.led_to(&url("http://10.0.0.1"), &url("http://store.lan/x"));
        assert!(by_address.0.sift("store.lan", addresses(&["10.0.0.2"])).is_ok());
        let by_name = Resolver::new(&[url("http://images.lan")], false);
        by_name.led_to(&url("http://images.lan"), &url("http://store.lan/x"));
        assert!(by_name.0.sift("store.lan", addresses(&["10.0.0.2"])).is_err(), "nobody knows yet where it is itself");
        by_name.led_to(&url("http://images.lan"), &url("http://store.lan/x"));
        assert!(by_name.0.sift("images.lan", addresses(&["10.0.0.1"])).is_ok());
        assert!(by_name.0.sift("store.lan", addresses(&["10.0.0.2"])).is_ok());
    }

    #[test]
    fn that_one_server_is_in_a_private_network_allows_nothing_to_the_public_one_beside_it() {
        let (own, public) = (url("http://10.0.0.1"), url("https://images.example"));
        let resolver = Resolver::new(&[own.clone(), public.clone()], false);
        resolver.led_to(&public, &url("https://router.lan/x"));
        assert!(resolver.0.sift("router.lan", addresses(&["10.0.0.2"])).is_err());
        resolver.led_to(&own, &url("https://router.lan/x"));
        assert!(resolver.0.sift("router.lan", addresses(&["10.0.0.2"])).is_err(), "both led there, and nobody knows whose turn it is");
        resolver.led_to(&own, &url("https://store.lan/x"));
        assert!(resolver.0.sift("store.lan", addresses(&["10.0.0.2"])).is_ok());
    }

    #[tokio::test]
    async fn names_are_looked_up_where_the_machine_looks_them_up() {
        use reqwest::dns::Resolve as _;
        let resolver = Resolver::new(&[url("https://images.example")], false);
        let found = resolver.resolve("localhost".parse().unwrap()).await.unwrap().count();
        assert!(found > 0);
        resolver.led_to(&url("https://images.example"), &url("https://localhost/x"));
        assert!(resolver.resolve("localhost".parse().unwrap()).await.is_err());
    }
}
