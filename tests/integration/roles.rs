//! Who runs the worker: a role with no more than it was granted, and what it says when that is not enough.

use crate::bench::app::TestApp;
use crate::bench::http::Request;
use crate::bench::process::{WorkerProcess, command};
use crate::bench::{PATIENCE, eventually, server};

/// Roles are the cluster's: named for the test's database.
async fn role(app: &TestApp) -> String {
    let role = format!("{}_worker", app.dsn.database);
    app.sql(&format!("create role {role} login replication password 'secret'")).await;
    role
}

fn url_of(app: &TestApp, role: &str) -> String {
    let (_, server) = app.url.split_once("://").unwrap();
    let server = server.rsplit_once('@').map_or(server, |(_, server)| server);
    let separator = if server.contains('?') { '&' } else { '?' };
    format!("postgres://{server}{separator}user={role}&password=secret")
}

async fn drop_role(app: &TestApp, role: &str) {
    app.sql(&format!("drop owned by {role}; drop role {role}")).await;
}

async fn setup(url: &str, arguments: &[&str]) -> String {
    let mut setup = command(url);
    setup.args(["setup", "--reference"]).args(arguments);
    let done = tokio::time::timeout(PATIENCE, setup.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    said
}

/// Why a worker does not serve.
async fn reasons(worker: std::net::SocketAddr, text: &str) -> String {
    eventually("it is told why", || async {
        let told = Request::get("/readyz/reasons").fetch(worker).await.body;
        told.contains(text).then_some(told)
    })
    .await
}

/// No statement but in comments, which may advise.
fn is_nothing(printed: &str) -> bool {
    printed.starts_with("-- Nothing to do") && printed.lines().all(|line| line.starts_with("--"))
}

#[tokio::test]
async fn a_role_with_replication_and_select_serves_everything() {
    let mut app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.stop().await;
    let role = role(&app).await;
    let dry = setup(&app.url, &["--role", &role, "--dry-run"]).await;
    assert!(dry.contains(&format!("to \"{role}\"")), "{dry}");
    setup(&app.url, &["--role", &role, "--emit-role", &role]).await;
    let again = setup(&app.url, &["--role", &role, "--emit-role", &role]).await;
    assert!(is_nothing(&again), "{again}");

    let worker = WorkerProcess::start(&url_of(&app, &role), &[]).await;
    assert_eq!(Request::get("/readyz").fetch(worker.address).await.body.trim(), "ready");
    app.address = worker.address;
    let mut stream = app.open(&member, "").await;
    let dsn = walcast::postgres::Dsn::parse(&url_of(&app, &role)).unwrap();
    let session = server::session(&dsn).await;
    session.batch_execute("select walcast.emit('o1', 'granted', '1')").await.unwrap();
    assert_eq!(stream.event().await.event_type().as_deref(), Some("granted"));
    drop(session);
    assert!(worker.terminate().await.success());
    drop_role(&app, &role).await;
}

#[tokio::test]
async fn what_a_role_may_not_do_is_told_with_its_reason() {
    let mut app = TestApp::start().await;
    app.member("o1", "u1", "admin").await;
    app.stop().await;
    let role = role(&app).await;
    setup(&app.url, &["--role", &role]).await;

    // Without the secret everything but emitted events goes on.
    app.sql(&format!("revoke select on walcast.secret from {role}")).await;
    let worker = WorkerProcess::start(&url_of(&app, &role), &[]).await;
    let told = reasons(worker.address, "walcast.secret").await;
    assert!(told.contains("setup --role"), "{told}");
    assert_eq!(Request::get("/readyz").fetch(worker.address).await.body.trim(), "degraded");
    worker.kill().await;

    // Without a mirrored table, or a part of it, nobody is let in.
    app.sql(&format!("grant select on walcast.secret to {role}; revoke select on memberships from {role}"))
        .await;
    for (mended, reason) in [
        (format!("grant select on memberships to {role}"), "permission denied for table memberships"),
        ("alter table memberships disable row level security".to_owned(), "row-level security"),
    ] {
        if reason == "row-level security" {
            app.sql("alter table memberships enable row level security").await;
        }
        let mut config = app.config.clone();
        config.http.listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let dsn = walcast::postgres::Dsn::parse(&url_of(&app, &role)).unwrap();
        let worker = walcast::app::App::start(config, dsn, true).await.unwrap();
        let told = reasons(worker.address(), reason).await;
        assert!(told.contains("memberships"), "{told}");
        assert_eq!(Request::get("/readyz").fetch(worker.address()).await.head.status, 503);
        worker.stop().await.unwrap();
        app.sql(&mended).await;
    }

    // Without any grant, where the log can't be read either.
    app.sql(&format!("drop owned by {role}; alter role {role} noreplication")).await;
    let dsn = walcast::postgres::Dsn::parse(&url_of(&app, &role)).unwrap();
    let worker = walcast::app::App::start(app.config.clone(), dsn, true).await.unwrap();
    let told = reasons(worker.address(), "walcast.meta").await;
    assert!(told.contains("walcast setup --role"), "{told}");
    worker.stop().await.unwrap();
    setup(&app.url, &["--role", &role]).await;

    // Without REPLICATION.
    app.sql(&format!("alter role {role} noreplication")).await;
    let dsn = walcast::postgres::Dsn::parse(&url_of(&app, &role)).unwrap();
    let worker = walcast::app::App::start(app.config.clone(), dsn, true).await.unwrap();
    let told = reasons(worker.address(), "42501").await;
    assert!(told.contains("REPLICATION") || told.contains("replication role"), "{told}");
    worker.stop().await.unwrap();
    drop_role(&app, &role).await;
}

#[tokio::test]
async fn dry_run_is_sql_for_psql_as_it_is_and_afterwards_nothing_is_left_to_do() {
    let url = server::database().await;
    let dsn = walcast::postgres::Dsn::parse(&url).unwrap();
    let printed = setup(&url, &["--dry-run"]).await;
    let Some(psql) = ["psql", "/usr/lib/postgresql/15/bin/psql"].into_iter().find(|psql| {
        std::process::Command::new(psql).arg("--version").output().is_ok_and(|output| output.status.success())
    }) else {
        eprintln!("psql is not installed here: not tried");
        return;
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &printed).unwrap();
    let run = tokio::process::Command::new(psql)
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(file.path())
        .arg(&url)
        .output()
        .await
        .unwrap();
    assert!(run.status.success(), "{}\n{printed}", String::from_utf8_lossy(&run.stderr));
    let again = setup(&url, &["--dry-run"]).await;
    assert!(is_nothing(&again), "{again}");
    server::clean_up(dsn);
}
