//! The same work read through both sources at once, by two workers on one database.

use std::collections::BTreeMap;

use super::*;

const TABLES: &str = "
    create table kinds (id int primary key, organization_id text, n int, words text, doc jsonb);
    create table other (id int primary key, organization_id text, n int, words text, doc jsonb);";

fn catalog() -> String {
    let other = KINDS_CATALOG.replace("kinds", "other");
    format!("{KINDS_CATALOG}\n{other}")
}

/// Every change of one row in its order, as the frames say it: what an id and a time make different is cut.
type Said = BTreeMap<(String, String), Vec<String>>;

fn said(events: &[Frame]) -> Said {
    let mut said = Said::new();
    for event in events {
        let json = event.json();
        let row = if json["data"]["row"].is_null() { &json["data"]["old"] } else { &json["data"]["row"] };
        let key = (json["type"].as_str().unwrap_or_default().to_owned(), row["id"].to_string());
        let (_, rest) = event.raw.split_once("\"organizationId\":").expect("an envelope");
        said.entry(key).or_default().push(rest.to_owned());
    }
    said
}

fn statement(rng: &mut fastrand::Rng) -> String {
    let table = if rng.bool() { "kinds" } else { "other" };
    let (id, n) = (rng.u32(..12), rng.u32(..1000));
    let long = if rng.u32(..8) == 0 { 300 } else { 3 };
    let words = format!(
        "(select string_agg(md5(({n} + g)::text) || E'\\\\ \"q\",\\n', '') from generate_series(1, {long}) g)"
    );
    match rng.u32(..9) {
        0..3 => format!(
            "insert into {table} values ({id}, 'o1', {n}, {words}, '{{\"n\": {n}}}')
               on conflict (id) do update set n = excluded.n, words = excluded.words"
        ),
        3 => format!("update {table} set n = {n} where id = {id}"),
        4 => format!("update {table} set words = null, doc = jsonb_build_object('was', n) where id = {id}"),
        5 => format!(
            "update {table} set id = 100 + id * 7 + {n} where id = {id} and not exists (select from {table} t where t.id = 100 + {id} * 7 + {n})"
        ),
        6 => format!("delete from {table} where id = {id}"),
        7 => format!(
            "savepoint s; update {table} set n = -1; rollback to s; update {table} set n = n + 1 where id < 3"
        ),
        _ => format!(
            "with gone as (delete from {table} where id = {id} returning *) insert into {table} select id + 1000, organization_id, n, words, doc from gone on conflict do nothing"
        ),
    }
}

#[tokio::test]
async fn random_work_says_the_same_through_both_sources() {
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    let wal = over(SourceKind::Wal).before(TABLES).catalog(&catalog()).start().await;
    let member = wal.member("o1", "u1", "admin").await;
    let mut through_wal = wal.open(&member, "").await;
    // The other source beside it: the triggers are set up, while the slot and its worker stay.
    let mut config = wal.config.clone();
    config.source.kind = SourceKind::Outbox;
    setup::apply(&config, &wal.dsn).await.unwrap();
    let outbox = App::start(config, wal.dsn.clone(), true).await.unwrap();
    let address = outbox.address();
    eventually("the outbox is read", || async {
        matches!(Request::get("/readyz").fetch(address).await.body.trim(), "ready" | "degraded").then_some(())
    })
    .await;
    let request = Request::get(TestApp::target(&member, "")).bearer(&member.token);
    let mut through_outbox = Stream::open(address, request).await;
    assert_eq!(through_outbox.data().await.event_type().as_deref(), Some("connected"));
    for _ in 0..150 {
        let statements: Vec<String> = (0..rng.u32(1..5)).map(|_| statement(&mut rng)).collect();
        let end = if rng.u32(..6) == 0 { "rollback" } else { "commit" };
        wal.sql(&format!("begin; {}; {end}", statements.join("; "))).await;
    }
    // Of a table, since an emitted event goes to the source that is set up.
    wal.sql("insert into kinds values (-1, 'o1', 0, 'end', null)").await;
    let end = |event: &Frame| event.raw.contains("\"row\":{\"id\":-1,");
    // Side by side: a stream that nobody reads is closed after a while.
    let (one, two) = tokio::join!(through_wal.events_until(end), through_outbox.events_until(end));
    assert!(one.len() > 150, "{} events, seed {seed}", one.len());
    assert_eq!(said(&one), said(&two), "seed {seed}");
    outbox.stop().await.unwrap();
}
