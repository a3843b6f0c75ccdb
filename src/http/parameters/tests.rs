use super::super::endpoint::Vocabulary;
use super::*;
use crate::config::{Channels, Preset};
use crate::live;

fn endpoints() -> Vec<Arc<Endpoint>> {
    let preset: Preset = toml::from_str(
        "path = '/p'\nchannels = ['issues', 'custom']\nparameters = { statuses = 'status' }\nkeepalive = { type = 'beat' }",
    )
    .unwrap();
    let vocabulary = Vocabulary::new(["issues", "lots"], ["priority", "status"], &Channels::default());
    let live: Preset = toml::from_str(
        "path = '/l'\nchannels = ['issues']\nparameters = { statuses = 'status' }\n[live]\nsql = 'sql/live/heatmap.sql'\narguments = ['status']\nparameter = 'updateInterval'",
    )
    .unwrap();
    let query = live::Query::load(&live, 1 << 20).unwrap().unwrap();
    Endpoint::all(&vocabulary, &[preset, live], &live::Live::new([query]).0, &[]).unwrap()
}

fn headers(last_event_id: Option<&[u8]>) -> HeaderMap {
    let value = last_event_id.map(|id| http::HeaderValue::from_bytes(id).unwrap());
    value.into_iter().map(|value| (http::HeaderName::from_static(LAST_EVENT_ID), value)).collect()
}

fn read(endpoint: usize, query: &str) -> Result<Parameters, String> {
    let query = Query::read(Some(query)).unwrap();
    Parameters::read(&endpoints()[endpoint], &query, &headers(None)).map_err(|refusal| {
        assert_eq!(refusal.status(), http::StatusCode::BAD_REQUEST);
        refusal.message().to_owned()
    })
}

fn native(query: &str) -> Result<Parameters, String> {
    read(0, &format!("organizationId=a&{query}"))
}

#[test]
fn a_refusal_names_the_parameter_and_what_is_allowed() {
    for (query, message) in [
        (
            "x=1",
            "x: unknown parameter; allowed are organizationId, channel, types, token, ticket, lastEventId, since, keepalive, interval, priority, status",
        ),
        (
            "statuses=open",
            "statuses: unknown parameter; allowed are organizationId, channel, types, token, ticket, lastEventId, since, keepalive, interval, priority, status",
        ),
        ("organizationId=b", "organizationId: given more than once"),
        (
            "channel=lots,none",
            "channel: there is no channel \"none\" here; allowed are custom, issues, lots, presence",
        ),
        ("types=a,b!", "types: event types, 1 to 100 of A-Z a-z 0-9 . _ : - each, between commas"),
        ("since=yesterday", "since: allowed are earliest, an event id, a duration such as 5m"),
        ("since=5m&since=5m", "since: given more than once"),
        ("lastEventId=1&lastEventId=2", "lastEventId: given more than once"),
        ("keepalive=frame", "keepalive: allowed are comment, event"),
        ("interval=9", "interval: allowed are 10ms to 60s, as a duration such as 500ms or in milliseconds"),
    ] {
        assert_eq!(native(query).unwrap_err(), message);
    }
    assert_eq!(read(0, "").unwrap_err(), "organizationId: required, the id of one organization");
    assert_eq!(
        read(0, "organizationId=").unwrap_err(),
        "organizationId: required, the id of one organization"
    );
}

#[test]
fn filters_are_lists_and_an_empty_one_is_none() {
    let all = native("channel=&types=&status=").unwrap();
    assert_eq!((all.channels, all.types, all.tags.len()), (None, None, 0));
    let some =
        native("channel=lots,issues&channel=custom&types=issue:created&status=open,closed&priority=low")
            .unwrap();
    assert_eq!(joined(&some.channels.unwrap()), "custom, issues, lots");
    assert_eq!(joined(&some.types.unwrap()), "issue:created");
    let value = |text: &str| Box::<[u8]>::from(text.as_bytes());
    assert_eq!(some.tags, [(0, vec![value("low")]), (1, vec![value("open"), value("closed")])]);
}

#[test]
fn a_preset_ignores_what_it_does_not_know_and_caps_its_channels() {
    let plain = read(1, "x=1&updateInterval=5").unwrap();
    assert_eq!(plain.organization, None);
    assert_eq!(joined(&plain.channels.unwrap()), "custom, issues");
    let narrowed = read(1, "channel=issues&statuses=open&status=closed").unwrap();
    assert_eq!(joined(&narrowed.channels.unwrap()), "issues");
    assert_eq!(narrowed.tags, [(1, vec![Box::from(&b"closed"[..]), Box::from(&b"open"[..])])]);
    assert_eq!(
        read(1, "channel=lots").unwrap_err(),
        "channel: there is no channel \"lots\" here; allowed are custom, issues"
    );
}

#[test]
fn a_stream_starts_after_the_header_then_the_parameter_then_since_then_now() {
    let from = |header: Option<&[u8]>, query: &str| {
        Begin::read(&Query::read(Some(query)).unwrap(), &headers(header)).unwrap()
    };
    let id = |lsn: u64| Begin::After(format!("00000000000000ab.{lsn}.1").parse().unwrap());
    let all = "lastEventId=00000000000000ab.2.1&since=earliest";
    assert_eq!(from(Some(b"00000000000000ab.1.1"), all), id(1));
    assert_eq!(from(None, all), id(2));
    assert_eq!(from(Some(b""), all), id(2));
    assert_eq!(from(Some(b""), "lastEventId=&since=earliest"), Begin::Earliest);
    assert_eq!(from(None, "since=00000000000000ab.3.1"), id(3));
    assert_eq!(from(None, "since=90s"), Begin::Since(Duration::from_secs(90)));
    assert_eq!(from(None, "since="), Begin::Now);
    assert_eq!(from(None, ""), Begin::Now);
    // Present, and none of ours: it never falls through to the next.
    assert_eq!(from(Some(b"42"), all), Begin::Unreadable);
    assert_eq!(from(Some(b"\xff"), ""), Begin::Unreadable);
    assert_eq!(from(None, "lastEventId=x&since=5m"), Begin::Unreadable);
}

#[test]
fn a_keepalive_is_a_frame_where_the_path_or_the_client_asks_for_one() {
    assert_eq!(*native("").unwrap().keepalive, Keepalive::Comment);
    assert_eq!(*native("keepalive=comment").unwrap().keepalive, Keepalive::Comment);
    assert_eq!(*native("keepalive=event").unwrap().keepalive, Keepalive::native());
    let preset = read(1, "keepalive=event").unwrap();
    assert_eq!(preset.keepalive, endpoints()[1].keepalive);
    assert_ne!(*preset.keepalive, Keepalive::native());
}

#[test]
fn an_interval_is_a_duration_or_milliseconds_within_its_bounds() {
    for (text, millis) in
        [("", 0), ("10", 10), ("500ms", 500), ("2s", 2000), ("1m", 60_000), ("60000", 60_000)]
    {
        let interval = native(&format!("interval={text}")).unwrap().interval;
        assert_eq!(interval, Duration::from_millis(millis), "{text}");
        assert_eq!(read(1, &format!("interval={text}")).unwrap().interval, interval);
    }
    for text in ["0", "9ms", "61s", "60001", "1d", "-1", "1.5s", "often", "99999999999999999999"] {
        assert!(
            native(&format!("interval={text}")).unwrap_err().starts_with("interval: allowed are"),
            "{text}"
        );
    }
    assert_eq!(native("interval=1s&interval=2s").unwrap_err(), "interval: given more than once");
}

#[test]
fn a_live_preset_is_filtered_by_what_its_query_is_told_and_resumes_nothing() {
    let live =
        read(2, "statuses=open&priority=low&types=a!&channel=none&since=earliest&lastEventId=x&interval=1")
            .unwrap();
    assert_eq!(joined(&live.channels.unwrap()), "issues");
    assert_eq!(live.tags, [(1, vec![Box::from(&b"open"[..])])]);
    assert_eq!((live.types, live.begin), (None, Begin::Now));
}

#[test]
fn the_time_between_updates_is_in_milliseconds_and_has_a_least() {
    let year = 365 * 86_400_000;
    for (text, millis) in [
        ("", 30_000),
        ("5000", 5000),
        ("05000", 5000),
        ("86400000", 86_400_000),
        ("99999999999999999999", year),
    ] {
        let interval = read(2, &format!("updateInterval={text}")).unwrap().interval;
        assert_eq!(interval, Duration::from_millis(millis), "{text}");
    }
    assert_eq!(read(2, "").unwrap().interval, Duration::from_secs(30));
    for text in ["4999", "0", "-5000", "5000.5", "5s", "often", "1e9", "%205000", "NaN"] {
        assert_eq!(
            read(2, &format!("updateInterval={text}")).unwrap_err(),
            "updateInterval: a whole number of milliseconds, at least 5000",
            "{text}"
        );
    }
    assert_eq!(
        read(2, "updateInterval=5000&updateInterval=5000").unwrap_err(),
        "updateInterval: given more than once"
    );
}
