//! Emitted events: what is trusted, what is refused, what the catalog adds.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::*;
use crate::postgres::pgoutput::EmittedMessage;

const SCHEMA: &str = "
    notes: *id text, organization_id text, user_id text, kind text
";

const CATALOG: &str = r#"
[tables.notes]
organization = "organization_id"
channel = "notes"
tags = { kind = "kind" }
[[tables.notes.events]]
type = "note.open"
on = ["insert"]
[[tables.notes.events]]
type = "note.user"
on = ["insert"]
only = { user = "user_id", roles = ["admin"] }
[[tables.notes.events]]
type = "note.roles"
on = ["insert"]
channel = "board"
only = { roles = ["admin", "manager"] }
[[tables.notes.events]]
type = "note.twice"
on = ["insert"]
[[tables.notes.events]]
type = "note.twice"
on = ["delete"]
channel = "board"
"#;

fn signed(xid: u32, json: &str) -> Vec<u8> {
    let secret = [0x0a, 0x0b];
    let inner = Sha256::digest([&secret[..], xid.to_string().as_bytes(), b":", json.as_bytes()].concat());
    let signature = Sha256::digest([&secret[..], &inner].concat());
    let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex} {json}").into_bytes()
}

fn message(content: Vec<u8>) -> Change {
    let content = Bytes::from(content);
    Change::Emit(EmittedMessage {
        transactional: true,
        lsn: Lsn::new(1),
        prefix: "walcast".to_owned(),
        content,
    })
}

fn emit(rest: &str) -> Change {
    message(signed(
        XID,
        &format!("{{\"organization_id\":\"o1\",\"channel\":\"custom\",\"tags\":{{}},{rest}}}"),
    ))
}

fn bench() -> Bench {
    Bench::new(SCHEMA, CATALOG)
}

fn audience(roles: &[&str], user: Option<&str>) -> Option<Arc<Audience>> {
    Some(Arc::new(Audience {
        roles: roles.iter().map(|role| (*role).into()).collect(),
        user: user.map(Into::into),
    }))
}

#[test]
fn an_emitted_event_goes_out_as_given_in_its_place() {
    let mut bench = bench();
    let json = "{\"organization_id\": \"o\\u00e9\", \"type\": \"deploy:done\", \"channel\": \"custom\", \
                \"tags\": {\"kind\": [\"a\", 7, null, true], \"other\": \"x\"}, \"only\": null, \
                \"data\": {\"b\": 1,\n \"a\": [\"x\\ny\"]}}";
    let seen = bench.map(vec![bench.insert("notes", "n1|o1|u1|k"), message(signed(XID, json))]);
    let emitted = seen.last().expect("an event");
    assert_eq!(
        emitted.frame(),
        "id: 00000000000000e1.4096.11\n\
         data: {\"id\":\"00000000000000e1.4096.11\",\"type\":\"deploy:done\",\"timestamp\":1700000000123,\
         \"organizationId\":\"oé\",\"channel\":\"custom\",\"data\":{\"b\": 1,  \"a\": [\"x\\ny\"]}}\n\n"
    );
    assert_eq!(emitted.organization, "oé");
    assert_eq!(emitted.tags(), [("kind", "a"), ("kind", "7"), ("kind", "true")]);
    assert_eq!(emitted.audience, None);
    assert_eq!(bench.problems(), []);
}

#[test]
fn what_is_not_signed_here_and_now_is_dropped_and_counted() {
    let json = r#"{"organization_id":"o1","type":"t","channel":"custom","tags":{},"only":null,"data":{}}"#;
    let mut tampered = signed(XID, json);
    *tampered.last_mut().expect("bytes") = b' ';
    let cases = [
        signed(XID + 1, json),
        tampered,
        signed(XID, json)[1..].to_vec(),
        signed(XID, json).to_ascii_lowercase()[..64].to_vec(),
        json.as_bytes().to_vec(),
        Vec::new(),
    ];
    let mut bench = bench();
    let dropped = cases.len() as u64;
    let mut changes: Vec<_> = cases.into_iter().map(message).collect();
    changes.push(message(signed(XID, json)));
    let seen = bench.map(changes);
    assert_eq!(
        seen.iter().map(Seen::outline).collect::<Vec<_>>(),
        [(7, "o1", "t")],
        "each takes its ordinal"
    );
    // The empty one, which may have been too long to be kept, is told apart.
    assert_eq!(bench.problems(), [(ProblemKind::Emit, dropped - 1), (ProblemKind::Emit, 1)]);
    assert_eq!(bench.mapper.counters().refused_emits, dropped);
}

#[test]
fn without_a_secret_nothing_is_trusted() {
    let mut bench = bench();
    bench.mapper = Mapper::new(
        Arc::clone(bench.mapper.compiled()),
        Arc::new(Types::builtin()),
        Epoch::new(0xe1),
        1 << 20,
        Some(Secret::new(String::new())),
    );
    assert_eq!(bench.map(vec![emit(r#""type":"t","data":{}"#)]), []);
    let problem = bench.mapper.problems().next().expect("a problem");
    assert_eq!(
        problem.text,
        "an emitted event was dropped: the worker has no secret to verify it with; grant its role select on walcast.secret"
    );
}

#[test]
fn names_organizations_and_shapes_are_checked() {
    let refused = [
        r#""type":"connected","data":{}"#,
        r#""type":"data.sync","data":{}"#,
        r#""type":"a b","data":{}"#,
        r#""type":"","data":{}"#,
        r#""type":"t"}"#,
        r#""type":"t","data":{},"extra":1"#,
        r#""type":"t","data":{},"only":{}"#,
        r#""type":"t","data":{},"only":{"role":"admin"}"#,
    ];
    let mut bench = bench();
    for rest in refused {
        assert_eq!(bench.map(vec![emit(rest)]), [], "{rest}");
    }
    for json in [
        r#"{"organization_id":"*","type":"t","channel":"custom","data":{}}"#,
        r#"{"organization_id":"","type":"t","channel":"custom","data":{}}"#,
        r#"{"organization_id":"o1","type":"t","channel":"","data":{}}"#,
        r#"{"organization_id":"o1","type":"t","channel":"c","data":{},"tags":{"kind":{}}}"#,
        r#"{"organization_id":"o1","type":"t","channel":"c","data":{},"tags":{"a b":"x"}}"#,
        r#"[]"#,
    ] {
        assert_eq!(bench.map(vec![message(signed(XID, json))]), [], "{json}");
    }
    assert_eq!(bench.mapper.counters().refused_emits, 14);
    let seen = bench.map(vec![emit(r#""type":"t","data":null,"only":{"roles":["x"],"user":"u1"}"#)]);
    assert_eq!(seen[0].audience, audience(&["x"], Some("u1")));
}

#[test]
fn a_catalogued_type_inherits_its_channel_and_only() {
    let mut bench = bench();
    let mut one = |rest: &str| {
        let mut seen = bench.map(vec![emit(rest)]);
        seen.pop().map(|seen| match seen.what {
            What::Frame { channel, .. } => (channel, seen.audience),
            What::Sync { .. } => panic!("no sync is emitted"),
        })
    };
    let on = |channel: &str, audience| Some((channel.to_owned(), audience));
    assert_eq!(one(r#""type":"note.open","data":{}"#), on("notes", None));
    assert_eq!(
        one(r#""type":"note.open","data":{},"only":{"user":"u"}"#),
        on("notes", audience(&[], Some("u")))
    );
    assert_eq!(one(r#""type":"note.user","data":{}"#), None);
    assert_eq!(one(r#""type":"note.user","data":{},"only":{"roles":["admin"]}"#), None);
    assert_eq!(
        one(r#""type":"note.user","data":{},"only":{"user":"u"}"#),
        on("notes", audience(&["admin"], Some("u")))
    );
    assert_eq!(one(r#""type":"note.roles","data":{}"#), on("board", audience(&["admin", "manager"], None)));
    assert_eq!(
        one(r#""type":"note.roles","data":{},"only":{"roles":["admin"]}"#),
        on("board", audience(&["admin"], None))
    );
    assert_eq!(one(r#""type":"note.roles","data":{},"only":{"roles":["member"]}"#), None);
    assert_eq!(one(r#""type":"note.roles","data":{},"only":{"user":"u"}"#), None);
    assert_eq!(one(r#""type":"note.twice","data":{}"#), None);
}
