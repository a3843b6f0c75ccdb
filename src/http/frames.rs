//! The worker's own frames: what a stream says that no row said.
//!
//! A frame is an SSE block of one `data:` line (WHATWG HTML, section 9.2.6). Only frames that move the client's last
//! event id carry an `id:`.

use bytes::Bytes;
use serde::Serialize;

use super::clock::now_millis;
use crate::catalog::{EventId, SyncReason};
use crate::live::Answer;

/// Milliseconds that a client waits before it connects again, until told otherwise.
const RETRY_MILLIS: u32 = 2000;

/// Milliseconds within which the clients that were told to read again do so.
const MAX_SYNC_DELAY_MILLIS: u64 = 2000;

/// What the first frame of a stream tells.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Welcome<'a> {
    connection_id: &'a str,
    /// The same: what other servers call it.
    client_id: &'a str,
    organization_id: &'a str,
    organization: Organization<'a>,
    channels: &'a [&'a str],
    resumed: bool,
    message: &'static str,
}

impl<'a> Welcome<'a> {
    pub(super) const fn new(
        connection_id: &'a str,
        organization: Organization<'a>,
        channels: &'a [&'a str],
        resumed: bool,
    ) -> Self {
        Self {
            connection_id,
            client_id: connection_id,
            organization_id: organization.id,
            organization,
            channels,
            resumed,
            message: "Real-time connection established",
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Organization<'a> {
    pub(super) id: &'a str,
    pub(super) name: Option<&'a str>,
    pub(super) role: Option<&'a str>,
}

/// The first frame, after `head`; `id` is the position that the stream starts after. `online`, a JSON array in pieces,
/// may be long, and is shared by all to whom it is said: so it goes out as it is, at the top and again in `data`.
pub(super) fn connected(
    mut head: Vec<u8>,
    id: EventId,
    welcome: &Welcome<'_>,
    online: Option<[Bytes; 2]>,
) -> Vec<Bytes> {
    // A welcome has string keys only.
    let welcome = serde_json::to_string(welcome).unwrap_or_default();
    let fields = welcome.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
    let now = now_millis();
    let top = format!(
        "retry: {RETRY_MILLIS}\nid: {id}\ndata: {{\"type\":\"connected\",\"timestamp\":{now},{fields}"
    );
    head.extend_from_slice(top.as_bytes());
    let data = format!(",\"data\":{{{fields}");
    let Some([online, rest]) = online else {
        head.extend_from_slice(format!("{data}}}}}\n\n").as_bytes());
        return vec![head.into()];
    };
    let named = ",\"online\":";
    head.extend_from_slice(named.as_bytes());
    let again = [format!("{data}{named}").into(), online.clone(), rest.clone(), "}}\n\n".into()];
    [head.into(), online, rest].into_iter().chain(again).collect()
}

/// It can't be proven that nothing was missed before `id`.
pub(super) fn sync(id: EventId, organization: &str, reason: SyncReason) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Sync<'a> {
        r#type: &'static str,
        id: String,
        timestamp: u64,
        organization_id: &'a str,
        data: Data,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        reason: &'static str,
        delay_ms: u64,
    }
    let body = Sync {
        r#type: "data.sync",
        id: id.to_string(),
        timestamp: now_millis(),
        organization_id: organization,
        data: Data { reason: reason.as_str(), delay_ms: fastrand::u64(0..=MAX_SYNC_DELAY_MILLIS) },
    };
    let mut frame = Vec::new();
    write(&mut frame, Some(id), &body);
    frame
}

/// The last frame of a stream, which says why: `token.expired`, `access.revoked`, `stream.evicted`. With `retry`, also
/// for how many milliseconds the client is to stay away.
pub(super) fn last(name: &'static str, retry: Option<u64>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Last {
        r#type: &'static str,
        timestamp: u64,
        data: Empty,
    }
    #[derive(Serialize)]
    struct Empty {}
    let mut frame = retry.map(|millis| format!("retry: {millis}\n").into_bytes()).unwrap_or_default();
    write(&mut frame, None, &Last { r#type: name, timestamp: now_millis(), data: Empty {} });
    frame
}

/// What the client sees is so old (`stale`), or it was and is current again (`fresh`).
pub(super) fn age(name: &'static str, seconds: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Told {
        r#type: &'static str,
        timestamp: u64,
        data: Data,
    }
    #[derive(Serialize)]
    struct Data {
        seconds: u64,
    }
    let mut frame = Vec::new();
    write(&mut frame, None, &Told { r#type: name, timestamp: now_millis(), data: Data { seconds } });
    frame
}

/// What a live preset's query answers. Without an id: a client that comes back is shown all of it again.
pub(super) fn update(answer: Answer) -> Vec<Bytes> {
    match answer {
        Answer::Rows(rows) => {
            let before = Bytes::from_static(b"data: {\"type\":\"update\",\"data\":");
            vec![before, rows, Bytes::from_static(b"}\n\n")]
        }
        Answer::Oversize(bytes) => {
            vec![format!("data: {{\"type\":\"update\",\"data\":null,\"oversize\":{bytes}}}\n\n").into()]
        }
    }
}

/// Moves the time after which the client connects again.
pub(super) fn retry(millis: u64) -> Vec<u8> {
    format!("retry: {millis}\n\n").into_bytes()
}

fn write(frame: &mut Vec<u8>, id: Option<EventId>, body: &impl Serialize) {
    if let Some(id) = id {
        frame.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    frame.extend_from_slice(b"data: ");
    // These bodies have string keys only, and a Vec takes every write.
    let _ = serde_json::to_writer(&mut *frame, body);
    frame.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Epoch;
    use crate::postgres::Lsn;

    /// The frame as text, its clock and its jitter made 0.
    fn fixed(frame: &[u8]) -> String {
        let mut text = String::from_utf8(frame.to_vec()).expect("text");
        for name in ["\"timestamp\":", "\"delayMs\":"] {
            if let Some(start) = text.find(name).map(|at| at + name.len()) {
                let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
                let value: u64 = text[start..start + digits].parse().expect("a number");
                assert!(if name.contains("delay") { value <= 2000 } else { value > 1_700_000_000_000 });
                text.replace_range(start..start + digits, "0");
            }
        }
        text
    }

    fn id() -> EventId {
        EventId { epoch: Epoch::new(0xab), commit_lsn: Lsn::new(7), ordinal: 2 }
    }

    #[test]
    fn connected_says_everything_at_the_top_and_again_in_data() {
        let organization = Organization { id: "a\"b", name: Some("A\nB"), role: None };
        let welcome = Welcome::new("c1", organization, &["lots"], true);
        let fields = r#""connectionId":"c1","clientId":"c1","organizationId":"a\"b","organization":{"id":"a\"b","name":"A\nB","role":null},"channels":["lots"],"resumed":true,"message":"Real-time connection established""#;
        let frame = |fields: &str| {
            format!(
                "retry: 2000\nid: 00000000000000ab.7.2\ndata: {{\"type\":\"connected\",\"timestamp\":0,{fields},\"data\":{{{fields}}}}}\n\n"
            )
        };
        assert_eq!(fixed(&connected(Vec::new(), id(), &welcome, None).concat()), frame(fields));
        let online = ["[\"u\"".into(), ",\"v\"]".into()];
        assert_eq!(
            fixed(&connected(Vec::new(), id(), &welcome, Some(online)).concat()),
            frame(&format!("{fields},\"online\":[\"u\",\"v\"]"))
        );
    }

    #[test]
    fn sync_carries_the_position_it_goes_on_from() {
        assert_eq!(
            fixed(&sync(id(), "o", SyncReason::SlowConsumer)),
            "id: 00000000000000ab.7.2\ndata: {\"type\":\"data.sync\",\"id\":\"00000000000000ab.7.2\",\"timestamp\":0,\
             \"organizationId\":\"o\",\"data\":{\"reason\":\"slow_consumer\",\"delayMs\":0}}\n\n"
        );
    }

    #[test]
    fn frames_that_are_no_position_have_no_id() {
        assert_eq!(
            fixed(&last("token.expired", None)),
            "data: {\"type\":\"token.expired\",\"timestamp\":0,\"data\":{}}\n\n"
        );
        assert_eq!(
            fixed(&last("stream.evicted", Some(7))),
            "retry: 7\ndata: {\"type\":\"stream.evicted\",\"timestamp\":0,\"data\":{}}\n\n"
        );
        assert_eq!(
            fixed(&age("stale", 31)),
            "data: {\"type\":\"stale\",\"timestamp\":0,\"data\":{\"seconds\":31}}\n\n"
        );
        assert_eq!(
            update(Answer::Rows("[{\"n\":1}]".into())).concat(),
            b"data: {\"type\":\"update\",\"data\":[{\"n\":1}]}\n\n"
        );
        assert_eq!(
            update(Answer::Oversize(2_000_000)).concat(),
            b"data: {\"type\":\"update\",\"data\":null,\"oversize\":2000000}\n\n"
        );
        assert_eq!(retry(1500), b"retry: 1500\n\n");
    }
}
