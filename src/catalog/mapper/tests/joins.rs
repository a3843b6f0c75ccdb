use super::*;

const SCHEMA: &str = "
    lots: *id text, organization_id text, total_slots int, occupied int
    gate_events: *id text, organization_id text, lot_id text, event text, duration int
    makers: *id text, name text
";

const CATALOG: &str = r#"
[tables.lots]
organization = "organization_id"
channel = "lots"
related.last = { table = "gate_events", key = "lot_id", of = "id", take = "last" }
related.first = { table = "gate_events", key = "lot_id", of = "id", take = "first" }
[[tables.lots.events]]
type = "lot"
on = ["insert", "update"]
[tables.lots.events.data]
id = "id"
event = { from = "last", column = "event", omit = "null" }
first = { from = "first", column = "event" }
gate = { from = "last", fields = { id = "id", duration = { column = "duration", omit = "null" } } }

[tables.gate_events]
organization = "organization_id"
channel = "lots"
lookup.lot = { table = "lots", key = "id", of = "lot_id" }
related.lot_change = { table = "lots", key = "id", of = "lot_id" }
[[tables.gate_events.events]]
type = "gate"
on = ["insert"]
when.expr = "lot_change == null"
[tables.gate_events.events.data]
id = "id"
occupied = { from = "lot", column = "occupied" }
empty = { expr = "lot == null ? -1 : lot.total_slots - lot.occupied" }
lot = { from = "lot", fields = { totalSlots = "total_slots" } }
"#;

fn data(seen: &Seen) -> &str {
    seen.json()
        .split_once("\"data\":")
        .expect("data")
        .1
        .strip_suffix('}')
        .expect("an object")
}

#[test]
fn a_related_row_is_the_first_or_last_of_the_whole_transaction() {
    let mut bench = Bench::new(SCHEMA, CATALOG);
    let seen = bench.map(vec![
        bench.insert("gate_events", "g1|o1|l1|entry|∅"),
        bench.insert("lots", "l1|o1|10|1"),
        bench.insert("lots", "l2|o1|10|1"),
        bench.insert("gate_events", "g2|o1|l1|between|7"),
        bench.update("gate_events", "g2|o1|l1|between|7", "g2|o1|l1|exit|9"),
    ]);
    let all: Vec<_> = seen.iter().map(data).collect();
    assert_eq!(
        all,
        [
            r#"{"id":"l1","event":"exit","first":"entry","gate":{"id":"g2","duration":9}}"#,
            r#"{"id":"l2","first":null,"gate":null}"#,
        ],
        "gate events of a lot that changes make none of their own"
    );
    let seen = bench.map(vec![bench.insert("lots", "l1|o1|10|1")]);
    assert_eq!(
        data(&seen[0]),
        r#"{"id":"l1","first":null,"gate":null}"#,
        "nothing is left of the transaction before"
    );
}

#[test]
fn a_related_row_of_another_organization_does_not_count() {
    let mut bench = Bench::new(SCHEMA, CATALOG);
    let seen = bench.map(vec![
        bench.insert("gate_events", "g1|o1|l1|mine|∅"),
        bench.insert("gate_events", "g2|o2|l1|theirs|∅"),
        bench.insert("gate_events", "g3|∅|l1|nobodys|∅"),
        bench.insert("lots", "l1|o1|10|1"),
    ]);
    let all: Vec<_> = seen
        .iter()
        .map(|seen| (seen.organization.as_str(), data(seen)))
        .collect();
    assert_eq!(
        all,
        [
            ("o2", r#"{"id":"g2","occupied":null,"empty":-1,"lot":null}"#),
            (
                "o1",
                r#"{"id":"l1","event":"mine","first":"mine","gate":{"id":"g1"}}"#
            ),
        ]
    );
}

#[test]
fn a_lookup_shows_the_mirror_as_of_the_change() {
    let mut bench = Bench::new(SCHEMA, CATALOG);
    bench.map(vec![bench.insert("lots", "l1|o1|10|4")]);
    let seen = bench.map(vec![bench.insert("gate_events", "g1|o1|l1|entry|∅")]);
    assert_eq!(
        data(&seen[0]),
        r#"{"id":"g1","occupied":4,"empty":6,"lot":{"totalSlots":10}}"#
    );
    let seen = bench.map(vec![bench.insert("gate_events", "g1|o2|l1|entry|∅")]);
    assert_eq!(
        data(&seen[0]),
        r#"{"id":"g1","occupied":null,"empty":-1,"lot":null}"#,
        "another organization's lot"
    );
    let seen = bench.map(vec![bench.insert("gate_events", "g1|o1|∅|entry|∅")]);
    assert_eq!(
        data(&seen[0]),
        r#"{"id":"g1","occupied":null,"empty":-1,"lot":null}"#
    );
    assert_eq!(bench.problems(), []);
}

#[test]
fn a_table_without_organization_is_everybodys_to_look_up() {
    let catalog = r#"
        [tables.lots]
        organization = "organization_id"
        channel = "lots"
        lookup.maker = { table = "makers", key = "id", of = "id" }
        [[tables.lots.events]]
        type = "lot"
        on = ["insert"]
        data = { maker = { from = "maker", column = "name" } }
    "#;
    let mut bench = Bench::new(SCHEMA, catalog);
    let seen = bench.map(vec![
        bench.insert("makers", "l1|Acme"),
        bench.insert("lots", "l1|o1|1|1"),
    ]);
    assert_eq!(data(&seen[0]), r#"{"maker":"Acme"}"#);
}

#[test]
fn a_join_follows_its_tables_types_as_the_stream_tells_them() {
    let mut bench = Bench::new(SCHEMA, CATALOG);
    let mut relation = (**bench.relation("gate_events")).clone();
    relation.columns[4].type_oid = 25;
    let relation = Arc::new(relation);
    let seen = bench.map(vec![
        fixture::insert(&relation, "g1|o1|l1|entry|5"),
        bench.insert("lots", "l1|o1|1|1"),
    ]);
    assert_eq!(
        data(&seen[0]),
        r#"{"id":"l1","event":"entry","first":"entry","gate":{"id":"g1","duration":"5"}}"#
    );
}

#[test]
fn more_related_rows_than_are_kept_are_told_and_never_guessed() {
    let mut bench = Bench::new(SCHEMA, CATALOG);
    let long = "x".repeat(1 << 20);
    let mut changes: Vec<_> = (0..65)
        .map(|n| bench.insert("gate_events", &format!("g{n}|o1|l{n}|{long}|∅")))
        .collect();
    changes.push(bench.insert("lots", "l1|o1|10|1"));
    let seen = bench.map(changes);
    assert_eq!(seen.len(), 66);
    assert!(
        seen[..65]
            .iter()
            .all(|seen| seen.event_type() == "unroutable" && seen.organization == "o1")
    );
    assert_eq!(data(&seen[65]), r#"{"id":"l1","first":null,"gate":null}"#);
    assert!(
        bench
            .problems()
            .iter()
            .all(|(kind, _)| *kind == ProblemKind::RelatedRows)
    );
    let seen = bench.map(vec![bench.insert("gate_events", "g1|o1|l9|entry|∅")]);
    assert_eq!(
        seen[0].event_type(),
        "gate",
        "the next transaction is whole again"
    );
}
