//! What the fuzzers assert of requests: what they ask for, and where they say that they come from.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::address::{TrustedProxies, counted, is_local};
use super::endpoint::{Endpoint, Vocabulary};
use super::parameters::{Begin, Parameters};
use super::query;
use crate::access::fuzzing::headers;
use crate::catalog::is_name;
use crate::config::{self, Channels, Keepalive, Preset};
use crate::live::{Live, Query};

pub use super::emit::fuzzing::emissions;

const MIN_INTERVAL: Duration = Duration::from_secs(5);

const SECRET: &str = "the-token-of-the-fuzzer";

/// Any query on the first line, any headers on those after it. It is refused, or asks for what its endpoint has; a
/// refusal is bounded, and quotes no token.
pub fn requests(data: &[u8]) {
    static ENDPOINTS: LazyLock<Vec<Arc<Endpoint>>> = LazyLock::new(|| {
        let preset = Preset {
            path: "/p".to_owned(),
            channels: vec!["issues".to_owned(), "custom".to_owned()],
            parameters: [("statuses".to_owned(), "status".to_owned())].into(),
            keepalive: Keepalive::default(),
            live: None,
        };
        let live = Preset {
            path: "/l".to_owned(),
            live: Some(config::Live {
                sql: "fuzz.sql".into(),
                arguments: vec!["status".to_owned()],
                parameter: Some("every".to_owned()),
                interval: MIN_INTERVAL,
                min_interval: MIN_INTERVAL,
                text: Some("select $1, $2"),
            }),
            ..preset.clone()
        };
        let queries = Query::load(&live, 1 << 20).into_iter().map(|query| query.expect("a query"));
        let (answers, _) = Live::new(queries);
        let vocabulary = Vocabulary::new(["issues", "lots"], ["priority", "status"], &Channels::default());
        Endpoint::all(&vocabulary, &[preset, live], &answers, &[]).expect("a preset of what there is")
    });
    let (query, rest) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let headers = headers(rest);
    let Ok(query) = std::str::from_utf8(query) else { return };
    for token in ["", SECRET] {
        let query = if token.is_empty() { query.to_owned() } else { format!("{query}&token={token}") };
        for endpoint in &*ENDPOINTS {
            let read = query::Query::read(Some(&query))
                .and_then(|query| Parameters::read(endpoint, &query, &headers));
            match read {
                Ok(parameters) => is_of(endpoint, &parameters, &query, &headers),
                Err(refusal) => {
                    let message = refusal.message();
                    assert!(!message.is_empty() && message.len() <= 6 * query.len() + 400, "{message}");
                    assert!(
                        data.windows(SECRET.len()).any(|part| part == SECRET.as_bytes())
                            || !message.contains(SECRET)
                    );
                }
            }
        }
    }
}

fn is_of(endpoint: &Endpoint, parameters: &Parameters, query: &str, headers: &http::HeaderMap) {
    let Parameters { organization, channels, types, tags, begin, interval, .. } = parameters;
    assert!(
        organization.as_ref().is_none_or(|id| !id.is_empty()) && (organization.is_some() || !endpoint.native)
    );
    assert!(channels.iter().flatten().all(|channel| endpoint.channels.contains(channel)));
    assert!(channels.is_some() || endpoint.native, "a preset's channels are a cap");
    assert!(types.iter().flatten().all(|name| is_name(name)));
    for (at, (tag, values)) in tags.iter().enumerate() {
        assert!(!values.is_empty() && endpoint.tags.iter().any(|(_, known)| known == tag));
        assert!(!tags.iter().skip(at + 1).any(|(other, _)| other == tag), "a tag twice");
    }
    if endpoint.live.is_some() {
        assert!(*begin == Begin::Now && types.is_none() && *interval >= MIN_INTERVAL);
        assert_eq!(channels.as_ref(), Some(&endpoint.channels), "what may change the answer is heard");
    }
    if let Begin::After(id) = begin {
        let header = headers.get("last-event-id").filter(|value| !value.is_empty());
        assert!(
            header.is_none_or(|value| value.as_bytes() == id.to_string().as_bytes()),
            "the header goes first"
        );
        assert!(
            header.is_some()
                || query.contains("lastEventId")
                || query.contains("since")
                || query.contains('%')
        );
    }
}

/// Any headers from a proxy. The client is the peer, or an address that a trusted proxy named; without trust it is the
/// peer, whatever they say.
pub fn addresses(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let headers = headers(rest);
    let peers = ["10.0.0.1", "203.0.113.9", "::1", "::ffff:10.0.0.1", "fd00::1"];
    let peer: IpAddr =
        peers.get(usize::from(*which) % peers.len()).expect("one of them").parse().expect("an address");
    let none = TrustedProxies::default();
    assert_eq!(none.client(peer, &headers), peer.to_canonical());
    let networks = ["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()];
    let trusted = TrustedProxies::new(&networks).expect("networks");
    let client = trusted.client(peer, &headers);
    assert_eq!(client, client.to_canonical());
    if !["10.0.0.1", "::ffff:10.0.0.1", "fd00::1"].map(|text| text.parse().ok()).contains(&Some(peer)) {
        assert_eq!(client, peer.to_canonical(), "nobody there is trusted");
    }
    assert!(client == peer.to_canonical() || headers.contains_key("x-forwarded-for"));
    assert_eq!(counted(counted(client)), counted(client));
    assert!(!is_local(peer, &headers) || (peer.is_loopback() && !headers.contains_key("x-forwarded-for")));
    if let Ok(text) = std::str::from_utf8(rest) {
        // What is no network is refused by name.
        let read = TrustedProxies::new(&[text.to_owned()]);
        assert!(read.is_ok() || read.is_err_and(|error| !error.to_string().is_empty()));
    }
}
