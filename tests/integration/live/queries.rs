//! Queries of live presets that can't work: at the start, for a while, or for some values.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;
use walcast::app::App;
use walcast::config::{Config, Secret};
use walcast::postgres::dsn::Dsn;

use super::{ONE, PATH, often, open, preset, runs, update};
use crate::bench::app::{TestApp, configuration};
use crate::bench::{PATIENCE, eventually, server};

/// A query of the test's own, in a file that lasts as long as the test.
pub fn query(config: &mut Config, text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("a query");
    preset(config).sql = file.path().to_owned();
    preset(config).text = None;
    file
}

/// What a worker with this query says when it starts, and ends by.
async fn refused(text: &str) -> String {
    let url = server::database().await;
    let dsn = Dsn::parse(&url).expect("the URL");
    let mut config = configuration();
    let file = query(&mut config, text);
    walcast::cli::setup::apply(&config, &dsn).await.expect("setup");
    let mut app = App::start(config, dsn.clone(), true).await.expect("a worker");
    let ended = timeout(PATIENCE, app.ended()).await.expect("it does not go on");
    let said = format!("{:#}", ended.expect_err("a reason"));
    server::clean_up(dsn);
    let name = file.path().display().to_string();
    assert!(said.contains(&format!("the live query of {PATH} fails: {name}")), "{said}");
    said.replace(&name, "FILE")
}

#[tokio::test]
async fn a_query_that_can_never_work_ends_the_start_with_its_place_and_what_is_right() {
    for (text, told) in [
        ("select 1 as n\nfrom issues\nwhere organization_id == = $1", "FILE:3: syntax error"),
        ("select $1 as n, $2, $3, $4;\nselect 2", "FILE: cannot insert multiple commands"),
        ("select 1 as n from issues", "FILE: it does not use $1, the organization"),
        (
            "select 1 as n from issues where organization_id = $1",
            "FILE: it uses $1, and live.arguments names 3 tags",
        ),
        (
            "select 1 as n from issues where category = any($4)\nand campus_id = any($2) and building_id = any($3)",
            "could not determine data type of parameter $1 (SQLSTATE 42P18); every parameter must be used",
        ),
        (
            "select count(*), 1 + 1 from issues where organization_id = $1\nand category = any($2) and category = any($3) and category = any($4)",
            "FILE: a column has no name: write expression as \"name\"",
        ),
        (
            "select id, status as id from issues where organization_id = $1\nand id = any($2) and id = any($3) and id = any($4)",
            "FILE: two columns are called \"id\"",
        ),
        (
            "insert into issues (id) select $1 || $2::text || $3::text || $4::text returning id",
            "FILE:1: syntax error",
        ),
    ] {
        let said = refused(text).await;
        assert!(said.contains(told), "{text}: {said}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_told_before_anything_runs() {
    let mut config = configuration();
    preset(&mut config).sql = PathBuf::from("/nowhere/heatmap.sql");
    preset(&mut config).text = None;
    let dsn = Dsn::parse("postgres://u@127.0.0.1:1/d").expect("a URL");
    let error = App::start(config, dsn, true).await.err().expect("an error").to_string();
    assert!(
        error.starts_with(&format!("the preset {PATH}: live.sql /nowhere/heatmap.sql: can't be read: ")),
        "{error}"
    );
}

#[tokio::test]
async fn a_column_that_is_missing_degrades_until_it_is_there_and_its_streams_wait() {
    let mut file = None;
    let app = TestApp::builder()
        .config(|config| {
            let text = "select title, floor\nfrom issues\nwhere organization_id = $1\n and floor >= 0 \
                        and $2::text[] is null and $3::text[] is null and $4::text[] is null";
            file = Some(query(config, text));
        })
        .start()
        .await;
    let name = file.expect("a file").path().display().to_string();
    let told = app.degraded(&format!("{name}:1: column \\\"floor\\\" does not exist")).await;
    assert!(told.contains(&format!("live {PATH}")), "{told}");
    let member = app.member("o1", "u1", "employee").await;
    app.sql(ONE).await;
    let mut stream = open(&app, &member, "").await;
    app.sql("alter table issues add floor int default 3").await;
    assert_eq!(update(&mut stream).await, json!([{ "title": "one more", "floor": 3 }]));
    app.undegraded().await;
}

#[tokio::test]
async fn a_right_that_is_missing_is_told_with_its_grant_and_the_first_answer_comes_with_it() {
    let url = server::database().await;
    let dsn = Dsn::parse(&url).expect("the URL");
    let role = format!("{}_live", dsn.database);
    let as_role = role.clone();
    let app = TestApp::builder()
        .on(url)
        .before(&format!(
            "create role {role} login replication password 'right';
             grant select on all tables in schema public to {role}; revoke select on issues from {role};
             grant usage on schema walcast to {role}; grant select on walcast.secret to {role};
             grant pg_monitor to {role}"
        ))
        .through(move |dsn| Dsn {
            user: as_role.clone(),
            password: Some(Secret::new("right".to_owned())),
            ..dsn.clone()
        })
        .start()
        .await;
    let told = app.degraded("permission denied for table issues").await;
    let grant = format!("GRANT SELECT ON public.issues TO {role};");
    assert!(told.contains(&grant), "{told}");
    assert!(told.contains("sql/live/heatmap.sql"), "{told}");
    let member = app.member("o1", "u1", "employee").await;
    let mut stream = open(&app, &member, "").await;
    app.sql(&grant).await;
    assert_eq!(update(&mut stream).await, json!([]));
    app.undegraded().await;
    app.sql(&format!("drop owned by {role}")).await;
}

#[tokio::test]
async fn a_value_that_the_query_can_not_work_with_is_no_reason_against_the_worker() {
    let mut file = None;
    let app = TestApp::builder()
        .config(|config| {
            often(config);
            let text = "select id from issues where organization_id = $1
                        and ($2::uuid[] is null or id::uuid = any ($2::uuid[]))
                        and $3::text[] is null and $4::text[] is null";
            file = Some(query(config, text));
        })
        .start()
        .await;
    let member = app.member("o1", "u1", "employee").await;
    app.sql(
        "insert into issues (id, organization_id, priority, status, title)
             values ('7d0a3f2e-52a4-4f0c-9d8e-2f1b3c4d5e6f', 'o1', 'low', 'open', 't')",
    )
    .await;
    let mut wrong = open(&app, &member, "&campusId=secret-value").await;
    let mut right = open(&app, &member, "&campusId=7d0a3f2e-52a4-4f0c-9d8e-2f1b3c4d5e6f").await;
    assert_eq!(update(&mut right).await, json!([{ "id": "7d0a3f2e-52a4-4f0c-9d8e-2f1b3c4d5e6f" }]));
    let told = eventually("a warning", || async {
        let told = app.get("/readyz/reasons").await.body;
        told.contains("a value it can't work with (SQLSTATE 22P02)").then_some(told)
    })
    .await;
    assert!(!told.contains("secret-value"), "{told}");
    assert_eq!(app.get("/readyz").await.body.trim(), "ready");
    assert!(runs(&app, "failed").await > 0);
    drop(file);
    // Its stream stands, and is told nothing.
    assert!(timeout(Duration::from_millis(200), wrong.frame()).await.is_err());
}
