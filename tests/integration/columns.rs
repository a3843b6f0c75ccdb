//! Values on their whole way: a column of every type, types made or changed while the worker runs, and text that
//! would break a frame if it could. PostgreSQL says what is right.

use crate::bench::app::{Member, TestApp};

/// A type, and values that are hard on it.
const COLUMNS: &[(&str, &[&str])] = &[
    ("bool", &["t", "f"]),
    ("int2", &["-32768"]),
    ("int4", &["2147483647"]),
    ("int8", &["-9223372036854775808", "9007199254740993"]),
    ("float4", &["NaN", "-Infinity", "0.1", "1e-40"]),
    ("float8", &["-0", "Infinity", "0.1", "1e300", "5e-324"]),
    (
        "numeric",
        &[
            "NaN",
            "Infinity",
            "-0.00",
            "1e-300",
            "123456789012345678901234567890.123456789012345678901234567890",
        ],
    ),
    ("numeric(14,2)", &["0", "999999999999.99"]),
    (
        "text",
        &[
            "",
            "\"\\/\u{8}\u{c}",
            "\u{2028}\u{2029}\u{85}\u{feff}\u{fffd}\u{10ffff}",
            "data: x\r\n\r\nid: 1\n\n",
            "</script>",
        ],
    ),
    ("varchar(3)", &["ab "]),
    ("char(5)", &["ab"]),
    ("name", &["a\"b"]),
    ("bytea", &["\\x00ff0a0d"]),
    ("uuid", &["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"]),
    ("date", &["infinity", "-infinity", "0044-03-15 BC", "5874897-12-31"]),
    ("time", &["24:00", "01:02:03.000001"]),
    ("timetz", &["12:34:56.7-05:30"]),
    ("timestamp", &["infinity", "0044-03-15 12:00:00 BC", "12345-06-07 08:09:10.1"]),
    ("timestamptz", &["-infinity", "2026-03-29 02:30:00 Europe/Berlin", "0001-01-01 00:00:00+00 BC"]),
    ("interval", &["-1 year -2 mons +3 days -04:05:06.7", "0"]),
    (
        "json",
        &["{\n\"a\":\r\n [1,\t2]}\n", "\"\\u0000\\ud83d\\u2028\"", "{\"a\":1,\"a\":2}", "null", " 1E5 "],
    ),
    ("jsonb", &["{\"a\": \"\\n\", \"b\": [1e1000]}", "null", "\"\\\\u0000\""]),
    ("xml", &["<a b=\"c\">\n&lt;</a>"]),
    ("inet", &["10.0.0.1/8", "::ffff:1.2.3.4"]),
    ("money", &["-1234.56"]),
    ("bit(7)", &["1010101"]),
    ("point", &["(NaN,1e300)"]),
    ("box", &["(1,2),(3,4)"]),
    ("int4range", &["empty", "[1,5]", "(,)"]),
    ("tstzrange", &["[2026-01-01,infinity)"]),
    ("int4multirange", &["{[1,2],[5,7]}"]),
    ("tsvector", &["'a b':1A 'c'"]),
    ("oid", &["4294967295"]),
    ("pg_lsn", &["1/A"]),
    ("text[]", &["{}", "{NULL,\"NULL\",\"a\\nb\",\"\\\"\",\"{}\",\"\"}", "[0:1]={a,b}"]),
    ("int4[]", &["{{1,NULL},{3,4}}"]),
    ("box[]", &["{(1,2),(3,4);(5,6),(7,8)}"]),
    ("timestamptz[]", &["{infinity,2026-01-01 00:00:00+00}"]),
    ("jsonb[]", &["{\"{\\\"a\\\": 1}\",null}"]),
    ("mood", &["o k", "q\"uote"]),
    ("mood[]", &["{\"o k\",NULL}"]),
    ("whole", &["5"]),
    ("wholes", &["{1,2}"]),
    ("pair", &["(1,\"a \"\"b\"\"\")", "(,)", "(1,\"\")"]),
    ("pair[]", &["{\"(1,x)\",NULL}"]),
    ("nested", &["(\"(1,\"\"x,y\"\")\",\"{\"\"(2,z)\"\"}\",infinity)"]),
];

const TYPES: &str = r#"
    create type mood as enum ('sad', 'o k', 'q"uote');
    create domain whole as int8 check (value > 0);
    create domain wholes as int4[];
    create type pair as ("the number" int, note text);
    create type nested as (one pair, many pair[], at timestamptz);
"#;

const CATALOG: &str = r#"
[tables.things]
organization = "organization_id"
channel = "things"
[[tables.things.events]]
type = "thing"
on = ["insert", "update"]
data = { row = { row = "new" } }
"#;

async fn with_things(before: &str) -> (TestApp, Member) {
    let app = TestApp::builder().before(before).catalog(CATALOG).start().await;
    let member = app.member("o1", "u1", "admin").await;
    (app, member)
}

#[tokio::test]
pub async fn a_column_of_every_type_says_what_to_json_says_whatever_the_database_is_set_to() {
    let mut columns = vec!["id".to_owned(), "organization_id".to_owned()];
    let mut table = "create table things (id int primary key, organization_id text".to_owned();
    for (index, (sql, _)) in COLUMNS.iter().enumerate() {
        columns.push(format!("c{index}"));
        table.push_str(&format!(", c{index} {sql}"));
    }
    let settings = "do $$ begin
        execute format('alter database %I set datestyle = ''German, DMY''', current_database());
        execute format('alter database %I set intervalstyle = ''iso_8601''', current_database());
        execute format('alter database %I set bytea_output = ''escape''', current_database());
        execute format('alter database %I set extra_float_digits = -5', current_database());
        execute format('alter database %I set timezone = ''Asia/Tokyo''', current_database());
        execute format('alter database %I set standard_conforming_strings = off', current_database());
        execute format('alter database %I set search_path = ''pg_catalog, public''', current_database());
        end $$;";
    let (app, member) = with_things(&format!("{TYPES} {table}); {settings}")).await;
    let mut stream = app.open(&member, "").await;
    let most = COLUMNS.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    for id in 0..=most {
        let mut values = vec![id.to_string(), "'o1'".to_owned()];
        for (_, given) in COLUMNS {
            values.push(given.get(id).map_or("null".to_owned(), |value| quoted(value)));
        }
        app.sql("set timezone = 'UTC'; set datestyle = 'ISO, MDY'").await;
        app.sql(&format!("insert into public.things values ({})", values.join(", "))).await;
    }
    // As the specification has it, whatever the database's own settings are.
    app.sql(
        "set timezone = 'UTC'; set datestyle = 'ISO'; set intervalstyle = 'postgres'; set extra_float_digits = 1;
         set bytea_output = 'hex'; set search_path = public",
    )
    .await;
    let fields: Vec<_> = columns
        .iter()
        .map(|column| {
            let name = column.replace("organization_id", "organizationId");
            format!("'\"{name}\":' || coalesce(to_json({column})::text, 'null')")
        })
        .collect();
    for id in 0..=most {
        let sql = format!("select {} from things where id = {id}", fields.join(" || ',' || "));
        let expected = app.text(&sql).await.replace(['\n', '\r'], " ");
        // Its numbers may be larger than a parser's: the frame's bytes are compared.
        assert_row(&stream.data().await.data.unwrap(), &expected);
    }
}

/// Column by column, so that what differs is seen.
#[track_caller]
fn assert_row(data: &str, expected: &str) {
    let row = data.split_once("\"row\":{").unwrap().1.strip_suffix("}}}").unwrap();
    for (index, (one, other)) in row.split(",\"c").zip(expected.split(",\"c")).enumerate() {
        assert_eq!(one, other, "{:?}", COLUMNS.get(index.wrapping_sub(1)));
    }
    assert_eq!(row, expected);
}

#[tokio::test]
pub async fn types_that_were_made_while_it_runs_are_known() {
    let (app, member) = with_things("create table things (id int primary key, organization_id text)").await;
    let mut stream = app.open(&member, "").await;
    let steps = [
        ("create type mood as enum ('sad', 'o k'); alter table things add feeling mood", "feeling", "'o k'"),
        ("alter type mood add value 'new'", "feeling", "'new'"),
        ("create domain whole as int8; alter table things add whole whole", "whole", "5"),
        ("alter table things add wholes whole[]", "wholes", "'{1,2}'"),
        (
            "create type pair as (n int, note text); alter table things add pair pair, add pairs pair[]",
            "pairs",
            "array[(1, 'a')::pair]",
        ),
        ("alter table things alter whole type numeric", "whole", "1.50"),
        ("alter table things alter whole type text", "whole", "'text'"),
        ("create domain flag as bool; alter table things drop whole, add flag flag", "flag", "true"),
    ];
    for (id, (ddl, column, value)) in (1..).zip(steps) {
        let insert =
            format!("insert into things (id, organization_id, {column}) values ({id}, 'o1', {value})");
        if ddl.contains("add value") {
            // A new label can't be used in the transaction that adds it.
            app.sql(ddl).await;
            app.sql(&insert).await;
        } else {
            app.transaction(&format!("{ddl}; {insert}")).await;
        }
        let expected = app.text(&format!("select to_json({column}) from things where id = {id}")).await;
        let event = stream.event().await;
        let data = event.data.unwrap();
        assert!(data.contains(&format!("\"{column}\":{expected}")), "{ddl}: {expected} in {data}");
    }
}
