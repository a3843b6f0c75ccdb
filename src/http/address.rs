//! Whose connection it is: the peer's address, or what trusted proxies say of it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};

/// Headers by which a proxy tells that it is one.
const FORWARDING: [&str; 4] = ["x-forwarded-for", "forwarded", "x-real-ip", "via"];

/// The networks of `http.trusted_proxies`.
#[derive(Clone, Debug, Default)]
pub(super) struct TrustedProxies(Vec<Network>);

#[derive(Clone, Copy, Debug)]
struct Network {
    base: IpAddr,
    prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("http.trusted_proxies: {0:?} is not an address or a network such as \"10.0.0.0/8\"")]
pub struct InvalidNetwork(String);

impl TrustedProxies {
    pub(super) fn new(networks: &[String]) -> Result<Self, InvalidNetwork> {
        let read = |text: &String| Network::read(text).ok_or_else(|| InvalidNetwork(text.clone()));
        networks.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The right-most address of `X-Forwarded-For` that is no trusted proxy: everything left of it is hearsay.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let values = headers.get_all("x-forwarded-for").iter().rev();
        for hop in values.flat_map(|value| value.as_bytes().rsplit(|b| *b == b',')) {
            if !self.contains(client) {
                break;
            }
            let Some(address) = std::str::from_utf8(hop).ok().and_then(read_hop) else {
                break;
            };
            client = address;
        }
        client
    }

    /// The peer, unless it is a proxy: then it stands for many.
    pub(super) fn peer(&self, peer: IpAddr) -> Option<IpAddr> {
        (!self.contains(peer.to_canonical())).then_some(peer)
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn read(text: &str) -> Option<Self> {
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().ok()?;
        let widest = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(widest);
        (prefix <= widest).then_some(Self { base, prefix })
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix);
                base.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix);
                base.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
fn read_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// What `limits.streams_per_address` counts by: an IPv6 host has a /64 to choose addresses from.
pub(super) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

/// Whether somebody on this machine asks by themselves: behind a proxy on this machine everybody's peer is loopback,
/// and in a browser on it everybody's page, once their name resolves to it (DNS rebinding): such a page sends its name.
pub(super) fn is_local(peer: IpAddr, headers: &HeaderMap) -> bool {
    let forwarded = FORWARDING.iter().any(|name| headers.contains_key(*name));
    peer.to_canonical().is_loopback() && !forwarded && headers.get_all(HOST).iter().all(names_this_machine)
}

/// An address or `localhost`, with or without a port.
fn names_this_machine(host: &HeaderValue) -> bool {
    let Some(authority) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else {
        return false;
    };
    let host = authority.host();
    !authority.as_str().contains('@') && (host.eq_ignore_ascii_case("localhost") || read_hop(host).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let trusted: Vec<_> = trusted.iter().map(|&t| t.to_owned()).collect();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let proxies = TrustedProxies::new(&trusted).unwrap();
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(client(&[], "10.0.0.1", &["1.1.1.1"]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["1.1.1.1"]), "1.1.1.1");
        assert_eq!(client(&["10.0.0.0/8"], "11.0.0.1", &["1.1.1.1"]), "11.0.0.1");
        assert_eq!(client(&["10.0.0.0/8"], "::ffff:10.0.0.1", &["1.1.1.1"]), "1.1.1.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_right_most_untrusted_hop_is_the_client() {
        let trusted = ["10.0.0.0/8", "fd00::/8"];
        assert_eq!(client(&trusted, "10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.2.2.2"]), "1.1.1.1");
        assert_eq!(client(&trusted, "10.0.0.1", &["6.6.6.6", "1.1.1.1", "fd00::1"]), "1.1.1.1");
        assert_eq!(client(&trusted, "10.0.0.1", &["1.1.1.1:80"]), "1.1.1.1");
        assert_eq!(client(&trusted, "10.0.0.1", &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(client(&trusted, "10.0.0.1", &["6.6.6.6, unknown"]), "10.0.0.1");
        assert_eq!(client(&["0.0.0.0/0"], "10.0.0.1", &["1.1.1.1, 2.2.2.2"]), "1.1.1.1");
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "proxy", "10.0.0.0/"] {
            assert_eq!(TrustedProxies::new(&[text.to_owned()]).unwrap_err(), InvalidNetwork(text.to_owned()));
        }
    }

    #[test]
    fn a_host_with_many_ipv6_addresses_counts_once() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(counted(address("2001:db8:1:2:3:4:5:6")), counted(address("2001:db8:1:2::1")));
        assert_ne!(counted(address("2001:db8:1:2::1")), counted(address("2001:db8:1:3::1")));
        assert_eq!(counted(address("::ffff:1.2.3.4")), address("1.2.3.4"));
    }

    #[test]
    fn who_comes_through_a_proxy_is_not_local() {
        let loopback = "127.0.0.1".parse().unwrap();
        let mut headers = HeaderMap::new();
        assert!(is_local(loopback, &headers));
        assert!(!is_local("10.0.0.1".parse().unwrap(), &headers));
        headers.insert("x-forwarded-for", "127.0.0.1".parse().unwrap());
        assert!(!is_local(loopback, &headers));
    }

    #[test]
    fn a_name_that_resolves_to_this_machine_is_not_local() {
        let is_local = |host: &str| {
            let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
            super::is_local("::1".parse().unwrap(), &headers)
        };
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]", "[::1]:8080", "10.0.0.1"] {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "u@localhost", "a b"]
        {
            assert!(!is_local(host), "{host}");
        }
    }
}
