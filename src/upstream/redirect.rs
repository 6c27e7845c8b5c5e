//! Where a redirect of an image server may lead, and with which headers. What names mean is the resolver's to judge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

/// How a redirect is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Where it leads.
    pub url: Url,
    /// Whether the remote's configured headers go along: only to its own origin.
    pub with_headers: bool,
}

/// Why a redirect is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no `Location` that can be read.
    #[error("to nowhere")]
    NoLocation,
    /// There were too many already.
    #[error("more often than limits.redirects allows")]
    TooMany,
    /// It leaves HTTP, or TLS.
    #[error("from https to something less")]
    Scheme,
    /// It leads from a public server into a private network, where it could reach what only we can reach.
    #[error("from a public address to a private one, which remotes.*.private_redirects does not allow")]
    Private,
}

/// How redirects are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How many for one request.
    pub most: usize,
    /// Whether a public server may lead into a private network.
    pub private: bool,
}

/// Decides on a redirect from `from` to `location`, after `followed` others. `origin` is the configured URL.
pub fn decide(origin: &Url, from: &Url, location: Option<&str>, followed: usize, rules: Rules) -> Result<Follow, Refused> {
    let url = location.and_then(|location| from.join(location).ok()).ok_or(Refused::NoLocation)?;
    if followed >= rules.most {
        return Err(Refused::TooMany);
    }
    match (from.scheme(), url.scheme()) {
        ("https" | "http", "https") | ("http", "http") => {}
        _ => return Err(Refused::Scheme),
    }
    if is_private(&url) && !is_private(origin) && !rules.private {
        return Err(Refused::Private);
    }
    let with_headers = url.origin() == origin.origin();
    Ok(Follow { url, with_headers })
}

/// Whether a URL names, as it is written, an address that is not on the public internet.
pub fn is_private(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(address) => is_private_address(address),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Whether an address is not on the public internet.
pub fn is_private_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let is_shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast() || is_shared
        }
        IpAddr::V6(v6) => {
            let is_site_local = v6.segments()[0] & 0xffc0 == 0xfec0 || v6.segments()[..3] == [0x64, 0xff9b, 1];
            is_site_local
                || v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || behind_nat64(v6).is_some_and(is_private_address)
        }
    }
}

/// The address of IPv4 that is reached by one of IPv6: through a translator (RFC 6052 §2.1), as 6to4, or as it was once written.
fn behind_nat64(address: Ipv6Addr) -> Option<IpAddr> {
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into());
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::Url;

    use crate::upstream::redirect::{Refused, Rules, decide};

    const RULES: Rules = Rules { most: 5, private: false };

    fn decided(from: &str, location: &str) -> Result<(String, bool), Refused> {
        let from = Url::parse(from).unwrap();
        decide(&from, &from, Some(location), 0, RULES).map(|follow| (follow.url.to_string(), follow.with_headers))
    }

    #[test]
    fn a_redirect_is_followed_and_secrets_stay_at_home() {
        let from = "https://images.example/streams/v1/index.json";
        assert_eq!(decided(from, "/other"), Ok(("https://images.example/other".to_owned(), true)));
        assert_eq!(decided(from, "https://cdn.example/x"), Ok(("https://cdn.example/x".to_owned(), false)));
        assert_eq!(decided(from, "https://images.example:8443/x"), Ok(("https://images.example:8443/x".to_owned(), false)));
        assert_eq!(decided("http://a.example/", "https://a.example/"), Ok(("https://a.example/".to_owned(), false)));
    }

    #[test]
    fn a_redirect_that_leads_astray_is_refused() {
        let from = "https://images.example/";
        for (location, expected) in [
            ("http://images.example/", Refused::Scheme),
            ("ftp://images.example/", Refused::Scheme),
            ("file:///etc/passwd", Refused::Scheme),
            ("https://127.0.0.1/", Refused::Private),
            ("https://[::1]/", Refused::Private),
            ("https://[::ffff:10.0.0.1]/", Refused::Private),
            ("https://169.254.169.254/latest", Refused::Private),
            ("https://localhost/", Refused::Private),
            ("https://[fd00::1]/", Refused::Private),
            ("https://100.64.0.1/", Refused::Private),
            ("https://[64:ff9b::10.0.0.1]/", Refused::Private),
            ("https://[2002:0a00:0001::1]/", Refused::Private),
            ("https://[::10.0.0.1]/", Refused::Private),
            ("https://[fec0::1]/", Refused::Private),
        ] {
            assert_eq!(decided(from, location), Err(expected), "{location}");
            let url = Url::parse(from).unwrap();
            let allowed = decide(&url, &url, Some(location), 0, Rules { private: true, ..RULES });
            assert_eq!(allowed.is_ok(), expected == Refused::Private, "{location}, where an operator allows that");
        }
        assert!(decided(from, "https://[64:ff9b::203.0.113.1]/").is_ok() && decided(from, "https://100.128.0.1/").is_ok());
        assert!(decided("http://10.0.0.1/", "http://10.0.0.2/").is_ok(), "a private server may lead to another");
        let url = Url::parse(from).unwrap();
        assert_eq!(decide(&url, &url, None, 0, RULES), Err(Refused::NoLocation));
        assert_eq!(decide(&url, &url, Some("/x"), 5, RULES), Err(Refused::TooMany));
    }
}
