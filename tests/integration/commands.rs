//! The binary's commands, as a shell sees them: output, exit codes, and what is never said.

use std::process::Output;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::bench::PATIENCE;
use crate::bench::app::{JWT_SECRET, TestApp, token_with};
use crate::bench::eventually;
use crate::bench::http::Request;
use crate::bench::process::{WorkerProcess, command};
use crate::bench::server;

async fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        timeout(PATIENCE, command.output()).await.expect("it ends").expect("the binary");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test]
async fn every_mistake_of_the_configuration_is_told_with_its_place_and_exit_code_2() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join("walcast.toml"),
        "[http]\nlisten = \"nowhere\"\nkeepalives = \"3s\"\n\n[limits]\nwhen_full = \"evict\"\n\n[bogus]\nx = 1\n",
    )
    .expect("a file");
    let (code, out, err) = run(command("postgres://localhost/x")
        .current_dir(&folder)
        .env("WALCAST_HTTP_KEEPALIV", "1s")
        .env("WALCAST_REPLAY_MAX_AGE", "soon")
        .env_remove("WALCAST_HTTP_LISTEN")
        .args(["run", "--set", "limits.streams=many"]))
    .await;
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    for told in [
        "walcast.toml:2: http.listen must be",
        "walcast.toml:3: http.keepalives is not a setting; did you mean http.keepalive?",
        "walcast.toml:6: limits.when_full must be",
        "walcast.toml:8: bogus is not a setting",
        "WALCAST_HTTP_KEEPALIV: not a variable of walcast; did you mean WALCAST_HTTP_KEEPALIVE?",
        "WALCAST_REPLAY_MAX_AGE: replay.max_age must be a duration",
        "limits.streams must be",
    ] {
        assert!(err.contains(told), "{told:?} in\n{err}");
    }
    assert!(err.lines().all(|line| line.starts_with("walcast: ")), "{err}");
}

#[tokio::test]
async fn a_command_that_can_not_do_as_asked_says_why_and_by_which_code() {
    let cases: [(&[&str], i32, &str); 8] = [
        (&["token"], 2, "--sub"),
        (&["token", "--sub", ""], 2, "--sub"),
        (&["token", "--sub", "ada", "--expires", "soon"], 2, "duration"),
        (&["tail", "--url", "ftp://127.0.0.1", "--sub", "ada", "--organization", "o1"], 2, "http"),
        (&["tail", "--sub", "ada"], 2, "--organization"),
        (&["run", "--config", "/nowhere/walcast.toml"], 2, "/nowhere/walcast.toml"),
        (&["run", "--reference", "--database-url", "postgres://u:pass-word@127.0.0.1:port/x"], 2, "port"),
        (&["migrate", "--database-url", "postgres://u:pass-word@127.0.0.1:1/x"], 1, "127.0.0.1:1"),
    ];
    for (arguments, code, told) in cases {
        let (got, out, err) = run(command("").args(arguments)).await;
        assert_eq!((got, out.as_str()), (Some(code), ""), "{arguments:?}: {err}");
        assert!(err.contains(told), "{arguments:?}: {err}");
        assert!(!err.contains("pass-word"), "{arguments:?}: {err}");
    }
}

#[tokio::test]
async fn what_stands_in_the_way_of_the_reference_domain_is_told_once_with_what_to_do() {
    let empty = server::empty_database().await;
    for name in ["setup", "run"] {
        let (code, _, err) = run(command(&empty).args([name, "--reference"])).await;
        assert_eq!(code, Some(2), "{err}");
        let told = "there is no table lots in the database; it has none yet, migrate it first; `walcast migrate --reference`";
        assert!(err.contains(told), "{name}: {err}");
    }
    let keyless =
        run(command(&empty).env_remove("WALCAST_ACCESS_JWT_SECRET").args(["run", "--reference"])).await;
    for name in ["jwt_secret", "jwt_public_keys", "jwks_url", "authjs", "session_query"] {
        assert!(keyless.2.contains(&format!("access.{name}")), "{name}: {}", keyless.2);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let (code, _, err) = run(command(&empty).args(["run", "--reference", "--listen", &address])).await;
    assert_eq!(code, Some(1), "{err}");
    let told = err.lines().find(|line| line.starts_with("walcast: http.listen ")).expect("a reason");
    assert!(told.contains(&address) && told.matches("os error").count() == 1, "{told}");
}

#[tokio::test]
async fn a_signed_token_opens_a_stream_for_its_user_alone() {
    let app = TestApp::start().await;
    app.member("o1", "ada", "admin").await;
    let (code, token, _) =
        run(command(&app.url).args(["token", "--sub", "ada", "--organization", "o1"])).await;
    assert_eq!(code, Some(0));
    let mut stream = crate::bench::sse::Stream::open(
        app.address,
        Request::get("/api/sse/dashboard").bearer(token.trim_end()),
    )
    .await;
    assert_eq!(stream.data().await.json()["organization"]["role"], "admin");
    let (_, stranger, _) =
        run(command(&app.url).args(["token", "--sub", "bert", "--organization", "o1"])).await;
    let refused = Request::get("/api/sse/dashboard").bearer(stranger.trim_end()).fetch(app.address).await;
    assert_eq!(refused.error().0, 403);
}

#[tokio::test]
async fn a_dry_run_of_setup_prints_what_setup_then_does_and_nothing_is_left_to_do() {
    let url = server::database().await;
    let session = server::session(&walcast::postgres::dsn::Dsn::parse(&url).expect("its URL")).await;
    let count = async || -> i64 {
        let publications = "select count(*) from pg_publication";
        session.query_one(publications, &[]).await.expect("a count").get(0)
    };
    let (code, dry, err) = run(command(&url).args(["setup", "--reference", "--dry-run"])).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(count().await, 0, "nothing was done");
    for sql in ["create publication", "replica identity full", "pg_create_logical_replication_slot"] {
        assert!(dry.contains(sql), "{sql} in {dry}");
    }
    let (code, _, err) = run(command(&url).args(["setup", "--reference"])).await;
    assert_eq!((code, count().await), (Some(0), 1), "{err}");
    let (code, again, _) = run(command(&url).args(["setup", "--reference", "--dry-run"])).await;
    assert_eq!(code, Some(0));
    for sql in ["create publication", "alter table", "pg_create_logical_replication_slot"] {
        assert!(!again.contains(sql), "{again}");
    }
    session
        .batch_execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()",
        )
        .await
        .expect("the slot is free");
}

/// `walcast tail`, and its lines.
fn tail(
    url: &str,
    worker: std::net::SocketAddr,
    arguments: &[&str],
) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = command(url)
        .args(["tail", "--url", &format!("http://{worker}")])
        .args(arguments)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the binary");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    (child, lines)
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    timeout(PATIENCE, lines.next_line()).await.expect("a line in time").expect("a line").expect("no end")
}

#[tokio::test]
async fn tail_follows_over_a_restart_of_the_worker_without_a_gap() {
    let app = TestApp::start().await;
    app.member("o1", "ada", "admin").await;
    let mut app = app;
    app.stop().await;
    let worker = WorkerProcess::start(&app.url, &[]).await;
    let address = worker.address.to_string();
    let signed = ["--sub", "ada", "--organization", "o1"];
    let arguments = [&signed[..], &["--json", "--since", "earliest", "--channel", "custom"]].concat();
    app.sql("select walcast.emit('o1', 'n', '0')").await;
    let (mut child, mut lines) = tail(&app.url, worker.address, &arguments);
    let mut next = async || loop {
        let event: Value = serde_json::from_str(&line(&mut lines).await).expect("JSON a line");
        if event["type"] == "n" {
            return event["data"].as_i64().expect("a number");
        }
        assert_eq!(event["type"], "connected", "{event}");
    };
    assert_eq!(next().await, 0);
    worker.kill().await;
    app.sql("select walcast.emit('o1', 'n', '1')").await;
    let worker = WorkerProcess::start(&app.url, &[("WALCAST_HTTP_LISTEN", &address)]).await;
    app.sql("select walcast.emit('o1', 'n', '2')").await;
    assert_eq!((next().await, next().await), (1, 2));
    child.kill().await.expect("it was running");
    assert!(worker.terminate().await.success());
}

#[tokio::test]
async fn tail_follows_the_organization_that_its_token_names() {
    let app = TestApp::start().await;
    app.member("o1", "ada", "admin").await;
    let token = token_with("ada", json!({ "organizationId": "o1" }));
    let (mut child, mut lines) = tail(&app.url, app.address, &["--token", &token, "--json"]);
    let first: Value = serde_json::from_str(&line(&mut lines).await).expect("JSON a line");
    assert_eq!((&first["type"], &first["organizationId"]), (&json!("connected"), &json!("o1")), "{first}");
    child.kill().await.expect("it was running");
}

#[tokio::test]
async fn the_log_never_says_a_secret_at_any_level() {
    let app = TestApp::start().await;
    let member = app.member("o1", "ada", "admin").await;
    let mut app = app;
    app.stop().await;
    let mut child = command(&app.url)
        .args(["run", "--reference"])
        .envs([("WALCAST_LOG", "trace"), ("WALCAST_ACCESS_COOKIE", "session")])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary");
    let mut stderr = BufReader::new(child.stderr.take().expect("its log"));
    let mut log = String::new();
    let address: std::net::SocketAddr = loop {
        timeout(PATIENCE, stderr.read_line(&mut log)).await.expect("a line in time").expect("UTF-8");
        let last: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON a line");
        if let Some(address) = last["address"].as_str() {
            break address.parse().expect("an address");
        }
    };
    let reading = tokio::spawn(async move {
        stderr.read_to_string(&mut log).await.expect("UTF-8");
        log
    });
    eventually("the worker is ready", || async {
        (Request::get("/readyz").fetch(address).await.body == "ready").then_some(())
    })
    .await;
    let bad = token_with("ada", serde_json::json!({ "exp": 1 }));
    let target = TestApp::target(&member, "");
    let good = &member.token;
    for request in [
        Request::get(&target).bearer(good),
        Request::get(format!("{target}&token={good}")),
        Request::get(&target).header("Cookie", &format!("session={good}")),
    ] {
        let (socket, head, _) = request.send(address).await;
        assert_eq!(head.status, 200);
        drop(socket);
    }
    assert_eq!(Request::get(&target).bearer(&bad).fetch(address).await.head.status, 401);
    let id = child.id().expect("it is running").to_string();
    Command::new("kill").args(["-TERM", &id]).status().await.expect("kill");
    timeout(PATIENCE, child.wait()).await.expect("it ends").expect("a status");
    let log = timeout(PATIENCE, reading).await.expect("its end").expect("its log");
    assert!(log.contains("\"TRACE\"") && log.contains("stream ended"), "the log says something");
    let signature = |token: &str| token.rsplit('.').next().expect("a signature").to_owned();
    for secret in [JWT_SECRET.to_owned(), signature(good), signature(&bad), app.url.clone()] {
        assert!(!log.contains(&secret), "a secret is in the log");
    }
}
