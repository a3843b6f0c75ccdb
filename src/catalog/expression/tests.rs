use std::collections::HashMap;
use std::sync::Mutex;

use super::*;
use crate::postgres::schema::Types;
use crate::source::Operation;
use bytes::BytesMut;

mod properties;

const COLUMNS: [(&str, u32); 12] = [
    ("id", 20),
    ("occupied", 23),
    ("total_slots", 23),
    ("price", 1700),
    ("ratio", 701),
    ("open", 16),
    ("name", 25),
    ("seen_at", 1184),
    ("left_at", 1114),
    ("metadata", 3802),
    ("day", 1082),
    ("Odd name", 25),
];
const LOT: usize = 2;

fn scope() -> Scope {
    let types = Types::builtin();
    let mut scope = Scope::new(&types, COLUMNS);
    assert_eq!(scope.add_row(&types, "lot", [("name", 25), ("total_slots", 23)]), LOT);
    scope
}

/// Rows by name, as a test writes them: what is not there is null, a row without an entry is not there.
#[derive(Default)]
struct Change {
    rows: HashMap<usize, HashMap<&'static str, &'static str>>,
    unavailable: Vec<&'static str>,
    changed: Vec<&'static str>,
    read: Mutex<Vec<(usize, usize)>>,
}

impl Change {
    fn new(cells: &[(&'static str, &'static str)]) -> Self {
        Self::default().with(Scope::NEW, cells)
    }

    fn with(mut self, row: usize, cells: &[(&'static str, &'static str)]) -> Self {
        self.rows.insert(row, cells.iter().copied().collect());
        self
    }

    fn name(row: usize, column: usize) -> &'static str {
        if row == LOT { ["name", "total_slots"][column] } else { COLUMNS[column].0 }
    }
}

impl Rows for Change {
    fn has_row(&self, row: usize) -> bool {
        self.rows.contains_key(&row)
    }

    fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        self.read.lock().unwrap().push((row, column));
        let name = Self::name(row, column);
        if self.unavailable.contains(&name) {
            return Cell::Unavailable;
        }
        self.rows[&row].get(name).map_or(Cell::Null, |text| Cell::Text(text.as_bytes()))
    }

    fn changed(&self, column: usize) -> bool {
        self.changed.contains(&COLUMNS[column].0)
    }

    fn operation(&self) -> Operation {
        Operation::Update
    }
}

fn compile(source: &str) -> Expression {
    Expression::compile(source, &scope()).unwrap_or_else(|error| panic!("{source}: {error}"))
}

fn json(source: &str, change: &Change) -> String {
    let value = compile(source).evaluate(change).unwrap_or_else(|error| panic!("{source}: {error}"));
    let mut out = BytesMut::new();
    value.encode(&mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

fn failure(source: &str, change: &Change) -> EvalError {
    compile(source).evaluate(change).expect_err(source)
}

fn refusal(source: &str) -> (usize, String) {
    let error = Expression::compile(source, &scope()).expect_err(source);
    (error.offset, error.message)
}

#[test]
fn columns_have_the_types_of_their_columns() {
    let change = Change::new(&[
        ("id", "9223372036854775807"),
        ("price", "12.50"),
        ("ratio", "NaN"),
        ("open", "t"),
        ("name", "a \"b\"\n"),
        ("seen_at", "2024-02-29 12:00:00.5+00"),
        ("left_at", "2024-02-29 12:00:00"),
        ("metadata", r#"{"a": [1, 2.5, null, true], "z": {"k": "v"}, "big": 9007199254740993}"#),
        ("day", "2024-02-29"),
        ("Odd name", "odd"),
    ]);
    for (source, expected) in [
        ("new.id", "9223372036854775807"),
        ("new.price", "12.5"),
        ("new.ratio", r#""NaN""#),
        ("new.open", "true"),
        ("new.name", r#""a \"b\"\n""#),
        ("new.occupied", "null"),
        ("new.seen_at", r#""2024-02-29T12:00:00.5+00:00""#),
        ("new.seen_at + duration('1h')", r#""2024-02-29T13:00:00.5+00:00""#),
        ("(new.seen_at - new.left_at) == duration('500ms')", "true"),
        ("new.seen_at.getFullYear()", "2024"),
        ("new.seen_at.getHours('Europe/Berlin')", "13"),
        ("new.metadata", r#"{"a":[1,2.5,null,true],"big":9007199254740993,"z":{"k":"v"}}"#),
        ("new.metadata.a[1]", "2.5"),
        ("new.metadata.z.k", r#""v""#),
        ("has(new.metadata.q)", "false"),
        ("new['Odd name'] + '!'", r#""odd!""#),
        ("new.day < '2024-03-01'", "true"),
        ("{'b': new.open, 'a': [new.id, 1.0]}", r#"{"a":[9223372036854775807,1],"b":true}"#),
        ("op", r#""update""#),
    ] {
        assert_eq!(json(source, &change), expected, "{source}");
    }
}

#[test]
fn timestamps_out_of_reach_pass_through_as_text() {
    for text in ["infinity", "-infinity", "0044-03-15 00:00:00+00 BC", "12024-01-01 00:00:00+00"] {
        assert_eq!(json("new.seen_at", &Change::new(&[("seen_at", text)])), format!("\"{text}\""));
    }
    for (text, expected) in [
        ("0001-01-01 00:00:00+00", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31 23:59:59.999999+00", "9999-12-31T23:59:59.999999+00:00"),
        ("2024-01-01 00:30:00+05:30", "2023-12-31T19:00:00+00:00"),
    ] {
        assert_eq!(json("new.seen_at", &Change::new(&[("seen_at", text)])), format!("\"{expected}\""));
    }
}

#[test]
fn a_ratio_guards_its_division() {
    let source = "lot.total_slots == 0 ? 0.0 : double(new.occupied) / double(lot.total_slots)";
    for (occupied, total, expected) in
        [("1", "2", "0.5"), ("2", "2", "1"), ("0", "0", "0"), ("1", "3", "0.3333333333333333")]
    {
        let change = Change::new(&[("occupied", occupied)]).with(LOT, &[("total_slots", total)]);
        assert_eq!(json(source, &change), expected);
    }
}

#[test]
fn a_missing_row_is_null_and_its_columns_are_errors() {
    let change = Change::new(&[("occupied", "1")]);
    assert_eq!(json("lot == null", &change), "true");
    assert_eq!(json("null != lot", &change), "false");
    assert_eq!(json("has(lot.name)", &change), "false");
    assert_eq!(json("lot == null ? 'gone' : lot.name", &change), "\"gone\"");
    assert_eq!(failure("lot.name", &change), EvalError::NoRow("lot".to_owned()));
    let there = change.with(LOT, &[("name", "P1")]);
    assert_eq!(json("lot != null && lot.name == 'P1'", &there), "true");
    assert_eq!(json("has(lot.name)", &there), "true");
    assert_eq!(json("has(lot.total_slots)", &there), "false");
}

#[test]
fn changed_lists_names_of_columns() {
    let change = Change { changed: vec!["occupied", "name"], ..Change::new(&[]) };
    assert_eq!(json("changed", &change), r#"["occupied","name"]"#);
    assert_eq!(json("'name' in changed && !('price' in changed)", &change), "true");
    assert_eq!(json("size(changed)", &change), "2");
}

#[test]
fn only_columns_that_are_met_are_read() {
    let change = Change::new(&[("open", "t"), ("name", "x")]);
    assert_eq!(json("new.open || new.metadata.a.b.c", &change), "true");
    assert_eq!(*change.read.lock().unwrap(), [(Scope::NEW, 5)]);
}

#[test]
fn what_the_log_does_not_have_is_an_error() {
    let change = Change { unavailable: vec!["name"], ..Change::new(&[("price", "x")]) };
    assert_eq!(failure("new.name", &change), EvalError::Unavailable("new.name".to_owned()));
    assert_eq!(failure("new.price", &change), EvalError::Unreadable("new.price".to_owned()));
}

#[test]
fn arithmetic_that_fails_is_an_error() {
    let change = Change::new(&[
        ("id", "9223372036854775807"),
        ("occupied", "-9223372036854775808"),
        ("total_slots", "0"),
        ("ratio", "1e300"),
        ("seen_at", "9999-12-31 00:00:00+00"),
    ]);
    for source in ["new.id + 1", "-new.occupied", "new.occupied / -1", "new.id * 2", "new.occupied - 1"] {
        assert_eq!(failure(source, &change), EvalError::Overflow, "{source}");
    }
    for source in ["1 / new.total_slots", "1 % new.total_slots", "new.id / 0", "1u / 0u"] {
        assert_eq!(failure(source, &change), EvalError::DivisionByZero, "{source}");
    }
    for source in [
        "new.occupied % -1",
        "int(new.ratio)",
        "uint(-1)",
        "new.seen_at + duration('9999999h')",
        "timestamp('no')",
        "duration('9999999999999999999h')",
        "new.metadata.a",
        "[1][5]",
        "[1][-1]",
        "{}.a",
        "1 + 1.0",
        "new.name + 'x'",
        "new.seen_at.getHours('Nowhere')",
    ] {
        assert!(compile(source).evaluate(&change).is_err(), "{source}");
    }
    assert_eq!(json("1.0 / 0.0", &change), "\"Infinity\"");
}

#[test]
fn an_error_quotes_no_value() {
    let change = Change::new(&[("name", "secret"), ("metadata", r#"{"k":"secret"}"#)]);
    for source in [
        "new.name + 1",
        "new.name < 1",
        "int(new.name)",
        "timestamp(new.name)",
        "duration(new.name)",
        "{'a': 1}[new.name]",
        "{new.name: 1, new.name: 2}",
        "new.metadata[new.name]",
        "-new.name",
        "!new.name",
        "new.name && true",
        "new.seen_at.getHours(new.name)",
        "double(new.name)",
        "bool(new.name)",
        "[1][new.name]",
    ] {
        let error = failure(source, &change);
        assert!(!format!("{error} {error:?}").contains("secret"), "{source}: {error:?}");
    }
}

#[test]
fn what_is_not_there_is_refused_with_its_place() {
    let columns = "known: \"id\", \"occupied\", \"total_slots\", \"price\", \"ratio\", \"open\", \"name\", \"seen_at\", \
                   \"left_at\", \"metadata\", \"day\", \"Odd name\"";
    assert_eq!(
        refusal("1 + new.ocupied"),
        (4, "new has no column \"ocupied\"; did you mean \"occupied\"?".to_owned())
    );
    assert_eq!(refusal("new['xyz']"), (5, format!("new has no column \"xyz\"; {columns}")));
    assert_eq!(refusal("'xyz' in changed"), (1, format!("new has no column \"xyz\"; {columns}")));
    assert_eq!(
        refusal("has(lot.x)"),
        (4, "lot has no column \"x\"; known: \"name\", \"total_slots\"".to_owned())
    );
    assert_eq!(refusal("1 + lott"), (4, "there is no variable \"lott\"; did you mean \"lot\"?".to_owned()));
    assert_eq!(
        refusal("size(new)"),
        (5, "new is a row: name a column of it (new.column), or compare it with null".to_owned())
    );
    assert_eq!(
        refusal("old[new.name]"),
        (0, "a column of old is named by a string: old[\"column\"]".to_owned())
    );
    assert_eq!(refusal("new.name.matches('a+')").0, 9);
    assert_eq!(refusal("shout(new.name)").0, 0);
    assert_eq!(refusal("Thing{a: 1}"), (0, "there is no type Thing to construct".to_owned()));
    assert_eq!(refusal("1 +\n + 2").0, 5);
    assert_eq!(refusal("").0, 0);
    assert_eq!(refusal("'a").0, 0);
}

#[test]
fn nothing_loops() {
    for source in [
        "new.metadata.all(x, x > 1)",
        "changed.exists(x, x == 'name')",
        "changed.exists_one(x, x == 'name')",
        "changed.map(x, x)",
        "changed.filter(x, true)",
        "[1].map(x, true, x)",
    ] {
        let (_, message) = refusal(source);
        assert!(message.contains("can't loop"), "{source}: {message}");
    }
}

#[test]
fn size_and_nesting_are_capped() {
    let long = format!("'{}'", "x".repeat(MAX_SOURCE));
    assert!(refusal(&long).1.starts_with("an expression is at most 4096 bytes long"));
    let deep = [
        format!("{}1{}", "1+(".repeat(800), ")".repeat(800)),
        format!("{}1", "!-".repeat(2000)),
        format!("{}1{}", "[".repeat(2000), "]".repeat(2000)),
        format!("1{}", "+1".repeat(2000)),
        format!("new.metadata{}", ".a".repeat(2000)),
        format!("new.metadata{}", "[0]".repeat(1300)),
        format!("new.metadata{}", ".size()".repeat(500)),
        format!("{}1", "true ? 1 : ".repeat(350)),
        format!("{}1{}", "size(".repeat(600), ")".repeat(600)),
        format!("{}1", "-(-".repeat(1000)),
        format!("{}1{}", "{1:".repeat(1000), "}".repeat(1000)),
    ];
    for source in deep {
        let (_, message) = refusal(&source);
        assert!(
            message.contains("in one another") || message.contains("recursion limit"),
            "{source}: {message}"
        );
    }
    compile(&format!("true{}", " && true".repeat(400)));
    compile(&format!("'{}'", "-".repeat(1000)));
}

#[test]
fn operands_and_results_are_capped() {
    let text: &'static str = "x".repeat(MAX_RESULT).leak();
    let change = Change::new(&[("name", text)]);
    assert_eq!(json("size(new.name)", &change), MAX_RESULT.to_string());
    assert_eq!(failure("new.name + 'x'", &change), EvalError::ResultTooLarge);
    assert_eq!(failure("[new.name]", &change), EvalError::ResultTooLarge);
    let text: &'static str = "x".repeat(MAX_OPERAND + 1).leak();
    let change = Change::new(&[("name", text)]);
    assert_eq!(failure("size(new.name)", &change), EvalError::OperandTooLarge("new.name".to_owned()));
}

#[test]
fn references_tell_what_must_be_there() {
    let expression =
        compile("has(old.price) || lot != null && 'name' in changed || op == 'insert' || new.id == old.id");
    let references = expression.references();
    assert_eq!(references.columns(Scope::OLD).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(references.columns(Scope::NEW).collect::<Vec<_>>(), [0]);
    assert_eq!(references.columns(LOT).count(), 0);
    assert!(references.uses_row(LOT) && references.uses_operation());
    assert_eq!(*references.changed(), Changed::Columns([6].into()));
    assert_eq!(*compile("'name' in changed || size(changed) > 1").references().changed(), Changed::All);
    let nothing = compile("1 == 1");
    assert_eq!(*nothing.references(), References::default());
}

#[test]
fn durations_and_bytes_must_be_converted() {
    let change = Change::new(&[]);
    assert!(matches!(failure("duration('1h')", &change), EvalError::NoJson(_)));
    assert!(matches!(failure("[b'x']", &change), EvalError::NoJson(_)));
    assert_eq!(json("duration('1h').getSeconds()", &change), "3600");
    assert_eq!(json("string(duration('1h'))", &change), "\"3600s\"");
}
