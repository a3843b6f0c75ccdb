//! The primary dies, and a standby takes its place.
//!
//! ```text
//! worker ─► Proxy ─► primary ─ streaming replication ─► standby
//!              └ ─ ─ ─ ─ ─ ─ ─ ─ after the failover ─ ─ ─ ─ ▲
//! ```

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use walcast::cli::cluster::StopMode;
use walcast::postgres::client::Client;

use super::*;
use crate::bench::proxy::Proxy;

/// Since when slots can be failover slots, which a standby keeps up with.
const SYNCHRONISED_SINCE: i32 = 17;

/// With which a standby keeps up with them.
const SYNCHRONISED: &[(&str, &str)] = &[("sync_replication_slots", "on")];

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Copies a data directory with its owner and modes.
pub(super) fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// A worker that reaches a primary through a proxy, and a standby of that primary.
struct Pair {
    primary: Cluster,
    standby: Cluster,
    proxy: Proxy,
    app: TestApp,
    /// Sessions with the standby.
    beside: Client,
    _folder: TempDir,
}

impl Pair {
    /// The standby is a copy of the stopped primary: pg_basebackup does not come with every server.
    async fn start(settings: &[(&str, &str)]) -> Self {
        let (primary, url) = own_cluster(&[]).await;
        let dsn = Dsn::parse(&url).expect("its URL");
        let slot = "select pg_create_physical_replication_slot('standby', true)";
        shared::session(&dsn).await.batch_execute(slot).await.expect("a slot");
        let folder =
            tempfile::Builder::new().prefix("walcast-standby-").tempdir_in("/tmp").expect("a folder");
        let data = folder.path().join("data");
        primary.stop(StopMode::Fast).await.expect("a stop");
        copy(primary.data_dir(), &data);
        primary.resume().await.expect("a start");
        // Slots are a server's own.
        let slots = data.join("pg_replslot");
        std::fs::remove_dir_all(slots.join("standby")).expect("the slot's copy is removed");
        std::fs::write(data.join("standby.signal"), "").expect("a signal");
        // It is to read its own settings: port, socket and all.
        let configuration = data.join("postgresql.conf");
        let text = std::fs::read_to_string(&configuration).expect("a configuration");
        let others = primary.data_dir().parent().expect("a folder").to_string_lossy();
        let text = text.replace(&*others, &folder.path().to_string_lossy());
        std::fs::write(&configuration, text).expect("a configuration");
        let owner = format!("--reference={}", primary.data_dir().display());
        run(Command::new("chown").arg("-R").arg(owner).arg(&data));
        let port = primary.port();
        let conninfo = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable");
        let own = [
            ("primary_conninfo", &*conninfo),
            ("primary_slot_name", "standby"),
            ("hot_standby_feedback", "on"),
        ];
        let mut all = shared::settings();
        let own = own.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        all.extend(own);
        let options = ClusterOptions {
            data_dir: Some(folder.path().to_owned()),
            settings: all,
            ..ClusterOptions::default()
        };
        let standby = Cluster::start(options).await.expect("a standby");
        let beside = shared::session(&Dsn::parse(&standby.dsn("postgres")).expect("its URL")).await;
        let (proxy, through) = proxied(&url).await;
        // A slot is synchronised once it has moved: it follows the window's end.
        let window = |config: &mut walcast::config::Config| config.replay.max_age = Duration::from_secs(1);
        let app = TestApp::builder().config(window).on(url).through(through).start().await;
        Self { primary, standby, proxy, app, beside, _folder: folder }
    }

    async fn asked(&self, condition: &str) -> bool {
        let row = self.beside.query_one(&format!("select coalesce({condition}, false)"), &[]).await;
        row.expect("the standby answers").get(0)
    }

    /// Returns once the standby has all that was written so far.
    async fn followed(&self) {
        let written = self.app.text("pg_current_wal_flush_lsn()").await;
        let condition = format!("pg_last_wal_replay_lsn() >= '{written}'");
        eventually("the standby follows", || async { self.asked(&condition).await.then_some(()) }).await;
    }

    /// Returns once the standby has the worker's slot, such that it may be read after a promotion.
    async fn synchronised(&self) {
        let condition = "(select bool_or(synced and not temporary and invalidation_reason is null)
                          from pg_replication_slots where slot_type = 'logical')";
        eventually("the slot is synchronised", || async {
            self.app.sql("select pg_log_standby_snapshot(), walcast.emit('o2', 'elsewhere', '1')").await;
            self.asked(condition).await.then_some(())
        })
        .await;
    }

    /// The primary dies, the standby is promoted, and that is where the worker's way leads.
    async fn fail_over(&mut self) {
        self.primary.stop(StopMode::Immediate).await.expect("the primary is gone");
        self.app.dsn = Dsn::parse(&self.standby.dsn("postgres")).expect("its URL");
        self.app.reconnect().await;
        self.app.sql("select pg_promote()").await;
        self.proxy.lead_to(server_of(&self.standby.dsn("postgres")).await);
    }
}

fn epoch(id: &str) -> &str {
    id.split('.').next().unwrap_or_default()
}

#[tokio::test]
pub async fn a_promoted_standby_is_another_epoch() {
    let mut pair = Pair::start(&[]).await;
    let member = pair.app.member("o1", "u1", "admin").await;
    let mut stream = pair.app.open(&member, "").await;
    pair.app.sql("select walcast.emit('o1', 'before', '1')").await;
    let before = stream.event().await.id.expect("an id");
    pair.followed().await;
    pair.fail_over().await;

    told_reset(&mut stream).await;
    let app = &pair.app;
    app.ready().await;
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    let events = stream.events_until(done).await;
    let after = events.last().and_then(|event| event.id.clone()).expect("an id");
    assert_eq!(events.len(), 1);
    assert_ne!(epoch(&before), epoch(&after), "the timeline is in the epoch");
    let mut resumed = app.open(&member, &format!("&lastEventId={before}")).await;
    told_reset(&mut resumed).await;
}

#[tokio::test]
async fn a_promoted_standby_with_the_slot_synchronised_misses_no_event_and_repeats_none() {
    if !shared::is_since(SYNCHRONISED_SINCE, "a failover to a synchronised slot").await {
        return;
    }
    let mut pair = Pair::start(SYNCHRONISED).await;
    let member = pair.app.member("o1", "u1", "admin").await;
    pair.synchronised().await;
    let mut stream = pair.app.open(&member, "").await;
    pair.app.sql("select walcast.emit('o1', 'before', '1')").await;
    let before = stream.event().await.id.expect("an id");
    // Committed on the old primary, and never read from it.
    pair.proxy.cut();
    word(&pair.app, "source_down").await;
    for n in 1..=3 {
        pair.app.sql(&format!("select walcast.emit('o1', 'unread', '{n}')")).await;
    }
    pair.followed().await;
    pair.fail_over().await;
    pair.app.sql("select walcast.emit('o1', 'new', '1')").await;
    pair.proxy.restore();

    told_reset(&mut stream).await;
    let app = &pair.app;
    assert_eq!(until_done(app, &mut stream).await, ["unread", "unread", "unread", "new", "done"]);
    app.ready().await;
    let mut resumed = app.open(&member, &format!("&lastEventId={before}")).await;
    told_reset(&mut resumed).await;
    // The slot is still one that a standby keeps up with.
    let failover = "select failover from pg_replication_slots where database = current_database()";
    assert_eq!(app.text(&format!("({failover})")).await, "true");
}

#[tokio::test]
async fn a_promoted_standby_without_what_streams_have_seen_is_a_new_history() {
    if !shared::is_since(SYNCHRONISED_SINCE, "a failover to a standby that is behind").await {
        return;
    }
    let mut pair = Pair::start(SYNCHRONISED).await;
    let member = pair.app.member("o1", "u1", "admin").await;
    pair.synchronised().await;
    pair.followed().await;
    let mut stream = pair.app.open(&member, "").await;
    // The way between the two is cut: the standby hears nothing more.
    let nowhere = "alter system set primary_conninfo = 'host=127.0.0.1 port=1 user=postgres dbname=postgres'";
    pair.beside.batch_execute(nowhere).await.expect("a setting");
    pair.beside.batch_execute("select pg_reload_conf()").await.expect("a reload");
    eventually("the standby hears nothing", || async {
        pair.asked("not exists (select from pg_stat_wal_receiver)").await.then_some(())
    })
    .await;
    pair.app.sql("select walcast.emit('o1', 'lost', '1')").await;
    let lost = stream.event().await.id.expect("an id");
    pair.fail_over().await;

    told_reset(&mut stream).await;
    let app = &pair.app;
    app.ready().await;
    assert_eq!(until_done(app, &mut stream).await, ["done"]);
    let mut resumed = app.open(&member, &format!("&lastEventId={lost}")).await;
    told_reset(&mut resumed).await;
}
