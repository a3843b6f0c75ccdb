mod data;
mod emit;
mod isolation;
mod joins;
mod reference;
mod route;

use std::collections::HashMap;

use super::*;
use crate::catalog::event::Audience;
use crate::catalog::fixture;
use crate::postgres::PgTimestamp;
use crate::postgres::pgoutput::ReplicaIdentity;
use crate::source::Changes;

/// 2023-11-14 22:13:20.123 UTC, in ms since 1970.
const COMMIT_MILLIS: i64 = 1_700_000_000_123;
const COMMIT_LSN: u64 = 4096;
const XID: u32 = 77;

/// A mapper over a schema and a catalog, and what comes out of it.
struct Bench {
    mapper: Mapper,
    mirror: Mirror,
    relations: HashMap<String, Arc<Relation>>,
}

/// An event, owned.
#[derive(Debug, PartialEq)]
struct Seen {
    ordinal: u32,
    organization: String,
    tags: Vec<(String, String)>,
    audience: Option<Arc<Audience>>,
    what: What,
}

#[derive(Debug, PartialEq)]
enum What {
    Frame { event_type: String, channel: String, frame: String },
    Sync { reason: SyncReason, channels: Vec<String> },
}

impl Bench {
    fn new(schema: &str, catalog: &str) -> Self {
        Self::with(schema, catalog, ReplicaIdentity::Full, 1 << 20)
    }

    fn with(schema: &str, catalog: &str, identity: ReplicaIdentity, max_event: u64) -> Self {
        let compiled = match fixture::compile(catalog, schema) {
            Ok(compiled) => Arc::new(compiled),
            Err(errors) => panic!("{errors}"),
        };
        let mirror = Mirror::new(compiled.mirror_specs().to_vec(), 1 << 20);
        let secret = Some(Secret::new("\\x0a0b".to_owned()));
        let types = Arc::new(Types::builtin());
        Self {
            mapper: Mapper::new(compiled, types, Epoch::new(0xe1), max_event, secret),
            mirror,
            relations: fixture::relations(&fixture::schema(schema), identity),
        }
    }

    fn relation(&self, table: &str) -> &Arc<Relation> {
        &self.relations[table]
    }

    fn insert(&self, table: &str, new: &str) -> Change {
        fixture::insert(self.relation(table), new)
    }

    fn update(&self, table: &str, old: &str, new: &str) -> Change {
        fixture::update(self.relation(table), old, new)
    }

    fn delete(&self, table: &str, old: &str) -> Change {
        fixture::delete(self.relation(table), old)
    }

    /// Maps one transaction, the mirror going along.
    fn map(&mut self, changes: Vec<Change>) -> Vec<Seen> {
        let transaction = Transaction {
            commit_lsn: Lsn::new(COMMIT_LSN),
            end_lsn: Lsn::new(COMMIT_LSN + 8),
            xid: XID,
            commit_time: PgTimestamp::from_micros((COMMIT_MILLIS - 946_684_800_000) * 1000 + 999),
            begun: false,
            changes: Changes::Memory(changes),
        };
        let compiled = Arc::clone(self.mapper.compiled());
        let mut seen = Vec::new();
        self.mapper.begin(&transaction).expect("in memory");
        let mut reader = transaction.reader().expect("in memory");
        while let Some(change) = reader.next().expect("in memory") {
            if let Change::Row(row) = change {
                self.mirror.apply(XID, row).expect("a small mirror");
            }
            self.mapper.map_change(change, &self.mirror, &mut |event| {
                seen.push(Seen::of(&event, &compiled));
            });
        }
        seen
    }

    /// The JSON of the only event of a change.
    fn json(&mut self, change: Change) -> String {
        let seen = self.map(vec![change]);
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen[0].json().to_owned()
    }

    /// What is between `"data":` and the end of the only event of a change.
    fn data(&mut self, change: Change) -> String {
        let json = self.json(change);
        let (_, data) = json.split_once("\"data\":").expect("data");
        data.strip_suffix('}').expect("an object").to_owned()
    }

    fn problems(&self) -> Vec<(ProblemKind, u64)> {
        self.mapper.problems().map(|problem| (problem.kind, problem.count)).collect()
    }
}

impl Seen {
    fn of(event: &Event<'_>, compiled: &Compiled) -> Self {
        assert_eq!(event.commit_millis, COMMIT_MILLIS);
        assert_eq!((event.id.epoch, event.id.commit_lsn), (Epoch::new(0xe1), Lsn::new(COMMIT_LSN)));
        let (tags, what) = match &event.kind {
            Kind::Data { event_type, channel, tags, frame } => {
                let name = |index: u16| compiled.tag_names()[usize::from(index)].clone();
                let tags =
                    tags.iter().map(|(index, value)| (name(index), String::from_utf8_lossy(value).into()));
                let frame = String::from_utf8(frame.to_vec()).expect("UTF-8");
                (
                    tags.collect(),
                    What::Frame { event_type: event_type.to_string(), channel: channel.to_string(), frame },
                )
            }
            Kind::Sync { reason, channels } => (
                Vec::new(),
                What::Sync { reason: *reason, channels: channels.iter().map(ToString::to_string).collect() },
            ),
        };
        Self {
            ordinal: event.id.ordinal,
            organization: event.organization.to_owned(),
            tags,
            audience: event.audience.cloned(),
            what,
        }
    }

    fn frame(&self) -> &str {
        match &self.what {
            What::Frame { frame, .. } => frame,
            What::Sync { .. } => panic!("no frame: {self:?}"),
        }
    }

    /// The frame's JSON, after its shape was checked.
    fn json(&self) -> &str {
        let head = format!("id: 00000000000000e1.{COMMIT_LSN}.{}\ndata: ", self.ordinal);
        let json = self
            .frame()
            .strip_prefix(&head)
            .expect("the id line")
            .strip_suffix("\n\n")
            .expect("a blank line");
        assert!(!json.contains('\n'), "{json}");
        let parsed: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(parsed["id"], format!("00000000000000e1.{COMMIT_LSN}.{}", self.ordinal));
        json
    }

    fn event_type(&self) -> &str {
        match &self.what {
            What::Frame { event_type, .. } => event_type,
            What::Sync { reason, .. } => reason.as_str(),
        }
    }

    /// Ordinal, organization and type.
    fn outline(&self) -> (u32, &str, &str) {
        (self.ordinal, &self.organization, self.event_type())
    }

    fn tags(&self) -> Vec<(&str, &str)> {
        self.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}
