//! What stands in `data`, and what when the log does not have it.

use super::*;

const SCHEMA: &str = "
    bays: *id text, organization_id text, total_slots int, occupied int, note text, =free int, meta jsonb, price numeric, on_sale bool
";

/// A catalog with one event of `bays`, made by every operation.
fn catalog(data: &str) -> String {
    format!(
        "[tables.bays]\norganization = \"organization_id\"\nchannel = \"bays\"\n[[tables.bays.events]]\n\
         type = \"bay\"\non = [\"insert\", \"update\", \"delete\"]\n[tables.bays.events.data]\n{data}"
    )
}

fn bench(data: &str) -> Bench {
    Bench::new(SCHEMA, &catalog(data))
}

const ROW: &str = "b1|o1|10|4|a \"note\"|{\"a\": 1}|9.50|t";

#[test]
fn a_frame_is_an_id_line_and_one_line_of_json() {
    let mut bench =
        bench("price = \"price\"\nid = \"id\"\nonSale = \"on_sale\"\nmeta = \"meta\"\nnote = \"note\"");
    let seen = bench.map(vec![bench.insert("bays", ROW)]);
    assert_eq!(
        seen[0].frame(),
        "id: 00000000000000e1.4096.2\n\
         data: {\"id\":\"00000000000000e1.4096.2\",\"type\":\"bay\",\"timestamp\":1700000000123,\
         \"organizationId\":\"o1\",\"channel\":\"bays\",\"data\":{\"price\":9.50,\"id\":\"b1\",\"onSale\":true,\
         \"meta\":{\"a\": 1},\"note\":\"a \\\"note\\\"\"}}\n\n"
    );
    assert_eq!(bench.problems(), []);
}

#[test]
fn plain_columns_are_of_the_new_row_and_on_delete_of_the_old() {
    let mut bench = bench("id = \"id\"\noccupied = \"occupied\"");
    let change = bench.update("bays", ROW, "b1|o1|10|5|∅|∅|∅|∅");
    assert_eq!(bench.data(change), r#"{"id":"b1","occupied":5}"#);
    let change = bench.delete("bays", ROW);
    assert_eq!(bench.data(change), r#"{"id":"b1","occupied":4}"#);
}

#[test]
fn null_is_left_out_only_where_that_is_asked_for() {
    let mut bench = bench(
        "first = { column = \"note\", omit = \"null\" }\nid = \"id\"\nnote = \"note\"\n\
         gone = { expr = \"new.note\", omit = \"null\" }",
    );
    let change = bench.insert("bays", "b1|o1|10|4|∅|∅|∅|∅");
    assert_eq!(bench.data(change), r#"{"id":"b1","note":null}"#);
    let change = bench.insert("bays", "b1|o1|10|4|x|∅|∅|∅");
    assert_eq!(bench.data(change), r#"{"first":"x","id":"b1","note":"x","gone":"x"}"#);
}

#[test]
fn rows_have_every_column_but_generated_ones_in_camel_case() {
    let mut bench = bench("bay = { row = \"new\" }\nbefore = { row = \"old\" }");
    let new = r#"{"id":"b1","organizationId":"o1","totalSlots":10,"occupied":4,"note":"a \"note\"","meta":{"a": 1},"price":9.50,"onSale":true}"#;
    let change = bench.insert("bays", ROW);
    assert_eq!(bench.data(change), format!(r#"{{"bay":{new},"before":null}}"#));
    let change = bench.delete("bays", ROW);
    assert_eq!(bench.data(change), format!(r#"{{"bay":{new},"before":{new}}}"#));
}

#[test]
fn changed_and_previous_name_what_an_update_changed() {
    let mut bench = bench("changed = { changed = true }\nprevious = { previous = true }");
    let change = bench.update("bays", ROW, "b1|o1|10|5|∅|{\"a\": 1}|9.50|f");
    assert_eq!(
        bench.data(change),
        r#"{"changed":["occupied","note","onSale"],"previous":{"occupied":4,"note":"a \"note\"","onSale":true}}"#
    );
    let change = bench.update("bays", ROW, ROW);
    assert_eq!(bench.data(change), r#"{"changed":[],"previous":{}}"#);
    let change = bench.insert("bays", ROW);
    assert_eq!(
        bench.data(change),
        r#"{"changed":["id","organizationId","totalSlots","occupied","note","meta","price","onSale"],"previous":null}"#
    );
    let change = bench.delete("bays", ROW);
    assert_eq!(bench.data(change), r#"{"changed":[],"previous":null}"#);
}

#[test]
fn values_expressions_and_objects_go_where_they_were_written() {
    let mut bench = bench(
        "kind = { value = { b = [1, 2.5, true], a = \"x\" } }\nempty = { expr = \"new.total_slots - new.occupied\" }\n\
         operation = { expr = \"op\" }\ndetails = { note = \"note\", inner = { price = \"price\" } }\n\
         forced = { object = { value = \"occupied\", row = \"id\" } }",
    );
    let change = bench.insert("bays", ROW);
    assert_eq!(
        bench.data(change),
        concat!(
            r#"{"kind":{"b":[1,2.5,true],"a":"x"},"empty":6,"operation":"insert","#,
            r#""details":{"note":"a \"note\"","inner":{"price":9.50}},"forced":{"value":4,"row":"b1"}}"#
        )
    );
    let change = bench.delete("bays", ROW);
    assert!(bench.data(change).contains(r#""empty":6,"operation":"delete""#));
}

#[test]
fn a_failed_expression_is_null_and_a_problem() {
    let mut bench = bench("ratio = { expr = \"new.occupied / new.total_slots\" }\nid = \"id\"");
    for _ in 0..2 {
        let change = bench.insert("bays", "b1|o1|0|4|∅|∅|∅|∅");
        assert_eq!(bench.data(change), r#"{"ratio":null,"id":"b1"}"#);
    }
    assert_eq!(bench.problems(), [(ProblemKind::Expression, 2)]);
    assert_eq!(bench.mapper.counters().failed_expressions, 2);
    assert_eq!(bench.mapper.problems_revision(), 1);
}

#[test]
fn an_unchanged_toast_value_comes_from_the_old_row() {
    let mut bench =
        bench("note = \"note\"\nchanged = { changed = true }\nloud = { expr = \"new.note + '!'\" }");
    let change = bench.update("bays", "b1|o1|10|4|long|∅|∅|∅", "b1|o1|10|4|~|∅|∅|t");
    assert_eq!(bench.data(change), r#"{"note":"long","changed":["onSale"],"loud":"long!"}"#);
}

#[test]
fn an_unchanged_toast_value_that_is_nowhere_is_left_out_and_named() {
    let data = "id = \"id\"\nnote = \"note\"\ninner = { note = \"note\", id = \"id\" }\nbay = { row = \"new\" }\n\
                loud = { expr = \"new.note + '!'\" }";
    let mut bench = Bench::with(SCHEMA, &catalog(data), ReplicaIdentity::Default, 1 << 20);
    let change = fixture::update_by_key(bench.relation("bays"), None, "b1|o1|10|4|~|~|1|t");
    assert_eq!(
        bench.data(change),
        concat!(
            r#"{"id":"b1","inner":{"id":"b1"},"bay":{"id":"b1","organizationId":"o1","totalSlots":10,"occupied":4,"#,
            r#""price":1,"onSale":true}},"unchanged":["note","inner.note","bay.note","bay.meta","loud"]"#
        )
    );
}

#[test]
fn an_event_above_the_limit_goes_without_its_data() {
    let text = catalog("note = \"note\"");
    let mut bench = Bench::with(SCHEMA, &text, ReplicaIdentity::Full, 200);
    let row = |length: usize| format!("b1|o1|10|4|{}|∅|∅|∅", "x".repeat(length));
    let change = bench.insert("bays", &row(71));
    let fits = bench.json(change);
    assert_eq!(fits.len(), 200);
    let change = bench.insert("bays", &row(72));
    let json = bench.json(change);
    let head = fits.split_once("\"data\":").expect("data").0;
    assert_eq!(json, format!("{head}\"data\":null,\"oversize\":201}}"));
    assert_eq!((bench.mapper.counters().events, bench.mapper.counters().oversize), (2, 1));
}

#[test]
fn old_values_that_were_given_up_do_not_make_an_event_too_large() {
    let text = catalog("previous = { previous = true }");
    let mut bench = Bench::with(SCHEMA, &text, ReplicaIdentity::Full, 200);
    let old = format!("b1|o1|10|4|{}|~|∅|∅", "x".repeat(300));
    let change = bench.update("bays", &old, "b1|o1|10|4|short|{}|∅|∅");
    assert_eq!(bench.data(change), r#"{"previous":null}"#);
    assert_eq!(bench.mapper.counters().oversize, 0);
}

#[test]
fn a_column_that_is_gone_is_null_and_a_problem_until_it_is_back() {
    let mut bench = bench("id = \"id\"\nnote = \"note\"\nloud = { expr = \"new.note\" }");
    let whole = Arc::clone(bench.relation("bays"));
    let mut dropped = (*whole).clone();
    dropped.columns.retain(|column| column.name != "note");
    let dropped = Arc::new(dropped);
    assert_eq!(
        bench.data(fixture::insert(&dropped, "b1|o1|10|4|∅|∅|∅")),
        r#"{"id":"b1","note":null,"loud":null}"#
    );
    assert_eq!(bench.problems(), [(ProblemKind::MissingColumn, 1)]);
    assert_eq!(
        bench.mapper.problems().next().expect("a problem").text,
        "table bays has no column \"note\" any more; events that need it carry null"
    );
    assert_eq!(
        bench.data(fixture::insert(&whole, ROW)),
        r#"{"id":"b1","note":"a \"note\"","loud":"a \"note\""}"#
    );
    assert_eq!(bench.problems(), []);
}

#[test]
fn a_type_that_is_not_known_is_asked_for_a_few_times_and_no_more() {
    let mut bench = bench("id = \"id\"\nnote = \"note\"");
    let mut relation = (**bench.relation("bays")).clone();
    assert!(!bench.mapper.unknown_types(&relation));
    relation.columns[4].type_oid = 99_999;
    let mut elsewhere = relation.clone();
    (elsewhere.name, elsewhere.id) = ("other".to_owned(), RelationId(999));
    let relation = Arc::new(relation);
    for attempt in 0..TYPE_ATTEMPTS {
        bench.mapper.transaction.commit_lsn = Lsn::new(u64::from(attempt));
        assert!(bench.mapper.unknown_types(&relation));
        assert!(!bench.mapper.unknown_types(&relation), "once a transaction");
        assert!(!bench.mapper.unknown_types(&elsewhere), "no event is made of it");
    }
    assert_eq!(bench.data(fixture::insert(&relation, ROW)), r#"{"id":"b1","note":"a \"note\""}"#);
    assert!(!bench.mapper.unknown_types(&relation));
}

#[test]
fn a_type_that_was_learned_changes_how_values_are_written() {
    let mut bench = bench("note = \"note\"");
    let mut relation = (**bench.relation("bays")).clone();
    relation.columns[4].type_oid = 99_999;
    let relation = Arc::new(relation);
    let change = fixture::insert(&relation, "b1|o1|10|4|7|∅|∅|∅");
    assert_eq!(bench.data(change.clone()), r#"{"note":"7"}"#);
    let mut types = Types::builtin();
    types.insert(crate::postgres::schema::Type {
        oid: 99_999,
        schema: "public".to_owned(),
        name: "level".to_owned(),
        kind: crate::postgres::schema::TypeKind::Domain { base: 23 },
    });
    bench.mapper.set_types(Arc::new(types));
    assert!(!bench.mapper.unknown_types(&relation));
    assert_eq!(bench.data(change), r#"{"note":7}"#);
}
