//! What the fuzzers assert of catalogs, expressions, values, and of the frames that come of rows and emitted messages.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use std::sync::{Arc, LazyLock};

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::event::{Epoch, Event, EventId, Kind, OrganizationId};
use super::expression::{Cell, Expression, MAX_RESULT, MAX_SOURCE, Rows, Scope};
use super::fixture;
use super::{Catalog, Compiled, Encoder, Mapper};
use crate::mirror::Mirror;
use crate::postgres::pgoutput::{self, EmittedMessage, OldTuple, Relation, ReplicaIdentity, Tuple};
use crate::postgres::schema::{Field, Schema, Type, TypeKind, Types};
use crate::postgres::{Lsn, PgTimestamp};
use crate::source::{Change, Changes, Operation, RowChange, Transaction};

pub use super::mapper::fuzzing::emitted;

/// Small, so that oversize events are met.
const MAX_EVENT: u64 = 700;

/// Any bytes as an event id: what is read prints as it was, and nothing else reads.
pub fn ids(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(id) = text.parse::<EventId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(lsn) = text.parse::<Lsn>() {
        assert_eq!(lsn.to_string().parse::<Lsn>().ok(), Some(lsn));
    }
}

const BAYS: &str = "
    bays: *id text, organization_id text, occupied bool, total_slots int, seen_at timestamptz, metadata jsonb
    gate_events: *id text, organization_id text, bay_id text, plate_number text
    campuses: *id text, organization_id text, name text
";

/// Any text as a catalog. It is refused with the places of its mistakes, or compiled against a database of three
/// tables; then whatever it makes of their rows is well-formed.
pub fn catalogs(data: &[u8]) {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| fixture::schema(BAYS));
    let Ok(text) = std::str::from_utf8(data) else { return };
    let catalog = match fixture::catalog(text) {
        Ok(catalog) => catalog,
        Err(errors) => return assert!(errors.iter().all(|error| !error.to_string().is_empty())),
    };
    let compiled = match catalog.compile_lenient(&SCHEMA) {
        Ok((compiled, _)) => Arc::new(compiled),
        Err(errors) => return assert!(errors.iter().all(|error| !error.to_string().is_empty())),
    };
    let relations = fixture::relations(&SCHEMA, ReplicaIdentity::Full);
    let (Some(bays), Some(gates)) = (relations.get("bays"), relations.get("gate_events")) else { return };
    let before = "b1|o1|t|5|2024-01-01 00:00:00+00|{\"a\": 1}";
    let after = "b1|o2|f|∅|infinity|[]";
    let changes = vec![
        fixture::insert(gates, "g1|o1|b1|X\u{2028}\"1"),
        fixture::insert(bays, before),
        fixture::update(bays, before, after),
        fixture::update_by_key(bays, None, after),
        fixture::delete(bays, after),
        fixture::delete_by_key(bays, "b1|∅|∅|∅|∅|∅"),
        Change::Truncate(vec![Arc::clone(bays), Arc::clone(gates)]),
    ];
    map(&compiled, changes);
}

/// Parts changes, and the cells of one. A cell of one zero byte is null, of one byte 1 unchanged TOAST.
const NEXT_CHANGE: u8 = 0x1E;
const NEXT_CELL: u8 = 0x1F;

/// Any rows of the reference domain's tables, as wide as they please. Their events are frames of one line each, of an
/// organization that one of the rows names, no longer than events may be, and the same each time.
pub fn changes(data: &[u8]) {
    static REFERENCE: LazyLock<(Arc<Compiled>, Vec<Arc<Relation>>)> = LazyLock::new(|| {
        let schema = fixture::schema(fixture::reference::SCHEMA);
        let compiled = Catalog::reference().compile(&schema).expect("the reference catalog fits");
        let mut relations: Vec<_> =
            fixture::relations(&schema, ReplicaIdentity::Full).into_values().collect();
        relations.sort_by(|a, b| a.name.cmp(&b.name));
        (Arc::new(compiled), relations)
    });
    let (compiled, relations) = &*REFERENCE;
    let changes: Vec<Change> =
        data.split(|byte| *byte == NEXT_CHANGE).filter_map(|change| read_change(change, relations)).collect();
    map(compiled, changes);
}

fn read_change(bytes: &[u8], relations: &[Arc<Relation>]) -> Option<Change> {
    let (&[table, kind], rest) = bytes.split_first_chunk::<2>()?;
    let relation = Arc::clone(relations.get(usize::from(table) % relations.len())?);
    let mut cells: Vec<_> = rest.split(|byte| *byte == NEXT_CELL).map(cell).collect();
    let later = cells.split_off(cells.len().min(relation.columns.len()));
    let first = Tuple::new(cells).ok()?;
    let second = || Tuple::new(later).ok();
    let old = |tuple| if kind & 8 == 0 { OldTuple::Full(tuple) } else { OldTuple::Key(tuple) };
    let (operation, old, new) = match kind & 3 {
        0 => (Operation::Insert, None, Some(first)),
        1 => (Operation::Delete, Some(old(first)), None),
        2 => (Operation::Update, None, Some(first)),
        _ => (Operation::Update, Some(old(first)), Some(second()?)),
    };
    Some(Change::Row(RowChange { relation, operation, old, new }))
}

const fn cell(bytes: &[u8]) -> pgoutput::Cell<'_> {
    match bytes {
        [0] => pgoutput::Cell::Null,
        [1] => pgoutput::Cell::Unchanged,
        text => pgoutput::Cell::Text(text),
    }
}

/// Maps one transaction twice, from the same beginning.
fn map(compiled: &Arc<Compiled>, changes: Vec<Change>) {
    let transaction = transaction(changes);
    let mut runs = [Vec::new(), Vec::new()];
    for run in &mut runs {
        let mirror = Mirror::new(compiled.mirror_specs().to_vec(), 1 << 20);
        let types = Arc::new(Types::builtin());
        let mut mapper = Mapper::new(Arc::clone(compiled), types, Epoch::new(0xe1), MAX_EVENT, None);
        mapper.begin(&transaction).expect("in memory");
        let mut reader = transaction.reader().expect("in memory");
        while let Some(change) = reader.next().expect("in memory") {
            let mut named: Vec<&[u8]> = Vec::new();
            if let Change::Row(row) = change {
                // A row that does not fit its table ends the worker's connection, and comes again.
                let _ = mirror.apply(transaction.xid, row);
                let rows = row.old.iter().map(OldTuple::tuple).chain(&row.new);
                named.extend(rows.flat_map(Tuple::cells).filter_map(|cell| match cell {
                    pgoutput::Cell::Text(text) => Some(text),
                    _ => None,
                }));
            }
            mapper.map_change(change, &mirror, &mut |event| {
                is_well_formed(&event, MAX_EVENT);
                let organization = event.organization;
                assert!(
                    organization == OrganizationId::EVERY || named.contains(&organization.as_bytes()),
                    "an organization that no row names: {organization}"
                );
                run.push((event.id, event.frame().to_vec()));
            });
        }
        assert!(run.is_sorted_by_key(|(id, _)| id.ordinal), "ids out of order");
    }
    let [first, second] = runs;
    assert_eq!(first, second, "the same rows made other events");
}

pub(super) fn transaction(changes: Vec<Change>) -> Transaction {
    Transaction {
        commit_lsn: Lsn::new(4096),
        end_lsn: Lsn::new(4104),
        xid: 77,
        commit_time: PgTimestamp::from_micros(0),
        begun: false,
        changes: Changes::Memory(changes),
    }
}

/// What REFERENCE.md calls the envelope.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope<'a> {
    id: String,
    r#type: String,
    #[serde(rename = "timestamp")]
    _timestamp: i64,
    organization_id: String,
    channel: String,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default, rename = "unchanged")]
    _unchanged: Vec<String>,
    oversize: Option<u64>,
}

/// One line, one JSON object, the id that the event has, and no longer than it may be.
pub(super) fn is_well_formed(event: &Event<'_>, max_event: u64) {
    let Kind::Data { event_type, channel, frame, .. } = &event.kind else { return };
    let frame = std::str::from_utf8(frame).expect("UTF-8");
    let json = frame.strip_prefix(&format!("id: {}\ndata: ", event.id)).expect("the id's line, and data");
    let json = json.strip_suffix("\n\n").expect("a blank line at its end");
    assert!(!json.contains(['\n', '\r']), "a line break in {json:?}");
    let envelope: Envelope<'_> = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    assert_eq!(envelope.id, event.id.to_string());
    assert_eq!((&*envelope.r#type, &*envelope.channel), (&***event_type, &***channel));
    // What is no UTF-8 was replaced, here and there.
    assert_eq!(envelope.organization_id, event.organization);
    match envelope.oversize {
        Some(bytes) => assert!(bytes > max_event && envelope.data.get() == "null", "{json}"),
        None => assert!(json.len() as u64 <= max_event, "{} bytes: {json}", json.len()),
    }
}

const LOT: u32 = 20_000;
const LOTS: u32 = 20_001;
const DOMAIN: u32 = 20_002;

/// Any text as a value of any type, arrays, composites and domains included; the first byte says which. It becomes one
/// JSON value on one line, and not much longer than it was.
pub fn values(data: &[u8]) {
    static ENCODERS: LazyLock<Vec<Encoder>> = LazyLock::new(|| {
        let mut types = Types::builtin();
        let field = |name: &str, type_oid: u32| Field { name: name.to_owned(), type_oid };
        let fields = vec![field("id", 23), field("na\"me", 25), field("seen", 1115), field("next", LOTS)];
        for (oid, kind) in [
            (LOT, TypeKind::Composite { fields }),
            (LOTS, TypeKind::Array { element: LOT, delimiter: b',' }),
            (DOMAIN, TypeKind::Domain { base: LOTS }),
        ] {
            types.insert(Type { oid, schema: "public".to_owned(), name: format!("t{oid}"), kind });
        }
        let mut oids: Vec<_> = types.iter().map(|known| known.oid).collect();
        // Those that a seed names first: they keep their places whatever PostgreSQL's types become.
        let first = [25, 16, 23, 1700, 1114, 1184, 3802, 1009, 22, LOT, LOTS, DOMAIN];
        oids.sort_unstable_by_key(|oid| {
            (first.iter().position(|known| known == oid).unwrap_or(first.len()), *oid)
        });
        oids.into_iter().map(|oid| Encoder::new(&types, oid)).collect()
    });
    let Some((which, text)) = data.split_first() else { return };
    let Some(encoder) = ENCODERS.get(usize::from(*which) % ENCODERS.len()) else { return };
    let mut out = BytesMut::new();
    encoder.encode(text, &mut out);
    assert!(!out.iter().any(|byte| matches!(byte, b'\n' | b'\r')), "a line break in {out:?}");
    is_json(&out);
}

fn is_json(bytes: &[u8]) {
    // Not read into values: those may be nested as deeply as PostgreSQL's.
    let read = std::str::from_utf8(bytes).map(serde_json::from_str::<IgnoredAny>);
    assert!(matches!(read, Ok(Ok(_))), "{:?} is not JSON", String::from_utf8_lossy(bytes));
}

const COLUMNS: [(&str, u32, &str); 8] = [
    ("id", 20, "9223372036854775807"),
    ("occupied", 23, "-1"),
    ("ratio", 701, "NaN"),
    ("price", 1700, "12.50"),
    ("open", 16, "t"),
    ("name", 25, "the-value-of-a-column\u{e9}"),
    ("seen_at", 1184, "2024-02-29 23:59:59.999999+00"),
    ("metadata", 3802, r#"{"a": [1, null, {"b": 1e400}], "the-value-of-a-column": "x"}"#),
];

struct Row;

impl Rows for Row {
    fn has_row(&self, row: usize) -> bool {
        row != Scope::OLD
    }

    fn cell(&self, _: usize, column: usize) -> Cell<'_> {
        COLUMNS.get(column).map_or(Cell::Null, |(_, _, text)| Cell::Text(text.as_bytes()))
    }

    fn changed(&self, column: usize) -> bool {
        column.is_multiple_of(2)
    }

    fn operation(&self) -> Operation {
        Operation::Insert
    }
}

/// Any text as an expression. It is refused at a place in it, or evaluated: to JSON of bounded length, or to an error
/// that quotes no value.
pub fn expressions(data: &[u8]) {
    static SCOPE: LazyLock<Scope> =
        LazyLock::new(|| Scope::new(&Types::builtin(), COLUMNS.map(|(name, oid, _)| (name, oid))));
    let Ok(source) = std::str::from_utf8(data) else { return };
    let expression = match Expression::compile(source, &SCOPE) {
        Ok(expression) => expression,
        Err(error) => {
            assert!(error.offset <= source.len() && !error.message.is_empty(), "{error:?}");
            return;
        }
    };
    assert!(source.len() <= MAX_SOURCE);
    let _ = expression.is_never_bool();
    match expression.evaluate(&Row) {
        Ok(value) => {
            let mut out = BytesMut::new();
            value.encode(&mut out);
            assert!(out.len() <= MAX_RESULT);
            is_json(&out);
        }
        Err(error) => {
            let value = "the-value-of-a-column";
            assert!(source.contains(value) || !format!("{error} {error:?}").contains(value), "{error:?}");
        }
    }
}

pub(super) fn emission(content: Vec<u8>) -> Change {
    Change::Emit(EmittedMessage {
        transactional: true,
        lsn: Lsn::new(1),
        prefix: crate::source::EMIT_PREFIX.to_owned(),
        content: Bytes::from(content),
    })
}
