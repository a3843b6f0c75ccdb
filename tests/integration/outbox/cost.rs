//! What the triggers cost who writes. No worker reads meanwhile: it is the writer's time alone.
//!
//! ```text
//! cargo test --test integration outbox::cost -- --ignored --nocapture
//! ```

use super::*;

const ROUNDS: usize = 7;

/// Changes of one row each, in one transaction.
const CHANGES: u32 = 1_000;

const TABLE: &str = "
    create table bays (id int primary key, organization_id text not null, site text, spots int, changed timestamptz);
    create table timed (way text, operation text, micros float8);";

const CATALOG: &str = r#"
[tables.bays]
organization = "organization_id"
channel = "bays"
[[tables.bays.events]]
type = "bay"
on = ["insert", "update", "delete"]
data = { site = "site", spots = "spots" }
"#;

/// With no triggers, with an outbox that has no end, and with one that has.
const WAYS: [(&str, &str); 3] = [
    ("none", "alter table bays disable trigger all; update walcast.meta set outbox_limit = null"),
    ("unbounded", "alter table bays enable trigger all; update walcast.meta set outbox_limit = null"),
    ("bounded", "alter table bays enable trigger all; update walcast.meta set outbox_limit = 1 << 30"),
];

/// Times so many inserts and updates, each a statement of its own, and writes down microseconds a change.
fn round(way: &str) -> String {
    format!(
        "truncate bays;
         do $$
         declare began timestamptz := clock_timestamp();
         begin
           for n in 1..{CHANGES} loop
             insert into bays values (n, 'o1', 'a site of some length', n, now());
           end loop;
           insert into timed values ('{way}', 'insert', extract(epoch from clock_timestamp() - began) * 1e6 / {CHANGES});
           began := clock_timestamp();
           for n in 1..{CHANGES} loop
             update bays set spots = spots + 1, changed = now() where id = n;
           end loop;
           insert into timed values ('{way}', 'update', extract(epoch from clock_timestamp() - began) * 1e6 / {CHANGES});
         end $$;"
    )
}

#[tokio::test]
#[ignore = "a measurement"]
async fn of_the_triggers_and_of_their_bound() {
    let url = server::database().await;
    let dsn = Dsn::parse(&url).unwrap();
    let session = server::session(&dsn).await;
    session.batch_execute(TABLE).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = configuration();
    config.source.kind = SourceKind::Outbox;
    config.presets.clear();
    config.catalog.path = Some(folder.path().join("catalog.toml"));
    std::fs::write(folder.path().join("catalog.toml"), CATALOG).unwrap();
    setup::apply(&config, &dsn).await.unwrap();
    // In turns, so that what else the machine does falls on all; the first of each is not counted.
    for turn in 0..=ROUNDS {
        for (way, prepare) in WAYS {
            session.batch_execute(&format!("{prepare}; truncate walcast.outbox")).await.unwrap();
            session.batch_execute(&round(way)).await.unwrap();
        }
        if turn == 0 {
            session.batch_execute("truncate timed").await.unwrap();
        }
    }
    let medians =
        "with m as (select operation, way, percentile_cont(0.5) within group (order by micros) as micros
                                from timed group by 1, 2)
                   select operation, way, micros, micros / (select b.micros from m b
                                                  where b.operation = m.operation and b.way = 'none')
                     from m order by 1, 3";
    for row in session.query(medians, &[]).await.unwrap() {
        let (operation, way): (String, String) = (row.get(0), row.get(1));
        let (micros, ratio): (f64, f64) = (row.get(2), row.get(3));
        println!("{operation}, triggers {way}: {micros:.1} us a change, {ratio:.2} of none");
    }
    server::clean_up(dsn);
}
