//! Numbering what was committed, which the reader does, and whoever asks for a stream: neither holds the other up,
//! however the database is set.

use serde_json::json;
use walcast::cli::cluster::StopMode;

use super::*;

/// Nobody else can number while this session's transaction is open.
const HOLD: &str = "begin; select pg_advisory_xact_lock(2002874371, 2)";

/// Sessions of this database that wait for that.
const WAITING: &str = "select count(*) from pg_locks where locktype = 'advisory' and classid = 2002874371
    and objid = 2 and not granted and database = (select oid from pg_database where datname = current_database())";

async fn waiting(app: &TestApp, sessions: &str) {
    eventually("sessions wait to number", || async { (app.text(WAITING).await == sessions).then_some(()) })
        .await;
}

async fn refusal(app: &TestApp, member: &Member) -> u16 {
    app.connect(member, "").await.head.status
}

#[tokio::test]
async fn whatever_the_database_isolates_by_a_request_sees_what_was_numbered_while_it_waited() {
    for isolation in ["read committed", "repeatable read", "serializable"] {
        let set = format!(
            "do $$ begin execute format('alter database %I set default_transaction_isolation = %L',
                 current_database(), '{isolation}'); end $$"
        );
        let app = over(SourceKind::Outbox).before(&set).start().await;
        app.member("o1", "u1", "admin").await;
        let stranger = Member { organization: "o2".to_owned(), token: token_with("u1", json!({})) };
        assert_eq!(refusal(&app, &stranger).await, 403);
        let holder = server::session(&app.dsn).await;
        holder.batch_execute(HOLD).await.expect("the lock");
        // The reader comes first, and numbers this; the request finds it done.
        app.sql("select walcast.emit('o1', 'thing', '1')").await;
        waiting(&app, "1").await;
        let (status, ()) = tokio::join!(refusal(&app, &stranger), async {
            waiting(&app, "2").await;
            holder.batch_execute("commit").await.expect("the end of the lock");
        });
        assert_eq!(status, 403, "{isolation}: a worker that is not behind says so");
    }
}

#[tokio::test]
async fn a_synchronous_standby_that_is_away_holds_up_no_stream_of_what_is_committed() {
    let settings = server::settings();
    let cluster =
        Cluster::start(ClusterOptions { settings, ..ClusterOptions::default() }).await.expect("a cluster");
    let url = cluster.dsn("postgres");
    migrate::run(&Dsn::parse(&url).expect("its URL"), true).await.expect("migrations");
    let app = over(SourceKind::Outbox).on(url).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let stranger = Member { organization: "o2".to_owned(), token: member.token.clone() };
    let mut stream = app.open(&member, "").await;
    app.sql("alter system set synchronous_standby_names = 'nobody'").await;
    app.sql("select pg_reload_conf()").await;
    eventually("commits wait for a standby", || async {
        (app.text("select current_setting('synchronous_standby_names')").await == "nobody").then_some(())
    })
    .await;
    app.sql("set synchronous_commit = local").await;
    for _ in 0..8 {
        app.sql("select walcast.emit('o1', 'done', '1')").await;
        // Nothing wakes the reader before this does: it numbers the event.
        assert_eq!(refusal(&app, &stranger).await, 403);
        assert_eq!(stream.event().await.event_type().as_deref(), Some("done"));
    }
    drop(app);
    cluster.stop(StopMode::Immediate).await.expect("a stop");
}
