//! Every failure of the database that docs/failures.md has a row for: what streams see, what readiness says, how it
//! heals. A server that has to be harmed is the test's own.

mod budget;
pub mod connection;
pub mod failover;
pub mod schema;
pub mod server;
mod slot;

use serde_json::{Value, json};
use walcast::cli::cluster::{Cluster, ClusterOptions};
use walcast::postgres::dsn::Dsn;

use crate::bench::app::TestApp;
use crate::bench::eventually;
use crate::bench::proxy::{proxied, server_of};
use crate::bench::server as shared;
use crate::bench::sse::{Frame, Stream};

fn done(frame: &Frame) -> bool {
    frame.event_type().as_deref() == Some("done")
}

/// What comes up to the event that this emits.
async fn until_done(app: &TestApp, stream: &mut Stream) -> Vec<String> {
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    stream.events_until(done).await.iter().filter_map(Frame::event_type).collect()
}

/// The next frame is the one that tells that history begins anew; whatever it is, nothing came before it.
async fn told_reset(stream: &mut Stream) {
    let told = stream.event().await.json();
    assert_eq!(
        (&told["type"], &told["data"]["reason"]),
        (&json!("data.sync"), &json!("history_reset")),
        "{told}"
    );
}

/// What readiness says with this text in it, as soon as it does: of its reasons, or of its warnings.
async fn says(app: &TestApp, list: &str, text: &str) -> Value {
    eventually(text, || async {
        let said = app.get("/readyz/reasons").await.json();
        said[list]
            .as_array()?
            .iter()
            .find(|one| one["message"].as_str().is_some_and(|m| m.contains(text)))
            .cloned()
    })
    .await
}

/// The SQL that readiness offers against what it says with this text in it.
async fn remedy(app: &TestApp, text: &str) -> String {
    let reason = says(app, "reasons", text).await;
    reason["sql"].as_str().unwrap_or_else(|| panic!("no SQL in {reason}")).to_owned()
}

/// Returns once the watch has looked at the database: what later looks are compared with.
pub async fn looked(app: &TestApp) {
    eventually("the watch has looked", || async {
        // The last thing that a look asks.
        let asked = "select count(*) from pg_stat_activity where datname = current_database()
                     and state = 'idle' and query like '%pg_partition_tree(c.oid)%'";
        (app.text(asked).await != "0").then_some(())
    })
    .await;
}

async fn word(app: &TestApp, wanted: &str) {
    eventually(wanted, || async { (app.get("/readyz").await.body.trim() == wanted).then_some(()) }).await;
}

/// A cluster that a test may harm, with the domain in it.
async fn own_cluster(settings: &[(&str, &str)]) -> (Cluster, String) {
    let mut all = shared::settings();
    all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let cluster = Cluster::start(ClusterOptions { settings: all, ..ClusterOptions::default() }).await;
    let cluster = cluster.expect("a cluster");
    let url = cluster.dsn("postgres");
    walcast::cli::migrate::run(&Dsn::parse(&url).expect("its URL"), true).await.expect("migrations");
    (cluster, url)
}

/// Ends the walsender of the database's slot, if there is one.
async fn terminate_walsender(app: &TestApp) {
    app.sql(
        "select pg_terminate_backend(active_pid) from pg_replication_slots
         where database = current_database() and active",
    )
    .await;
}

/// Drops the database's slot, and what else is to be done at once.
async fn drop_slot(app: &TestApp, and_then: &str) {
    eventually("the slot is dropped", || async {
        terminate_walsender(app).await;
        let drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots
                    where database = current_database()";
        app.try_sql(&format!("{drop}; {and_then}")).await.ok()
    })
    .await;
}
