//! Commit order, once each, whatever runs side by side.

use serde_json::json;
use walcast::catalog::EventId;

use crate::bench::app::TestApp;
use crate::bench::server;

#[tokio::test]
async fn events_come_in_commit_order_not_in_the_order_of_writing() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let early = server::session(&app.dsn).await;
    early.batch_execute("begin; select walcast.emit('o1', 'first.written', '1')").await.expect("written");
    app.sql("select walcast.emit('o1', 'first.committed', '1')").await;
    early.batch_execute("commit").await.expect("committed");
    assert_eq!(stream.event().await.event_type().as_deref(), Some("first.committed"));
    assert_eq!(stream.event().await.event_type().as_deref(), Some("first.written"));
}

#[tokio::test]
pub async fn what_is_rolled_back_never_happened() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("begin; select walcast.emit('o1', 'never', '1'); insert into campuses (organization_id, name) values ('o1', 'x'); rollback").await;
    app.sql(
        "begin; savepoint a; select walcast.emit('o1', 'never', '2'); rollback to a;
         select walcast.emit('o1', 'kept', '3'); commit",
    )
    .await;
    let event = stream.event().await.json();
    assert_eq!((&event["type"], &event["data"]), (&json!("kept"), &json!(3)));
}

#[tokio::test]
pub async fn concurrent_writers_lose_and_double_nothing() {
    const WRITERS: usize = 8;
    const EACH: usize = 100;
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "&types=tick").await;
    let writers = (0..WRITERS).map(|writer| {
        let dsn = app.dsn.clone();
        tokio::spawn(async move {
            let session = server::session(&dsn).await;
            for n in 0..EACH {
                let sql = format!("select walcast.emit('o1', 'tick', '[{writer}, {n}]')");
                session.batch_execute(&sql).await.expect("emitted");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer");
    }
    let mut seen = vec![0_usize; WRITERS];
    let mut last = None;
    for _ in 0..WRITERS * EACH {
        let event = stream.event().await;
        let id: EventId = event.id.as_deref().expect("an id").parse().expect("an id");
        assert!(last < Some(id.place()), "ids ascend");
        last = Some(id.place());
        let data = event.json()["data"].clone();
        let number =
            |place: usize| data[place].as_u64().and_then(|n| usize::try_from(n).ok()).expect("a number");
        let (writer, n) = (number(0), number(1));
        assert_eq!(n, seen[writer], "each writer's events in its order, none missing, none twice");
        seen[writer] += 1;
    }
    assert_eq!(seen, [EACH; WRITERS]);
}
