//! PostgreSQL as the oracle of the value layer: whatever `to_json` prints, the encoder prints from the text output.
//!
//! Values are generated with a fixed seed, a type at a time, and cast by the server; one query then answers with the
//! text output and `to_json` of all of them. Every scalar type comes back under a domain, in arrays of one and two
//! dimensions, in a composite, and in an array of those.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cases;
mod generators;

use bytes::BytesMut;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use walcast::catalog::Encoder;
use walcast::catalog::expression::{Cell, Expression, Rows, Scope};
use walcast::postgres::Client;
use walcast::postgres::schema::Types;
use walcast::source::Operation;

use cases::{Case, ranges, scalars, user_types};

use crate::bench::server;

async fn client() -> Client {
    let dsn = server::empty_database().await.parse().unwrap();
    let client = server::session(&dsn).await;
    client.batch_execute("set client_min_messages = warning").await.unwrap();
    client
}

/// Text output and `to_json` of each value, and the type's oid.
async fn ask(client: &Client, sql: &str, values: &[String]) -> (u32, Vec<(String, String)>) {
    let query = format!(
        "select '{sql}'::regtype::oid, format('%s', value), to_json(value)::text
           from (select cast(cast(given as text) as {sql}) as value from unnest($1::text[]) as given) as given"
    );
    let rows = client
        .query(&query, &[&values])
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}\n{values:#?}"));
    (rows[0].get(0), rows.iter().map(|row| (row.get(1), row.get(2))).collect())
}

#[tokio::test]
async fn every_value_is_encoded_as_postgres_prints_it() {
    let client = client().await;
    let mut cases = scalars();
    cases.extend(user_types(&client, &cases).await);
    cases.extend(ranges());
    let arrays: Vec<_> = cases.iter().map(Case::array).collect();
    cases.extend(arrays);
    let types = Types::fetch(&client).await.unwrap();
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut wrong = Vec::new();
    let mut compared = 0;
    for case in &cases {
        let values = case.values(&mut runner);
        let (oid, rows) = ask(&client, &case.sql, &values).await;
        assert!(types.knows(oid), "{}", case.sql);
        let encoder = Encoder::new(&types, oid);
        for (text, expected) in rows {
            let mut out = BytesMut::new();
            encoder.encode(text.as_bytes(), &mut out);
            // The one difference: a line break in json is white space, and an event is one line.
            let expected = expected.replace(['\n', '\r'], " ");
            compared += 1;
            if out != expected {
                wrong.push(format!(
                    "{}: {text:?}\n  {expected}\n  {}",
                    case.sql,
                    String::from_utf8_lossy(&out)
                ));
            }
        }
    }
    assert!(compared > 20_000, "only {compared} values were compared");
    assert!(
        wrong.is_empty(),
        "{} of {compared} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}

#[tokio::test]
async fn builtin_types_are_those_of_the_server() {
    let client = client().await;
    let fetched = Types::fetch(&client).await.unwrap();
    let builtin = Types::builtin();
    let oids = client.query("select oid from pg_catalog.pg_type where oid < 10000", &[]).await.unwrap();
    let mut known = 0;
    for oid in oids.iter().map(|row| row.get::<_, u32>(0)).filter(|&oid| builtin.knows(oid)) {
        assert_eq!(builtin.get(oid), fetched.get(oid));
        known += 1;
    }
    assert!(known > 100, "only {known} types are known");
}

/// A change whose one column is `text`.
struct OneCell<'a>(&'a str);

impl Rows for OneCell<'_> {
    fn has_row(&self, _: usize) -> bool {
        true
    }

    fn cell(&self, _: usize, _: usize) -> Cell<'_> {
        Cell::Text(self.0.as_bytes())
    }

    fn changed(&self, _: usize) -> bool {
        true
    }

    fn operation(&self) -> Operation {
        Operation::Insert
    }
}

#[tokio::test]
async fn a_column_comes_out_of_an_expression_as_postgres_prints_it() {
    let client = client().await;
    let types = Types::builtin();
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for sql in ["bool", "int2", "int4", "int8", "float8", "text", "timestamptz", "uuid", "date"] {
        let case = scalars().into_iter().find(|case| case.sql == sql).unwrap();
        let (oid, rows) = ask(&client, sql, &case.values(&mut runner)).await;
        let expression = Expression::compile("new.value", &Scope::new(&types, [("value", oid)])).unwrap();
        for (text, expected) in rows {
            // Years that CEL does not reach go through as text.
            if sql == "timestamptz" && (text.ends_with(" BC") || text.find('-').is_some_and(|year| year > 4))
            {
                continue;
            }
            let mut out = BytesMut::new();
            expression.evaluate(&OneCell(&text)).unwrap().encode(&mut out);
            assert_eq!(out, expected, "{sql} {text}");
        }
    }
}
