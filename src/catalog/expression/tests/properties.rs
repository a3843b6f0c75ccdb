//! Whatever is written, it is refused, runs or fails; it never panics.

use proptest::prelude::*;

use super::*;

/// Expressions that parse, whatever their types.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "new.id",
        "old.id",
        "lot.name",
        "new.occupied",
        "new.ratio",
        "new.open",
        "new.name",
        "new.seen_at",
        "new.metadata",
        "new.metadata.a",
        "changed",
        "op",
        "null",
        "true",
        "0",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "1u",
        "18446744073709551615u",
        "0.0",
        "-1e308",
        "'a'",
        "''",
        "b'x'",
        "[]",
        "{}",
        "'-9223372036854775809'",
        "1e-320",
        "duration('315576000000s')",
        "duration('-1ns')",
        "timestamp('9999-12-31T23:59:59.999999999Z')",
        "timestamp('0001-01-01T00:00:00Z')",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 24, 3, |inner| {
        let binary = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in",
        ]);
        let function = prop::sample::select(vec![
            "-", "!", "size", "int", "uint", "double", "bool", "string", "bytes", "timestamp", "duration",
        ]);
        let method = prop::sample::select(vec![
            "size()", "getFullYear()", "getDayOfYear()", "getHours('Europe/Berlin')", "getHours('+99:99')", "getSeconds()",
            "getMilliseconds()", "getDayOfWeek('é')", "contains('a')", "startsWith('')",
        ]);
        prop_oneof![
            3 => (inner.clone(), binary, inner.clone()).prop_map(|(a, operator, b)| format!("({a}) {operator} ({b})")),
            2 => (function, inner.clone()).prop_map(|(function, a)| format!("{function}({a})")),
            2 => (inner.clone(), method).prop_map(|(a, method)| format!("({a}).{method}")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a}) ? ({b}) : ({c})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{{a}: {b}}}")),
            1 => prop::collection::vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn any_source_compiles_or_is_refused_and_runs_or_fails(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "new", "old", "lot", ".", "id", "name", "metadata", "seen_at", "(", ")", "[", "]", "{", "}", "'a'", "1",
            "-", "0.5", "+", "*", "/", "%", "==", "null", "? ", ":", ",", "in", "changed", "op", "&&", "!", "size(",
            "has(", "int(", "timestamp(", "duration('1h')", "getHours()", "9223372036854775807", " ", "\n", "é", "\"",
            "1u", "string(", "double(", "b'x'", "true", "\\", "`",
        ]), 0..14),
    ) {
        let source = pieces.concat();
        match Expression::compile(&source, &scope()) {
            Err(error) => prop_assert!(error.offset <= source.len() && !error.message.is_empty()),
            Ok(expression) => {
                let change = Change::new(&[
                    ("id", "-9223372036854775808"),
                    ("name", "n"),
                    ("metadata", r#"{"a":[1]}"#),
                    ("seen_at", "2024-01-01 00:00:00+00"),
                ]);
                if let Ok(value) = expression.evaluate(&change) {
                    let mut out = BytesMut::new();
                    value.encode(&mut out);
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
                }
            }
        }
    }

    #[test]
    fn any_expression_gives_json_or_an_error(source in expression()) {
        let change = Change::new(&[
            ("id", "-9223372036854775808"),
            ("occupied", "7"),
            ("ratio", "NaN"),
            ("open", "f"),
            ("name", "n"),
            ("metadata", r#"{"a":[1, {"b": 0.5}]}"#),
            ("seen_at", "9999-12-31 23:59:59.999999+00"),
        ]);
        // A string in `changed` that is no column is refused.
        let Ok(expression) = Expression::compile(&source, &scope()) else { return Ok(()) };
        let result = expression.evaluate(&change.with(Scope::OLD, &[("id", "1")]));
        if let Ok(value) = result {
            let mut out = BytesMut::new();
            value.encode(&mut out);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
        }
    }
}
