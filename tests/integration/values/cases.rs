//! Types with values of theirs: fixed nasty ones, and generators of more.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use walcast::postgres::Client;

use super::generators::{date, hex, json, ordered, point, points, text, time, timestamp, written};

/// Generated values a type, beside the fixed ones.
const ROWS: usize = 60;

/// A type, some of its values as it reads them, and a way to more.
pub(super) struct Case {
    pub(super) sql: String,
    fixed: Vec<String>,
    more: BoxedStrategy<String>,
    /// Of its arrays; an array type and a domain take on that of what is in them.
    delimiter: char,
}

impl Case {
    fn new(sql: &str, fixed: &[&str], more: impl Strategy<Value = String> + 'static) -> Self {
        let fixed = fixed.iter().map(|&value| value.to_owned()).collect();
        Self {
            sql: sql.to_owned(),
            fixed,
            more: more.boxed(),
            delimiter: if sql == "box" { ';' } else { ',' },
        }
    }

    /// A fixed value as often as a new one.
    fn any(&self) -> BoxedStrategy<String> {
        if self.fixed.is_empty() {
            return self.more.clone();
        }
        prop_oneof![prop::sample::select(self.fixed.clone()), self.more.clone()].boxed()
    }

    pub(super) fn array(&self) -> Self {
        let delimiter = self.delimiter;
        let element = prop::option::of(self.any());
        let flat = prop::collection::vec(element, 1..5);
        let braces = move |elements: &[Option<String>]| {
            let written: Vec<_> =
                elements.iter().map(|element| element.as_deref().map_or("NULL".to_owned(), quoted)).collect();
            format!("{{{}}}", written.join(&delimiter.to_string()))
        };
        let one = flat.clone().prop_map(move |elements| braces(&elements));
        let bounds = (flat, -3..3_i32).prop_map(move |(elements, lower)| {
            let upper = lower + i32::try_from(elements.len()).unwrap() - 1;
            format!("[{lower}:{upper}]={}", braces(&elements))
        });
        let two = (1..3_usize, 1..4_usize)
            .prop_flat_map({
                let element = prop::option::of(self.any());
                move |(rows, columns)| {
                    prop::collection::vec(prop::collection::vec(element.clone(), columns), rows)
                }
            })
            .prop_map(move |rows| {
                let rows: Vec<_> = rows.iter().map(|row| braces(row)).collect();
                format!("{{{}}}", rows.join(&delimiter.to_string()))
            });
        let all: Vec<_> = self.fixed.iter().cloned().map(Some).chain([None]).collect();
        let fixed = vec!["{}".to_owned(), "{NULL}".to_owned(), braces(&all)];
        Self { sql: format!("{}[]", self.sql), fixed, more: prop_oneof![one, bounds, two].boxed(), delimiter }
    }

    /// The same values under another name.
    fn renamed(&self, sql: &str) -> Self {
        let delimiter = self.delimiter;
        Self { sql: sql.to_owned(), fixed: self.fixed.clone(), more: self.more.clone(), delimiter }
    }

    fn range(sql: &str, bound: impl Strategy<Value = (String, String)> + 'static) -> Self {
        let brackets = prop::sample::select(vec![('[', ']'), ('[', ')'), ('(', ']'), ('(', ')')]);
        let range = (bound, brackets, any::<bool>(), any::<bool>()).prop_map(
            |((low, high), (open, close), from, to)| {
                let bound = |value: String, has: bool| if has { quoted(&value) } else { String::new() };
                format!("{open}{},{}{close}", bound(low, from), bound(high, to))
            },
        );
        Self::new(sql, &["empty", "(,)"], range)
    }

    fn multirange(&self, sql: &str) -> Self {
        let ranges = prop::collection::vec(self.any(), 0..4);
        Self::new(sql, &["{}"], ranges.prop_map(|ranges| format!("{{{}}}", ranges.join(","))))
    }

    /// A row of these fields.
    fn composite(sql: &str, fields: &[&Self]) -> Self {
        let row = |fields: &[Option<String>]| {
            let written: Vec<_> =
                fields.iter().map(|field| field.as_deref().map_or(String::new(), quoted)).collect();
            format!("({})", written.join(","))
        };
        let nulls = row(&vec![None; fields.len()]);
        let fields: Vec<_> = fields.iter().map(|field| prop::option::weighted(0.8, field.any())).collect();
        Self::new(sql, &[&nulls], fields.prop_map(move |fields| row(&fields)))
    }

    pub(super) fn values(&self, runner: &mut TestRunner) -> Vec<String> {
        let more = (0..ROWS).map(|_| self.more.new_tree(runner).unwrap().current());
        self.fixed.iter().cloned().chain(more).collect()
    }
}

/// As an element of an array, a field of a composite or a bound of a range may always be written.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(super) fn scalars() -> Vec<Case> {
    let controls: String = (1..32_u8).map(char::from).collect();
    let nasty = [
        "",
        " ",
        "NULL",
        "null",
        "\"",
        "\\",
        "\\\"",
        "{}",
        "(,)",
        "a\nb",
        "😀\u{2028}\u{7f}",
        controls.as_str(),
    ];
    let infinities = ["infinity", "-infinity"];
    let floats =
        ["NaN", "Infinity", "-Infinity", "0", "-0", "0.1", "1e300", "1e15", "1e14", "1e-5", "123456.7"];
    let float4s: Vec<_> =
        floats.iter().copied().filter(|&float| float != "1e300").chain(["1e-40", "16777216"]).collect();
    let timestamps =
        ["infinity", "-infinity", "0044-03-15 12:00:00 BC", "12345-06-07 08:09:10.1", "2024-02-29 24:00:00"];
    let bits = |count: std::ops::Range<usize>| {
        prop::collection::vec(prop::sample::select(vec!["0", "1"]), count).prop_map(|bits| bits.concat())
    };
    // Doubles that lie in the middle between two short decimals, and short decimals between two doubles.
    let halves = (any::<i64>(), 0..90_i32).prop_map(|(whole, half)| whole as f64 * 2_f64.powi(-half));
    let numeric = || "-?[0-9]{1,30}(\\.[0-9]{1,20})?".prop_map(|digits| digits);
    let address = || any::<std::net::IpAddr>().prop_map(|address| address.to_string());
    vec![
        Case::new("bool", &["t", "f"], written(any::<bool>())),
        Case::new("int2", &["-32768", "32767"], written(any::<i16>())),
        Case::new("int4", &["-2147483648", "2147483647"], written(any::<i32>())),
        Case::new("int8", &["-9223372036854775808", "9223372036854775807"], written(any::<i64>())),
        Case::new("float4", &float4s, written(any::<f32>())),
        Case::new("float8", &floats, prop_oneof![written(any::<f64>()), written(halves)]),
        Case::new("numeric", &["NaN", "Infinity", "-Infinity", "0", "-0.00", "1e300", "1e-20"], numeric()),
        Case::new("numeric(14,2)", &["0", "999999999999.99"], "-?[0-9]{1,12}(\\.[0-9]{1,5})?"),
        Case::new("text", &nasty, text()),
        Case::new("varchar", &nasty, text()),
        Case::new("char(40)", &["", "a  ", "\""], "[ -~]{0,40}"),
        Case::new("name", &["", "a\"b"], "[ -~]{0,60}"),
        Case::new("\"char\"", &["", "\"", "\\", "\n"], "[ -~]"),
        Case::new("bytea", &["", "\\x", "\\x00ff"], hex(0..20).prop_map(|hex| format!("\\x{hex}"))),
        Case::new("uuid", &[], hex(16..17)),
        Case::new(
            "date",
            &[infinities[0], infinities[1], "0044-03-15 BC", "5874897-12-31"],
            date(-4000..5_000_000),
        ),
        Case::new("time", &["00:00", "24:00"], time()),
        Case::new("timetz", &["00:00+00", "12:34:56.7-05:30", "00:00+01:02:03"], time()),
        Case::new("timestamp", &timestamps, timestamp()),
        Case::new("timestamptz", &timestamps, timestamp()),
        Case::new(
            "interval",
            &["0", "-1 year -2 mons +3 days -04:05:06.7", "1 day ago", "178000000 years"],
            (-9999..9999_i32, -99..99_i32, any::<i32>())
                .prop_map(|(months, days, seconds)| format!("{months} months {days} days {seconds} seconds")),
        ),
        Case::new(
            "json",
            &["null", "\"a\\nb\"", "{\n\"a\":\r\n1}\n", " 1 ", "\"\\u0000\\ud800\"", "{\"a\":1,\"a\":2}"],
            json(),
        ),
        Case::new("jsonb", &["null", "\"a\\nb\"", "{\n\"a\":\r\n1}\n", "[]", "1.50"], json()),
        Case::new("xml", &["<a b=\"c\">\n&lt;</a>", "text"], "[a-z \\n]{0,9}"),
        Case::new("inet", &["127.0.0.1", "10.0.0.1/8", "::1", "::ffff:1.2.3.4"], address()),
        Case::new("cidr", &["10.0.0.0/8", "::/0"], address()),
        Case::new("macaddr", &[], hex(6..7)),
        Case::new("macaddr8", &[], hex(8..9)),
        Case::new("money", &["-1234.56"], written(-1_000_000..1_000_000_i64)),
        Case::new("bit(7)", &[], bits(7..8)),
        Case::new("varbit", &[""], bits(0..20)),
        Case::new("point", &["(NaN,Infinity)"], point()),
        Case::new(
            "line",
            &["{1,-1,0}"],
            (1..9_i32, any::<i16>()).prop_map(|(a, c)| format!("{{{a},{a},{c}}}")),
        ),
        Case::new("lseg", &[], points(2..3)),
        Case::new("box", &[], points(2..3)),
        Case::new("path", &[], points(1..4).prop_map(|points| format!("[{points}]"))),
        Case::new("polygon", &[], points(1..4).prop_map(|points| format!("({points})"))),
        Case::new(
            "circle",
            &[],
            (point(), 0..100_u8).prop_map(|(point, radius)| format!("<{point},{radius}>")),
        ),
        Case::new("oid", &["4294967295"], written(any::<u32>())),
        Case::new("xid", &[], written(any::<u32>())),
        Case::new("xid8", &["18446744073709551615"], written(any::<u64>())),
        Case::new(
            "tid",
            &[],
            (any::<u32>(), any::<u16>()).prop_map(|(block, tuple)| format!("({block},{tuple})")),
        ),
        Case::new(
            "pg_lsn",
            &["0/0"],
            (any::<u32>(), any::<u32>()).prop_map(|(high, low)| format!("{high:X}/{low:X}")),
        ),
        Case::new(
            "regtype",
            &["int4", "timestamp with time zone"],
            written(prop::sample::select(vec!["text", "point"])),
        ),
        Case::new("tsvector", &["", "'a b':1A 'c'"], "[a-z ]{0,30}"),
        Case::new("tsquery", &["'a b' & !c"], "[a-z]{1,5}"),
        Case::new("jsonpath", &["$.\"a b\"[*] ? (@ > 1)"], "\\$\\.[a-z]{1,5}"),
        Case::new("pg_snapshot", &["10:20:10,14,15"], written(Just("1:1:"))),
        Case::new("int2vector", &["", "1 2 3"], "[1-9]( [1-9]){0,5}"),
        Case::new("oidvector", &["", "1 2 3"], "[1-9]( [1-9]){0,5}"),
    ]
}

pub(super) fn ranges() -> Vec<Case> {
    let day = || {
        prop_oneof![Just(0_u32), 1..9000_u32]
            .prop_map(|day| format!("{:04}-{:02}-{:02}", 1900 + day / 336, day / 28 % 12 + 1, day % 28 + 1))
    };
    let moment = || day().prop_map(|day| format!("{day} 12:34:56.5"));
    let ranges = [
        (Case::range("int4range", ordered(-1000..1000_i32)), "int4multirange"),
        (Case::range("int8range", ordered(any::<i32>())), "int8multirange"),
        (Case::range("numrange", ordered(-1000..1000_i32)), "nummultirange"),
        (Case::range("daterange", ordered(day())), "datemultirange"),
        (Case::range("tsrange", ordered(moment())), "tsmultirange"),
        (Case::range("tstzrange", ordered(moment())), "tstzmultirange"),
        (Case::range("words", ordered("[a-z\",\\\\ ]{0,5}".prop_map(|word| word))), "words_multi"),
    ];
    ranges.into_iter().flat_map(|(range, multirange)| [range.multirange(multirange), range]).collect()
}

/// Makes the types that a database does not have by itself, and the cases for them.
pub(super) async fn user_types(client: &Client, scalars: &[Case]) -> Vec<Case> {
    let labels = ["sad", "o k", "q\"uote", "back\\slash", "ünï", "a,b", "NULL", "{}"];
    let listed: Vec<_> = labels.iter().map(|label| format!("'{label}'")).collect();
    let mood = Case::new("mood", &labels, written(Just("sad")));
    client
        .batch_execute(&format!(
            "drop schema if exists walcast_values cascade; create schema walcast_values;
             set search_path = walcast_values;
             create type mood as enum ({});
             create type words as range (subtype = text, collation = \"C\", multirange_type_name = words_multi);
             create domain whole as int8 check (value is not null or true);
             create domain wholes as whole[];
             create domain deep as wholes;
             create type inner_row as (id int4, \"na \"\"me\" text, at timestamptz, notes text[], doc json, feeling mood);
             create domain inner_domain as inner_row;
             create type outer_row as (one inner_row, many inner_row[], other inner_domain, \"Deep\" deep, pair int4range);
             create table shrunk (a int4, gone text, b text, also_gone int4, c float8[]);
             alter table shrunk drop column gone, drop column also_gone;
             create type nothing as ();",
            listed.join(", ")
        ))
        .await
        .unwrap();
    let find = |sql: &str| scalars.iter().find(|case| case.sql == sql).unwrap();
    let whole = find("int8").renamed("whole");
    let wholes = whole.array().renamed("wholes");
    let deep = wholes.renamed("deep");
    let notes = find("text").array();
    let inner = Case::composite(
        "inner_row",
        &[find("int4"), find("text"), find("timestamptz"), &notes, find("json"), &mood],
    );
    let inner_domain = inner.renamed("inner_domain");
    let pair = Case::range("int4range", ordered(0..9_i32));
    let outer = Case::composite("outer_row", &[&inner, &inner.array(), &inner_domain, &deep, &pair]);
    let shrunk = Case::composite("shrunk", &[find("int4"), find("text"), &find("float8").array()]);
    let nothing = Case::new("nothing", &["()"], written(Just("()")));
    let mut cases = vec![mood, whole, wholes, deep, inner, inner_domain, outer, shrunk, nothing];
    for (index, case) in scalars.iter().enumerate() {
        let (domain, list, row) =
            (format!("domain_{index}"), format!("list_{index}"), format!("row_{index}"));
        let sql = &case.sql;
        let create = format!(
            "create domain {domain} as {sql}; create domain {list} as {sql}[];
             create type {row} as (plain {sql}, domained {domain}, listed {list})"
        );
        client.batch_execute(&create).await.unwrap();
        let domain = case.renamed(&domain);
        let list = case.array().renamed(&list);
        cases.push(Case::composite(&row, &[case, &domain, &list]));
        cases.extend([domain, list]);
    }
    cases
}
