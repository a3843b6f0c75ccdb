use proptest::prelude::*;

use super::*;
use crate::postgres::schema::{self, Type};

const LOT: u32 = 20_000;
const LOTS: u32 = 20_001;
const MOOD: u32 = 20_002;
const WHOLE: u32 = 20_003;
const WHOLES: u32 = 20_004;
const LIST: u32 = 20_005;
const LISTS: u32 = 20_006;
const EMPTY: u32 = 20_007;

fn types() -> Types {
    let mut types = Types::builtin();
    let field = |name: &str, type_oid: u32| schema::Field { name: name.to_owned(), type_oid };
    let array = |element| TypeKind::Array { element, delimiter: b',' };
    let lot = [field("id", 23), field("na\"me", 25), field("seen", 1115), field("next", LISTS)];
    for (oid, kind) in [
        (LOT, TypeKind::Composite { fields: lot.to_vec() }),
        (LOTS, array(LOT)),
        (MOOD, TypeKind::Enum),
        (WHOLE, TypeKind::Domain { base: 20 }),
        (WHOLES, array(WHOLE)),
        (LIST, TypeKind::Domain { base: 1016 }),
        (LISTS, array(LIST)),
        (EMPTY, TypeKind::Composite { fields: Vec::new() }),
    ] {
        types.insert(Type { oid, schema: "public".to_owned(), name: format!("t{oid}"), kind });
    }
    types
}

fn encoded(oid: u32, text: &str) -> String {
    let mut out = BytesMut::from(&b"before"[..]);
    Encoder::new(&types(), oid).encode(text.as_bytes(), &mut out);
    String::from_utf8(out[6..].to_vec()).unwrap()
}

#[track_caller]
fn check(oid: u32, cases: &[(&str, &str)]) {
    for (text, json) in cases {
        assert_eq!(encoded(oid, text), *json, "type {oid}, {text}");
    }
}

#[test]
fn scalars_are_what_to_json_prints() {
    check(16, &[("t", "true"), ("f", "false")]);
    check(23, &[("-7", "-7")]);
    check(701, &[("1e+300", "1e+300"), ("-0", "-0"), ("NaN", r#""NaN""#), ("-Infinity", r#""-Infinity""#)]);
    check(1700, &[("1.50", "1.50"), ("NaN", r#""NaN""#)]);
    check(25, &[("", r#""""#), ("1", r#""1""#), ("a\n\"b\"", r#""a\n\"b\"""#)]);
    check(17, &[(r"\x00ff", r#""\\x00ff""#)]);
    check(1082, &[("2024-02-29", r#""2024-02-29""#), ("0044-03-15 BC", r#""0044-03-15 BC""#)]);
    check(3802, &[("{\"a\": [1]}", "{\"a\": [1]}")]);
    check(MOOD, &[("sad", r#""sad""#)]);
    check(WHOLE, &[("12", "12")]);
    check(3904, &[("[1,5)", r#""[1,5)""#)]);
    check(99_999, &[("what", r#""what""#)]);
}

#[test]
fn timestamps_become_iso_8601() {
    check(
        1114,
        &[
            ("2024-02-29 12:00:00.5", r#""2024-02-29T12:00:00.5""#),
            ("0044-03-15 00:00:00 BC", r#""0044-03-15T00:00:00 BC""#),
            ("294276-12-31 23:59:59.999999", r#""294276-12-31T23:59:59.999999""#),
            ("infinity", r#""infinity""#),
        ],
    );
    check(
        1184,
        &[
            ("2024-02-29 12:00:00+00", r#""2024-02-29T12:00:00+00:00""#),
            ("2024-02-29 12:00:00-05:30", r#""2024-02-29T12:00:00-05:30""#),
            ("0044-03-15 00:00:00+00 BC", r#""0044-03-15T00:00:00+00:00 BC""#),
            ("-infinity", r#""-infinity""#),
        ],
    );
}

#[test]
fn arrays_nest_quote_and_forget_their_bounds() {
    check(
        1007,
        &[
            ("{}", "[]"),
            ("{1,NULL,3}", "[1,null,3]"),
            ("{{1,2},{3,4}}", "[[1,2],[3,4]]"),
            ("[2:3]={1,2}", "[1,2]"),
            ("[0:0][1:2]={{1,2}}", "[[1,2]]"),
        ],
    );
    check(
        1009,
        &[
            (r#"{"",NULL,"NULL",null}"#, r#"["",null,"NULL","null"]"#),
            (r#"{"a\"b\\","c,d","{e}"," f"}"#, r#"["a\"b\\","c,d","{e}"," f"]"#),
        ],
    );
    check(1115, &[(r#"{"2024-01-01 00:00:00",infinity}"#, r#"["2024-01-01T00:00:00","infinity"]"#)]);
    check(1020, &[("{(1,1),(0,0);(2,2),(1,1)}", r#"["(1,1),(0,0)","(2,2),(1,1)"]"#)]);
    check(22, &[("1 2 3", "[1,2,3]"), ("", "[]")]);
    check(1006, &[(r#"{"1 2",""}"#, "[[1,2],[]]")]);
    check(WHOLES, &[("{1,2}", "[1,2]")]);
    check(LISTS, &[(r#"{"{1,2}",NULL,"{}"}"#, "[[1,2],null,[]]")]);
}

#[test]
fn composites_become_objects() {
    check(
        LOT,
        &[
            ("(,,,)", r#"{"id":null,"na\"me":null,"seen":null,"next":null}"#),
            (
                r#"(1,"a ""b"" \\ c","{""2024-01-01 00:00:00""}","{""{1,2}""}")"#,
                r#"{"id":1,"na\"me":"a \"b\" \\ c","seen":["2024-01-01T00:00:00"],"next":[[1,2]]}"#,
            ),
            (r#"(1,"","{}",)"#, r#"{"id":1,"na\"me":"","seen":[],"next":null}"#),
            (r#"(1,"""",,)"#, r#"{"id":1,"na\"me":"\"","seen":null,"next":null}"#),
        ],
    );
    check(LOTS, &[(r#"{"(1,\"x \"\"y\",,)"}"#, r#"[{"id":1,"na\"me":"x \"y","seen":null,"next":null}]"#)]);
    check(EMPTY, &[("()", "{}")]);
}

#[test]
fn text_that_is_not_of_its_type_becomes_a_string() {
    check(16, &[("true", r#""true""#)]);
    check(114, &[("{", r#""{""#)]);
    check(1114, &[("a b", r#""a b""#)]);
    check(1007, &[("", r#""""#), ("{1", r#""{1""#), ("{1}}", r#""{1}}""#), ("{1,}", r#""{1,}""#)]);
    check(1007, &[("{\"1", r#""{\"1""#), ("1,2", r#""1,2""#), ("[1", r#""[1""#), ("{{1}", r#""{{1}""#)]);
    check(LOT, &[("(1,2)", r#""(1,2)""#), ("(,,,,)", r#""(,,,,)""#), ("", r#""""#), ("(\"", r#""(\"""#)]);
}

#[test]
fn a_type_that_contains_itself_ends() {
    let mut types = types();
    types.insert(Type {
        oid: LOT,
        schema: "public".to_owned(),
        name: "lot".to_owned(),
        kind: TypeKind::Composite { fields: vec![schema::Field { name: "lot".to_owned(), type_oid: LOT }] },
    });
    let mut out = BytesMut::new();
    Encoder::new(&types, LOT).encode(b"((", &mut out);
    assert_eq!(&out[..], br#""((""#);
}

/// Pieces that the grammars are made of, in any order.
fn hostile_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "{",
            "}",
            "(",
            ")",
            "[",
            "]",
            ",",
            ";",
            "\"",
            "\"\"",
            "\\",
            "=",
            " ",
            "NULL",
            "1",
            "-",
            "t",
            "\n",
            "2024-01-01 00:00:00+00",
            " BC",
            "infinity",
            "é",
            "{}",
            "()",
            "null",
            ":",
            "1e5",
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
        prop::collection::vec(any::<char>(), 0..3)
            .prop_map(|chars| chars.iter().collect::<String>().into_bytes()),
    ];
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_of_any_type_gives_one_json_value_on_one_line(
        text in hostile_text(),
        oid in prop::sample::select(vec![
            16, 23, 25, 114, 701, 1007, 1009, 1020, 1114, 1115, 1184, 199, 22, 1006, LOT, LOTS, LISTS, EMPTY,
        ]),
    ) {
        let mut out = BytesMut::new();
        Encoder::new(&types(), oid).encode(&text, &mut out);
        let json: Result<serde_json::Value, _> = serde_json::from_slice(&out);
        // serde_json's own number and surrogate limits are stricter than the grammar.
        let valid = json.is_ok() || serde_json::from_slice::<serde::de::IgnoredAny>(&out).is_ok();
        prop_assert!(valid, "{}", String::from_utf8_lossy(&out));
        prop_assert!(!out.contains(&b'\n') && !out.contains(&b'\r'));
    }

    #[test]
    fn any_bytes_at_all_are_survived(text in prop::collection::vec(any::<u8>(), 0..40), oid in 0_u32..6200) {
        let mut out = BytesMut::new();
        Encoder::new(&types(), oid).encode(&text, &mut out);
        prop_assert!(!out.is_empty());
    }
}
