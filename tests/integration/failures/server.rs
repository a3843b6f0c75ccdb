//! Another server, or the same one at another time.

use std::path::Path;
use std::process::Command;

use walcast::cli::cluster::StopMode;

use super::*;

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Copies a data directory with its owner and modes.
fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

#[tokio::test]
pub async fn a_copy_of_an_older_state_with_the_same_identifier_is_another_history() {
    let (cluster, url) = own_cluster(&[]).await;
    let mut app = TestApp::builder().on(url).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("select walcast.emit('o1', 'kept', '1')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("kept"));
    let data = cluster.data_dir();
    let backup = data.with_file_name("backup");
    cluster.stop(StopMode::Fast).await.expect("a stop");
    copy(data, &backup);
    cluster.resume().await.expect("a start");
    app.reconnect().await;
    for _ in 0..20 {
        app.sql("select walcast.emit('o1', 'undone', to_jsonb(repeat('x', 10000)))").await;
        assert_eq!(stream.event().await.event_type().as_deref(), Some("undone"));
    }
    cluster.stop(StopMode::Fast).await.expect("a stop");
    std::fs::remove_dir_all(data).expect("the data is removed");
    std::fs::rename(&backup, data).expect("the copy takes its place");
    cluster.resume().await.expect("a start");
    app.reconnect().await;
    told_reset(&mut stream).await;
    app.ready().await;
    assert_eq!(until_done(&app, &mut stream).await, ["done"]);
}

#[tokio::test]
pub async fn a_promoted_standby_is_another_epoch() {
    let (primary, url) = own_cluster(&[]).await;
    let (proxy, through) = proxied(&url).await;
    let mut app = TestApp::builder().on(url).through(through).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("select walcast.emit('o1', 'before', '1')").await;
    let before = stream.event().await.id.expect("an id");

    let folder = tempfile::Builder::new().prefix("walcast-standby-").tempdir_in("/tmp").expect("a folder");
    let data = folder.path().join("data");
    let binaries = walcast::cli::cluster::Binaries::find(None).expect("server programs");
    // Beside the real programs: a link to them may stand alone.
    let programs = std::fs::canonicalize(binaries.program("initdb")).expect("a program");
    run(Command::new(programs.with_file_name("pg_basebackup"))
        .args(["-X", "stream", "-c", "fast", "-R", "-D"])
        .arg(&data)
        .args(["-d", &app.url]));
    let owner = format!("--reference={}", primary.data_dir().display());
    run(Command::new("chown").arg("-R").arg(owner).arg(&data));
    // It is to read its own settings: port, socket and all.
    let configuration = data.join("postgresql.conf");
    let text = std::fs::read_to_string(&configuration).expect("a configuration");
    let (own, others) = (folder.path(), primary.data_dir().parent().expect("a folder"));
    let text = text.replace(&*others.to_string_lossy(), &own.to_string_lossy());
    std::fs::write(&configuration, text).expect("a configuration");
    let options = ClusterOptions {
        data_dir: Some(own.to_owned()),
        settings: shared::settings(),
        ..ClusterOptions::default()
    };
    let standby = Cluster::start(options).await.expect("a standby");
    primary.stop(StopMode::Immediate).await.expect("the primary is gone");
    app.dsn = Dsn::parse(&standby.dsn("postgres")).expect("its URL");
    app.reconnect().await;
    app.sql("select pg_promote()").await;
    proxy.lead_to(server_of(&standby.dsn("postgres")).await);

    told_reset(&mut stream).await;
    app.ready().await;
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    let events = stream.events_until(done).await;
    let after = events.last().and_then(|event| event.id.clone()).expect("an id");
    assert_eq!(events.len(), 1);
    assert_ne!(before.split('.').next(), after.split('.').next(), "the timeline is in the epoch");
    let mut resumed = app.open(&member, &format!("&lastEventId={before}")).await;
    told_reset(&mut resumed).await;
}

#[tokio::test]
async fn a_commit_decoded_before_it_is_visible_is_after_what_a_new_stream_calls_now() {
    let (_cluster, url) = own_cluster(&[]).await;
    let app = TestApp::builder().on(url).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut early = app.open(&member, "").await;
    app.sql("alter system set synchronous_standby_names = 'nobody'").await;
    app.sql("select pg_reload_conf()").await;
    eventually("commits wait for a standby", || async {
        (app.text("select current_setting('synchronous_standby_names')").await == "nobody").then_some(())
    })
    .await;
    let writer = shared::session(&app.dsn).await;
    let waiting =
        tokio::spawn(
            async move { writer.batch_execute("select walcast.emit('o1', 'invisible', '1')").await },
        );
    let decoded = early.event().await;
    assert_eq!(decoded.event_type().as_deref(), Some("invisible"));
    assert!(!waiting.is_finished(), "its commit waits for a standby that is away");
    let mut late = app.open(&member, "").await;
    assert_eq!(
        late.event().await.raw,
        decoded.raw,
        "who connects and then reads the database misses nothing"
    );
    app.sql("alter system reset synchronous_standby_names").await;
    app.sql("select pg_reload_conf()").await;
    waiting.await.expect("the writer").expect("its commit");
    let mut later = app.open(&member, "").await;
    assert_eq!(until_done(&app, &mut later).await, ["done"]);
}
