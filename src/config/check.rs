//! What values must be beyond their type.

mod access;
mod preset;

use std::net::IpAddr;
use std::time::Duration;

use super::{ByteSize, Config};

pub(super) use preset::check as check_preset;

const MIB: u64 = 1 << 20;

/// What is wrong, as pairs of a setting's name and what it must be.
pub(super) fn check(config: &Config) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    let mut must = |holds: bool, name: &'static str, text: &str| {
        if !holds {
            wrong.push((name, format!("{name} must be {text}")));
        }
    };

    if let Some(url) = &config.database.url {
        let known = ["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme));
        must(known, "database.url", "a URL such as \"postgres://user@localhost:5432/app\"");
    }
    check_source(config, &mut must);
    check_bounds(config, &mut must);
    check_http(config, &mut must);
    must(
        config.canary.interval.is_zero() || config.canary.stale_after >= 2 * config.canary.interval,
        "canary.stale_after",
        "at least twice canary.interval: a healthy canary is up to one interval old",
    );
    for channel in config.channels.extra.iter().filter(|channel| !is_name(channel)) {
        must(false, "channels.extra", &format!("{NAMES}; {channel:?} is not"));
    }
    wrong.extend(access::check(&config.access));
    wrong
}

fn check_source(config: &Config, must: &mut impl FnMut(bool, &'static str, &str)) {
    let slot_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let slot_fits = config
        .source
        .slot
        .as_ref()
        .is_none_or(|slot| (1..=63).contains(&slot.len()) && slot.bytes().all(slot_byte));
    must(slot_fits, "source.slot", "a slot's name: at most 63 of a-z, 0-9 and _");
    must(
        (1..=63).contains(&config.source.publication.len()),
        "source.publication",
        "a name of 1 to 63 bytes",
    );

    let outbox_fits = config
        .source
        .max_outbox
        .is_none_or(|size| size.0 == 0 || size.0 >= config.replay.max_wal.0.saturating_mul(2));
    must(
        outbox_fits,
        "source.max_outbox",
        "at least twice replay.max_wal, which the outbox holds while a worker reads; 0 is no end",
    );
}

fn check_bounds(config: &Config, must: &mut impl FnMut(bool, &'static str, &str)) {
    let at_least = |size: ByteSize, least: u64| size >= ByteSize(least);
    must(at_least(config.source.max_transaction, 64 << 10), "source.max_transaction", "at least \"64KiB\"");
    must(at_least(config.source.max_row, MIB), "source.max_row", "at least \"1MiB\"");
    must(config.replay.max_age >= Duration::from_secs(1), "replay.max_age", "at least \"1s\"");
    must(at_least(config.replay.max_memory, MIB), "replay.max_memory", "at least \"1MiB\"");
    must(
        at_least(config.replay.max_wal, 16 * MIB),
        "replay.max_wal",
        "at least \"16MiB\", a segment of the log",
    );
    must(at_least(config.journal.max_event, 1 << 10), "journal.max_event", "at least \"1KiB\"");
    must(
        config.journal.max_event <= config.replay.max_memory,
        "journal.max_event",
        "at most replay.max_memory: an event must fit in the journals",
    );
    must(at_least(config.mirror.max_memory, MIB), "mirror.max_memory", "at least \"1MiB\"");
}

fn check_http(config: &Config, must: &mut impl FnMut(bool, &'static str, &str)) {
    must(config.http.keepalive >= Duration::from_millis(100), "http.keepalive", "at least \"100ms\"");
    must(config.http.write_timeout >= Duration::from_secs(1), "http.write_timeout", "at least \"1s\"");
    must(
        config.http.admin_listen.is_none_or(|admin| admin != config.http.listen || admin.port() == 0),
        "http.admin_listen",
        "another address than http.listen",
    );
    for origin in config.http.allowed_origins.iter().filter(|origin| !is_origin(origin)) {
        let text = "origins such as \"https://app.example.com\": scheme, host in lower case, port unless it is the default";
        must(false, "http.allowed_origins", &format!("{text}; {origin:?} is not"));
    }
    for proxy in config.http.trusted_proxies.iter().filter(|proxy| !is_network(proxy)) {
        let text = format!("addresses or networks such as \"10.0.0.0/8\"; {proxy:?} is not");
        must(false, "http.trusted_proxies", &text);
    }
}

const NAMES: &str = "names of 1 to 100 of A-Z, a-z, 0-9 and ._:-";

/// `[A-Za-z0-9._:-]{1,100}`: what channels, types and tags are called.
fn is_name(name: &str) -> bool {
    (1..=100).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
}

/// An origin exactly as browsers serialize it (RFC 6454, 6.2): anything else would never match.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    if authority.ends_with(default_port) {
        return false;
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port_fits = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        }
    };
    port_fits && host_fits
}

/// An address, or a network in CIDR notation.
fn is_network(text: &str) -> bool {
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    prefix.is_none_or(|prefix| prefix.parse::<u8>().is_ok_and(|bits| bits <= most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for right in [
            "https://app.example.com",
            "http://localhost:3000",
            "http://[::1]:8080",
            "https://xn--bcher-kva.example",
        ] {
            assert!(is_origin(right), "{right}");
        }
        for wrong in [
            "app.example.com",
            "https://app.example.com/",
            "https://App.example.com",
            "https://app.example.com:443",
            "http://localhost:80",
            "ftp://a",
            "*",
            "null",
            "https://",
            "https://a:",
            "https://a:0",
            "https://*.example.com",
            "https://user@a",
        ] {
            assert!(!is_origin(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_network_is_an_address_with_or_without_a_prefix() {
        for right in ["10.0.0.0/8", "127.0.0.1", "::1", "fd00::/8"] {
            assert!(is_network(right), "{right}");
        }
        for wrong in ["10.0.0.0/33", "10.0.0", "localhost", "::1/129", "10.0.0.0/"] {
            assert!(!is_network(wrong), "{wrong}");
        }
    }
}
