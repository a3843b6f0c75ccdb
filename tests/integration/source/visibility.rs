//! Where "now" is: behind every commit that a new snapshot sees.

use walcast::source::Visibility;

use super::*;

#[tokio::test]
async fn now_is_behind_a_transaction_until_a_new_snapshot_sees_it() {
    let database = TestDatabase::with_bays().await;
    let mut source = database.source();
    let start = source.connected().await;
    let visibility = Visibility::new(database.dsn.clone());
    visibility.reset(start);
    database.run(&insert("1")).await;
    let first = source.transaction().await;
    visibility.record(first.xid, first.end_lsn);
    comes_to(&visibility, first.end_lsn).await;

    // One that the server still lists as in progress: it stands for a commit that was decoded before it is visible.
    let other = server::session(&database.dsn).await;
    other.batch_execute(&format!("begin; {}", insert("2"))).await.unwrap();
    let open: i64 = other
        .query_one("select (pg_current_xact_id()::text::bigint) % 4294967296", &[])
        .await
        .unwrap()
        .get(0);
    visibility.record(u32::try_from(open).unwrap(), Lsn::new(first.end_lsn.as_u64() + 10));
    database.run(&insert("3")).await;
    let third = source.transaction().await;
    visibility.record(third.xid, third.end_lsn);
    assert_eq!(visibility.visible().await.position, first.end_lsn);
    other.batch_execute("commit").await.unwrap();
    comes_to(&visibility, third.end_lsn).await;
}

/// A server that takes too long to answer leaves it at what was known before.
async fn comes_to(visibility: &Visibility, position: Lsn) {
    eventually("a snapshot sees it", || async {
        let visible = visibility.visible().await.position;
        assert!(visible <= position, "{visible} is beyond {position}");
        (visible == position).then_some(())
    })
    .await;
}
