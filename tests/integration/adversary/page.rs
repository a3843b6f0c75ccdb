//! The page at `/`: what it shows was written by others.

use std::path::Path;

use serde_json::Value;

use crate::bench::app::TestApp;
use crate::bench::programs;

const PAYLOADS: [&str; 4] = [
    "<img src=x onerror=alert(1)>",
    "</pre><script>alert(2)</script>",
    "<svg onload=alert(3)><a href=javascript:alert(4)>x</a>",
    "javascript:alert(5)\u{2028}\u{202e}",
];

#[tokio::test]
async fn the_page_may_run_and_load_nothing_but_itself_and_be_framed_by_nobody() {
    let app = TestApp::start().await;
    let page = app.get("/").await;
    let policy = page.head.header("content-security-policy").expect("a policy").to_owned();
    for directive in [
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "connect-src 'self'",
    ] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert_eq!(page.head.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.head.header("referrer-policy"), Some("no-referrer"), "tokens may stand in its address");
    assert!(page.head.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    for sink in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "javascript:",
    ] {
        assert!(!page.body.contains(sink), "{sink}");
    }
}

#[tokio::test]
async fn hostile_rows_are_text_on_the_page() {
    let (Some(chromium), Some(node)) = (programs::find("chromium"), programs::find("node")) else {
        return programs::skipped("the page with hostile rows", "chromium or node is not installed");
    };
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    for payload in PAYLOADS {
        let text = payload.replace('\'', "''");
        app.sql(&format!(
            "insert into issues (organization_id, category, priority, status, title, description, reporter_id)
               values ('o1', '{text}', 'low', 'open', '{text}', '{text}', 'u1');
             update organizations set name = '{text}' where id = 'o1';
             select walcast.emit('o1', 'hostile', jsonb_build_object('{text}', '{text}'::text))"
        ))
        .await;
    }
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    let profile = tempfile::tempdir().expect("a folder");
    let url = format!("http://{}/#organizationId=o1&since=earliest&token={}", app.address, member.token);
    // What is on the page once the last event is: elements that it has itself are of few kinds.
    let expression = r##"[...document.querySelectorAll("#events b")].some((b) => b.textContent === "done") ? {
        text: document.body.innerText,
        strange: [...document.querySelectorAll("#events *, #about *, header *")].map((e) => e.localName)
          .filter((name) => !["li", "div", "b", "pre", "time", "code", "span", "h1", "output"].includes(name)),
        scripts: document.scripts.length,
      } : null"##;
    let mut command = programs::command(&node);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/inspect.mjs"));
    command.arg(chromium).arg(profile.path()).arg(url).arg(expression).stdout(std::process::Stdio::piped());
    let output = tokio::time::timeout(std::time::Duration::from_secs(120), command.output());
    let output = output.await.expect("the page shows the events").expect("node runs");
    let found: Value = serde_json::from_slice(&output.stdout).expect("what is on the page");
    assert_eq!(found["dialog"], Value::Null, "nothing ran: {found}");
    assert_eq!(found["strange"], serde_json::json!([]), "{found}");
    assert_eq!(found["scripts"], 1, "{found}");
    let text = found["text"].as_str().expect("text");
    assert!(text.contains("<img src=x onerror=alert(1)>") && text.contains("<script>alert(2)"), "{text}");
}
