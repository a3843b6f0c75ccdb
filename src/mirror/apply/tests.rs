use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::mirror::{MirrorSnapshot, MirrorSpec};
use crate::postgres::Lsn;
use crate::postgres::pgoutput::{RelationColumn, RelationId, ReplicaIdentity};

const BAYS: MirrorTableId = MirrorTableId(0);

fn relation(columns: &[&str]) -> Arc<Relation> {
    let column = |name: &&str| RelationColumn {
        name: (*name).to_owned(),
        type_oid: 25,
        type_modifier: -1,
        is_key: *name == "id",
    };
    Arc::new(Relation {
        id: RelationId(1),
        namespace: "public".to_owned(),
        name: "bays".to_owned(),
        identity: ReplicaIdentity::Default,
        columns: columns.iter().map(column).collect(),
    })
}

/// Of `bays (id, site, note)`, keyed by `id`; rows give the note, and are found by id and by site.
fn bays(max_bytes: u64) -> Mirror {
    let spec = MirrorSpec {
        table: TableName::parse("bays"),
        columns: vec!["note".to_owned()],
        indexes: vec![vec!["id".to_owned()], vec!["site".to_owned()]],
    };
    let mirror = Mirror::new(vec![spec], max_bytes);
    mirror.tables[0].write().key = vec!["id".to_owned()];
    mirror
}

fn tuple(cells: &[&str]) -> Tuple {
    fn cell<'a>(text: &&'a str) -> Cell<'a> {
        match *text {
            "null" => Cell::Null,
            "unchanged" => Cell::Unchanged,
            text => Cell::Text(text.as_bytes()),
        }
    }
    Tuple::new(cells.iter().map(cell)).unwrap()
}

fn change(operation: Operation, old: Option<OldTuple>, new: Option<&[&str]>) -> RowChange {
    RowChange { relation: relation(&["id", "site", "note"]), operation, old, new: new.map(tuple) }
}

fn insert(cells: &[&str]) -> RowChange {
    change(Operation::Insert, None, Some(cells))
}

fn key(id: &str) -> OldTuple {
    OldTuple::Key(tuple(&[id, "null", "null"]))
}

fn note(mirror: &Mirror, index: usize, value: &str) -> Option<String> {
    let row = mirror.lookup(BAYS, index, &[value.as_bytes()])?;
    Some(row.cell(0).map_or("null".to_owned(), |text| String::from_utf8(text.to_vec()).unwrap()))
}

#[test]
fn an_unchanged_value_comes_from_the_full_old_row_or_from_the_mirror() {
    let mirror = bays(1 << 20);
    mirror.apply(1, &insert(&["1", "north", "long"])).unwrap();
    mirror.apply(1, &change(Operation::Update, None, Some(&["1", "south", "unchanged"]))).unwrap();
    assert_eq!(note(&mirror, 1, "south").as_deref(), Some("long"));
    mirror.apply(1, &change(Operation::Update, Some(key("1")), Some(&["2", "south", "unchanged"]))).unwrap();
    assert_eq!((note(&mirror, 0, "1"), note(&mirror, 0, "2").as_deref()), (None, Some("long")));
    let full = OldTuple::Full(tuple(&["2", "south", "other"]));
    mirror
        .apply(1, &change(Operation::Update, Some(full), Some(&["unchanged", "south", "unchanged"])))
        .unwrap();
    assert_eq!(note(&mirror, 0, "2").as_deref(), Some("other"));
}

#[test]
fn what_the_snapshot_saw_is_skipped_until_the_barrier_is_passed() {
    let mirror = bays(1 << 20);
    let loaded = MirrorSnapshot { snapshot: "10:12:10".parse().unwrap(), barrier: Lsn::new(500) };
    *mirror.joining() = Joining::Loaded(Arc::new(loaded));
    for (xid, id) in [(9, "seen"), (10, "in progress"), (11, "seen too"), (12, "later")] {
        mirror.apply(xid, &insert(&[id, "north", "x"])).unwrap();
    }
    assert!(!mirror.truncate(11, &[relation(&["id"])]));
    assert_eq!(mirror.len(BAYS), 2);
    assert!(!mirror.advance(Lsn::new(499)) && mirror.advance(Lsn::new(500)));
    // Ids come round: what looked like a seen one then is a new one.
    mirror.apply(9, &insert(&["new", "north", "x"])).unwrap();
    assert_eq!(mirror.len(BAYS), 3);
    assert!(mirror.truncate(9, &[relation(&["id"])]));
    assert_eq!((mirror.len(BAYS), mirror.bytes()), (0, 0));
}

#[test]
fn a_column_that_is_gone_reads_as_null_and_is_named() {
    let mirror = bays(1 << 20);
    mirror.apply(1, &insert(&["1", "north", "x"])).unwrap();
    assert!(mirror.missing().is_empty());
    let gone = RowChange {
        relation: relation(&["site", "id"]),
        ..change(Operation::Update, None, Some(&["south", "1"]))
    };
    mirror.apply(2, &gone).unwrap();
    assert_eq!(note(&mirror, 1, "south").as_deref(), Some("null"));
    assert_eq!(mirror.missing(), [(TableName::parse("bays"), "note".to_owned())]);
}

#[test]
fn a_column_that_was_away_or_has_another_type_has_to_be_read_again() {
    let mirror = bays(1 << 20);
    mirror.apply(1, &insert(&["1", "north", "x"])).unwrap();
    let gone = RowChange {
        relation: relation(&["id", "site"]),
        ..change(Operation::Insert, None, Some(&["2", "south"]))
    };
    mirror.apply(2, &gone).unwrap();
    let back = insert(&["3", "south", "z"]);
    let error = mirror.apply(3, &back).unwrap_err();
    assert!(matches!(&error, MirrorError::Redefined { column, .. } if column == "note"), "{error}");
    assert_eq!((mirror.len(BAYS), mirror.missing().len()), (2, 1));

    let mirror = bays(1 << 20);
    mirror.apply(1, &insert(&["1", "north", "x"])).unwrap();
    let mut retyped = (*relation(&["id", "site", "note"])).clone();
    retyped.columns[2].type_oid = 1700;
    let retyped = RowChange { relation: Arc::new(retyped), ..insert(&["2", "north", "1.0"]) };
    assert!(matches!(mirror.apply(2, &retyped), Err(MirrorError::Redefined { .. })));
}

#[test]
fn a_change_whose_row_can_not_be_told_is_an_error_and_changes_nothing() {
    let mirror = bays(1 << 20);
    mirror.apply(1, &insert(&["1", "north", "x"])).unwrap();
    let keyless = RowChange { relation: relation(&["site", "note"]), ..insert(&["north", "y"]) };
    for change in
        [keyless, change(Operation::Delete, Some(key("null")), None), change(Operation::Delete, None, None)]
    {
        assert!(matches!(mirror.apply(1, &change), Err(MirrorError::NoKey { .. })), "{change:?}");
    }
    assert_eq!((mirror.len(BAYS), note(&mirror, 0, "1").as_deref()), (1, Some("x")));
}

#[test]
fn a_full_mirror_names_the_table_and_the_limit() {
    let mirror = bays(1000);
    mirror.apply(1, &insert(&["1", "north", "x"])).unwrap();
    let large = "x".repeat(2000);
    let MirrorError::TooLarge { table, limit_bytes } =
        mirror.apply(1, &insert(&["2", "north", &large])).unwrap_err()
    else {
        panic!("it does not fit")
    };
    assert_eq!((table, limit_bytes), (TableName::parse("bays"), 1000));
    assert_eq!(mirror.len(BAYS), 1);
    mirror.apply(1, &change(Operation::Update, None, Some(&["1", "south", "y"]))).unwrap();
}

#[test]
fn a_table_that_is_not_mirrored_is_passed_over() {
    let mirror = Mirror::new(Vec::new(), 0);
    mirror.apply(1, &insert(&["1", "north", "x"])).unwrap();
    assert!(mirror.is_empty() && mirror.advance(Lsn::ZERO) && !mirror.truncate(1, &[relation(&["id"])]));
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Move(u8, u8),
    Delete(u8),
    Truncate,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..20u8, 0..4u8).prop_map(|(id, site)| Step::Put(id, site)),
        4 => (0..20u8, 0..20u8).prop_map(|(from, to)| Step::Move(from, to)),
        4 => (0..20u8).prop_map(Step::Delete),
        1 => Just(Step::Truncate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_changes_leave_what_a_table_would_hold(steps in prop::collection::vec(step(), 0..120)) {
        let mirror = bays(1 << 20);
        let mut table: BTreeMap<String, String> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(id, site) => {
                    let (id, site) = (format!("{id:02}"), format!("site {site}"));
                    let operation =
                        if table.contains_key(&id) { Operation::Update } else { Operation::Insert };
                    mirror.apply(1, &change(operation, None, Some(&[&id, &site, &id]))).unwrap();
                    table.insert(id, site);
                }
                Step::Move(from, to) => {
                    let (from, to) = (format!("{from:02}"), format!("{to:02}"));
                    if from == to || table.contains_key(&to) {
                        continue;
                    }
                    let Some(site) = table.remove(&from) else { continue };
                    mirror.apply(1, &change(Operation::Update, Some(key(&from)), Some(&[&to, &site, &to]))).unwrap();
                    table.insert(to, site);
                }
                Step::Delete(id) => {
                    let id = format!("{id:02}");
                    if table.remove(&id).is_some() {
                        mirror.apply(1, &change(Operation::Delete, Some(key(&id)), None)).unwrap();
                    }
                }
                Step::Truncate => {
                    mirror.truncate(1, &[relation(&["id"])]);
                    table.clear();
                }
            }
        }
        prop_assert_eq!(mirror.len(BAYS), table.len());
        for site in 0..4 {
            let site = format!("site {site}");
            let expected: Vec<_> = table.iter().filter(|(_, at)| **at == site).map(|(id, _)| id.clone()).collect();
            let found = mirror.lookup_all(BAYS, 1, &[site.as_bytes()]);
            let found: Vec<_> =
                found.iter().map(|row| String::from_utf8(row.cell(0).unwrap().to_vec()).unwrap()).collect();
            prop_assert_eq!(found, expected);
        }
        mirror.truncate(1, &[relation(&["id"])]);
        prop_assert_eq!(mirror.bytes(), 0);
    }
}
