//! A schema that changes under a running worker: what an event can't say any more it leaves null and says so, and
//! everything else goes on.

use serde_json::{Value, json};

use crate::bench::app::{Member, TestApp};
use crate::bench::eventually;
use crate::bench::sse::Stream;

const TABLES: &str = "
    create table sites (id text primary key, organization_id text, name text, note text);
    create table bays (id text primary key, organization_id text, status text, occupied int, site_id text, owner_id text);
    create table other (id int primary key, organization_id text);
";

const CATALOG: &str = r#"
[tables.bays]
organization = "organization_id"
channel = "bays"
tags = { status = "status" }
lookup.site = { table = "sites", key = "id", of = "site_id" }
[[tables.bays.events]]
type = "bay"
on = ["insert", "update", "delete"]
data = { id = "id", occupied = "occupied", twice = { expr = "new.occupied * 2" }, site = { from = "site", column = "name" } }
[[tables.bays.events]]
type = "bay_row"
on = ["insert", "update"]
only = { roles = ["admin"] }
data = { row = { row = "new" } }

[tables.other]
organization = "organization_id"
channel = "other"
[[tables.other.events]]
type = "other"
on = ["insert", "delete"]
data = { id = "id" }
"#;

async fn start() -> (TestApp, Member, Stream) {
    let app = TestApp::builder().before(TABLES).catalog(CATALOG).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let stream = app.open(&member, "").await;
    app.sql("insert into sites values ('s1', 'o1', 'North', null)").await;
    (app, member, stream)
}

async fn data(stream: &mut Stream, event_type: &str) -> Value {
    let event = stream.event().await;
    assert_eq!(event.event_type().as_deref(), Some(event_type), "{}", event.raw);
    event.json()["data"].clone()
}

#[tokio::test]
pub async fn columns_come_change_and_go_in_the_order_of_the_stream() {
    let (mut app, member, mut stream) = start().await;
    app.sql("insert into bays values ('b1', 'o1', 'open', 3, 's1', 'u1')").await;
    assert_eq!(
        data(&mut stream, "bay").await,
        json!({ "id": "b1", "occupied": 3, "twice": 6, "site": "North" })
    );
    assert_eq!(
        data(&mut stream, "bay_row").await["row"],
        json!({ "id": "b1", "organizationId": "o1", "status": "open", "occupied": 3, "siteId": "s1", "ownerId": "u1" })
    );

    app.sql("alter table bays add column is_new bool default true; update bays set occupied = 4").await;
    data(&mut stream, "bay").await;
    assert_eq!(data(&mut stream, "bay_row").await["row"]["isNew"], json!(true));
    app.sql("alter table bays alter occupied type numeric(5, 1); update bays set occupied = 4.5").await;
    assert_eq!(data(&mut stream, "bay").await["occupied"], json!(4.5));
    data(&mut stream, "bay_row").await;
    // One transaction that writes before and after.
    app.transaction(
        "update bays set occupied = 5; alter table bays rename occupied to taken; update bays set taken = 6",
    )
    .await;
    assert_eq!(data(&mut stream, "bay").await["occupied"], json!(5.0));
    data(&mut stream, "bay_row").await;
    assert_eq!(
        data(&mut stream, "bay").await,
        json!({ "id": "b1", "occupied": null, "twice": null, "site": "North" })
    );
    assert_eq!(data(&mut stream, "bay_row").await["row"]["taken"], json!(6.0));
    app.degraded("has no column \\\"occupied\\\"").await;

    app.sql("insert into other values (1, 'o1')").await;
    assert_eq!(data(&mut stream, "other").await, json!({ "id": 1 }));
    let last = stream_id(&app, &mut stream).await;
    app.restart().await;
    app.degraded("occupied").await;
    app.sql("update bays set taken = 7; insert into other values (2, 'o1')").await;
    let mut stream = app.open(&member, &format!("&lastEventId={last}")).await;
    assert_eq!(data(&mut stream, "bay").await["occupied"], json!(null));
    assert_eq!(data(&mut stream, "bay_row").await["row"]["taken"], json!(7.0));
    assert_eq!(data(&mut stream, "other").await, json!({ "id": 2 }));

    app.sql("alter table bays rename taken to occupied; update bays set occupied = 8").await;
    assert_eq!(data(&mut stream, "bay").await["occupied"], json!(8.0));
    eventually("what is mended is no reason any more", || async {
        (!app.get("/readyz/reasons").await.body.contains("any more")).then_some(())
    })
    .await;
}

/// The id of an event that marks where the test is.
async fn stream_id(app: &TestApp, stream: &mut Stream) -> String {
    app.sql("select walcast.emit('o1', 'mark', '1')").await;
    let mark = stream.event().await;
    assert_eq!(mark.event_type().as_deref(), Some("mark"), "{}", mark.raw);
    mark.id.unwrap()
}

#[tokio::test]
async fn a_mirrored_column_that_goes_is_null_and_the_rest_goes_on() {
    let (mut app, _, mut stream) = start().await;
    app.sql("alter table sites drop column name; insert into sites values ('s2', 'o1', null)").await;
    app.sql("insert into bays values ('b1', 'o1', 'open', 1, 's2', null)").await;
    assert_eq!(data(&mut stream, "bay").await["site"], json!(null));
    data(&mut stream, "bay_row").await;
    app.degraded("\\\"name\\\"").await;
    app.restart().await;
    app.degraded("\\\"name\\\"").await;
}

#[tokio::test]
pub async fn a_mirrored_column_that_comes_back_is_read_again() {
    let (app, _, mut stream) = start().await;
    app.sql("alter table sites rename name to label").await;
    app.sql("insert into sites (id, organization_id, label) values ('s2', 'o1', 'South')").await;
    app.sql("insert into bays values ('b1', 'o1', 'open', 1, 's2', null)").await;
    assert_eq!(data(&mut stream, "bay").await["site"], json!(null));
    data(&mut stream, "bay_row").await;
    app.degraded("sites has no column \\\"name\\\"").await;
    app.sql("alter table sites rename label to name").await;
    app.sql("update sites set note = 'x' where id = 's1'").await;
    app.sql("insert into bays values ('b2', 'o1', 'open', 1, 's2', null)").await;
    assert_eq!(data(&mut stream, "bay").await["site"], json!("South"));
    data(&mut stream, "bay_row").await;
    app.undegraded().await;
}

#[tokio::test]
async fn a_column_that_only_names_things_stops_no_worker_when_it_is_gone() {
    let (mut app, member, mut stream) = start().await;
    app.sql("alter table organizations rename name to title").await;
    app.sql("insert into other values (1, 'o1')").await;
    assert_eq!(data(&mut stream, "other").await, json!({ "id": 1 }));
    app.restart().await;
    app.degraded("organizations has no column \\\"name\\\" any more: to lookups and access it is null").await;
    let mut stream = app.connect(&member, "").await;
    assert_eq!(
        stream.data().await.json()["organization"],
        json!({ "id": "o1", "name": null, "role": "admin" })
    );
}

#[tokio::test]
async fn a_table_that_is_dropped_or_made_again_is_told_and_the_others_go_on() {
    let (app, _, mut stream) = start().await;
    app.sql("drop table bays; insert into other values (1, 'o1')").await;
    assert_eq!(data(&mut stream, "other").await, json!({ "id": 1 }));
    app.degraded("bays").await;
    // What a publication does not have can't be vouched for: streams are told when a table leaves it, and when it is
    // there again.
    assert_eq!(data(&mut stream, "data.sync").await["reason"], "history_reset");
    app.sql("create table bays (id text primary key, organization_id text, status text, occupied int, site_id text)").await;
    app.sql("insert into bays values ('unseen', 'o1', 'open', 1, 's1')").await;
    let told = app.degraded("publication").await;
    assert!(told.contains("bays"), "{told}");
    walcast::cli::setup::apply(&app.config, &app.dsn).await.unwrap();
    app.undegraded().await;
    assert_eq!(data(&mut stream, "data.sync").await["reason"], "history_reset");
    app.sql("insert into bays values ('b1', 'o1', 'open', 1, 's1')").await;
    assert_eq!(
        data(&mut stream, "bay").await,
        json!({ "id": "b1", "occupied": 1, "twice": 2, "site": "North" })
    );
}

#[tokio::test]
async fn a_replica_identity_that_is_lowered_is_told_and_streams_are_told_what_is_not_known() {
    let (app, _, mut stream) = start().await;
    app.sql(
        "insert into bays values ('b1', 'o1', 'open', 3, 's1', null), ('b2', 'o1', 'open', 3, 's1', null)",
    )
    .await;
    for event_type in ["bay", "bay_row", "bay", "bay_row"] {
        data(&mut stream, event_type).await;
    }
    app.sql("alter table bays replica identity default").await;
    app.sql("delete from bays where id = 'b1'").await;
    let told = stream.event().await.json();
    assert_eq!((&told["type"], &told["data"]["reason"]), (&json!("data.sync"), &json!("unroutable")));
    app.degraded("REPLICA IDENTITY FULL").await;
    // The organization of an update is that of its new row; whether it had another is not known.
    app.sql("alter table bays replica identity full; update bays set occupied = 4 where id = 'b2'").await;
    assert_eq!(data(&mut stream, "bay").await["occupied"], json!(4));
    app.undegraded().await;
}
