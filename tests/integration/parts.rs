//! Long transactions, which are mapped while they are received: nothing of them is seen before their end, and what breaks
//! in between leaves nothing behind.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use crate::bench::app::{Member, TestApp};
use crate::bench::eventually;
use crate::bench::proxy::{Proxy, proxied};
use crate::bench::server::database;
use crate::bench::sse::{Frame, Stream};

/// `rooms` is mirrored, `orders` asks for related rows, and `readings` concerns nobody else.
const TABLES: &str = "
    create table rooms (id text primary key, organization_id text, name text);
    create table readings (id int primary key, organization_id text, room_id text);
    create table orders (id int primary key, organization_id text);
    create table lines (id serial primary key, order_id int, organization_id text, what text);
";

const CATALOG: &str = r#"
[tables.readings]
organization = "organization_id"
channel = "readings"
lookup.room = { table = "rooms", key = "id", of = "room_id" }
[[tables.readings.events]]
type = "reading"
on = ["insert"]
data = { id = "id", room = { from = "room", column = "name" } }

[tables.orders]
organization = "organization_id"
channel = "orders"
related.line = { table = "lines", key = "order_id", of = "id", take = "first" }
[[tables.orders.events]]
type = "order"
on = ["insert"]
data = { id = "id", line = { from = "line", column = "what" } }
"#;

/// Rows of which a transaction goes far beyond a part.
const ROWS: i64 = 30_000;

async fn start() -> (TestApp, Proxy) {
    let (proxy, through) = proxied(&database().await).await;
    let app = TestApp::builder().before(TABLES).catalog(CATALOG).through(through).start().await;
    app.sql("insert into rooms values ('r', 'o1', 'before')").await;
    (app, proxy)
}

fn readings(ids: RangeInclusive<i64>) -> String {
    let (first, last) = ids.into_inner();
    format!("insert into readings select n, 'o1', 'r' from generate_series({first}, {last}) n")
}

fn reading(id: i64, room: &str) -> serde_json::Value {
    json!({ "id": id, "room": room })
}

async fn metric(app: &TestApp, name: &str) -> i64 {
    let text = app.get("/metrics").await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in\n{text}"))
}

/// Returns once no more comes and the worker has mapped so many more changes than there were.
async fn in_parts(app: &TestApp, proxy: &Proxy, before: i64, more: i64) {
    proxy.holds().await;
    eventually("parts of the transaction are mapped", || async {
        (metric(app, "walcast_changes_total").await >= before + more).then_some(())
    })
    .await;
}

/// Breaks the connection, and lets it come back once the worker knows.
async fn break_off(app: &TestApp, proxy: &Proxy) {
    proxy.cut();
    eventually("the worker knows that the server is away", || async {
        (app.get("/readyz").await.body.trim() == "source_down").then_some(())
    })
    .await;
    proxy.restore();
}

async fn expect_readings(stream: &mut Stream, ids: RangeInclusive<i64>, room: &str) {
    for id in ids {
        assert_eq!(stream.event().await.json()["data"], reading(id, room));
    }
}

#[tokio::test]
async fn a_transaction_whose_connection_breaks_in_its_middle_comes_once_and_whole() {
    let (app, proxy) = start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let before = metric(&app, "walcast_changes_total").await;
    proxy.hold_after(1 << 20);
    app.sql("select walcast.emit('o1', 'first', '1')").await;
    app.transaction(&format!(
        "{}; select walcast.emit('o1', 'middle', '1'); update rooms set name = 'after' where id = 'r'; {}",
        readings(1..=ROWS),
        readings(ROWS + 1..=ROWS + 100),
    ))
    .await;
    app.sql("select walcast.emit('o1', 'last', '1')").await;
    in_parts(&app, &proxy, before, 5000).await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("first"));
    break_off(&app, &proxy).await;
    expect_readings(&mut stream, 1..=ROWS, "before").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("middle"));
    expect_readings(&mut stream, ROWS + 1..=ROWS + 100, "after").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("last"));
    assert!(metric(&app, "walcast_changes_total").await > before + ROWS + 5000, "some were mapped twice");
    assert_eq!(metric(&app, "walcast_spooled_transactions_total").await, 0);
}

#[tokio::test]
async fn what_is_looked_up_is_the_same_when_a_long_transaction_comes_again() {
    let (app, proxy) = start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let before = metric(&app, "walcast_changes_total").await;
    proxy.hold_after(1 << 20);
    app.transaction(&format!(
        "{}; update rooms set name = 'after' where id = 'r'; {}",
        readings(1..=4000),
        readings(4001..=ROWS),
    ))
    .await;
    in_parts(&app, &proxy, before, 3000).await;
    break_off(&app, &proxy).await;
    expect_readings(&mut stream, 1..=4000, "before").await;
    expect_readings(&mut stream, 4001..=ROWS, "after").await;
}

#[tokio::test]
async fn nothing_of_a_transaction_is_seen_while_it_is_being_received() {
    let (app, proxy) = start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let before = metric(&app, "walcast_changes_total").await;
    proxy.hold_after(1 << 20);
    app.transaction(&format!("{}; select walcast.emit('o1', 'end', '1')", readings(1..=ROWS))).await;
    in_parts(&app, &proxy, before, 5000).await;
    let quiet = timeout(Duration::from_millis(300), stream.event()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    proxy.restore();
    expect_readings(&mut stream, 1..=ROWS, "before").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("end"));
}

fn is_event(frame: &Frame) -> bool {
    frame.id.is_some()
}

#[tokio::test]
async fn who_loses_their_membership_in_the_middle_of_a_long_transaction_gets_nothing_of_it() {
    let (app, _proxy) = start().await;
    let stays = app.member("o1", "stays", "admin").await;
    let goes: Member = app.member("o1", "goes", "admin").await;
    let (mut staying, mut going) = (app.open(&stays, "").await, app.open(&goes, "").await);
    app.transaction(&format!(
        "{}; delete from memberships where user_id = 'goes'; {}",
        readings(1..=ROWS),
        readings(ROWS + 1..=ROWS + 100),
    ))
    .await;
    expect_readings(&mut staying, 1..=ROWS + 100, "before").await;
    let frames = going.rest().await;
    assert!(!frames.iter().any(is_event), "{:?}", frames.iter().find(|frame| is_event(frame)));
    assert_eq!(frames.last().and_then(Frame::event_type).as_deref(), Some("access.revoked"));
}

#[tokio::test]
async fn related_rows_are_known_whether_they_came_in_parts_or_with_the_rest() {
    let (app, _proxy) = start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.transaction(&format!(
        "insert into lines (order_id, organization_id, what) values (1, 'o1', 'early');
         {};
         insert into lines (order_id, organization_id, what) values (1, 'o1', 'late'), (2, 'o1', 'middle');
         insert into orders values (1, 'o1'), (2, 'o1'), (3, 'o1'), (4, 'o1');
         {};
         insert into lines (order_id, organization_id, what) values (3, 'o1', 'end')",
        readings(1..=ROWS),
        readings(ROWS + 1..=2 * ROWS),
    ))
    .await;
    expect_readings(&mut stream, 1..=ROWS, "before").await;
    for (id, line) in [(1, json!("early")), (2, json!("middle")), (3, json!("end")), (4, json!(null))] {
        assert_eq!(stream.event().await.json()["data"], json!({ "id": id, "line": line }));
    }
    expect_readings(&mut stream, ROWS + 1..=2 * ROWS, "before").await;
}

#[tokio::test]
async fn a_worker_that_stops_in_the_middle_of_a_long_transaction_leaves_it_to_the_next() {
    let (mut app, proxy) = start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.sql("select walcast.emit('o1', 'first', '1')").await;
    let mut stream = app.open(&member, "&since=1m").await;
    let first = stream.event().await;
    let before = metric(&app, "walcast_changes_total").await;
    proxy.hold_after(1 << 20);
    app.transaction(&readings(1..=ROWS)).await;
    in_parts(&app, &proxy, before, 5000).await;
    app.stop().await;
    assert!(!stream.rest().await.iter().any(is_event));
    proxy.restore();
    app.restart().await;
    let mut stream = app.open(&member, &format!("&lastEventId={}", first.id.unwrap())).await;
    expect_readings(&mut stream, 1..=ROWS, "before").await;
}
