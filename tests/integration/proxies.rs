//! nginx and Caddy before the worker, configured as docs/proxies says: what a browser and others see through them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use walcast::config::Config;

use crate::bench::app::{TestApp, token_with};
use crate::bench::front::{Front, Kind};
use crate::bench::page::Page;
use crate::bench::watcher::Watcher;
use crate::bench::{PATIENCE, eventually, programs};
use crate::clients::story::{SECOND_USER, Story, USER, targets};
use crate::live;

const ORIGIN: &str = "https://front.example.com";

#[tokio::test]
async fn behind_nginx_native_event_source_sees_restarts_as_reconnects_alone() {
    chromium_behind(Kind::Nginx).await;
}

#[tokio::test]
async fn behind_caddy_native_event_source_sees_restarts_as_reconnects_alone() {
    chromium_behind(Kind::Caddy).await;
}

/// Twelve streams of one page over one connection: HTTP/2, where HTTP/1.1 would have six of them.
async fn chromium_behind(kind: Kind) {
    let test = format!("native EventSource behind {}", kind.program());
    let (Some(chromium), Some(proxy)) = (programs::find("chromium"), programs::find(kind.program())) else {
        return programs::skipped(&test, &format!("chromium or {} is not installed", kind.program()));
    };
    let tokens = [USER, SECOND_USER].map(|user| token_with(user, json!({})));
    let page = Page::start_tls(Some(&format!("session={}; Path=/; Secure; HttpOnly", tokens[0]))).await;
    let story = Story::begin(&page.origin).await;
    let front = Front::start(kind, &proxy, story.worker, &page.origin).await;
    let base = format!("https://{}", front.address);
    let mut all = targets(&base, "#cookie");
    for target in &mut all {
        target.with_credentials = true;
    }
    for mut target in targets(&base, "#token") {
        target.url.push_str(&format!("&token={}", tokens[1]));
        all.push(target);
    }
    let watcher = Watcher::chromium(&chromium, page, &all);
    let argument = if kind == Kind::Nginx { "-v" } else { "version" };
    let (browser, front_version) =
        (programs::version(&chromium, "--version").await, programs::version(&proxy, argument).await);
    let number = front_version.rsplit(['/', ' ']).next().unwrap_or_default();
    let name = format!("{browser} behind {} {number}", kind.program());
    story.tell(&name, watcher, &all).await;

    let (access, everything) = (front.access_log(), front.everything_logged());
    assert!(access.contains("/api/realtime/issues/stream"), "{access}");
    assert!(access.contains("HTTP/2"), "{access}");
    for token in &tokens {
        assert!(!everything.contains(token.as_str()), "no log has a token: {everything}");
    }
    assert!(!everything.contains("token="), "no log has a query: {everything}");
}

/// An answer as curl gets it over HTTP/2.
struct Answer {
    status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    lines: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Answer {
    async fn get(curl: &Path, front: SocketAddr, target: &str, headers: &[&str]) -> Self {
        let mut command = programs::command(curl);
        command.args(["--silent", "--no-buffer", "--insecure", "--include", "--http2"]);
        for header in headers {
            command.args(["--header", header]);
        }
        command.arg(format!("https://{front}{target}"));
        let mut child = command.stdout(Stdio::piped()).spawn().expect("curl starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let status = line(&mut lines).await.expect("a status");
        let (version, status) = status.split_once(' ').expect("a status");
        assert_eq!(version, "HTTP/2");
        let status = status.trim().parse().expect("a status");
        let mut headers = Vec::new();
        while let Some((name, value)) = line(&mut lines).await.expect("a header").split_once(": ") {
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Self { status, headers, lines, child }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The rest of an answer that ends.
    async fn body(&mut self) -> String {
        let mut body = String::new();
        while let Some(text) = line(&mut self.lines).await {
            body.push_str(&text);
            body.push('\n');
        }
        body
    }

    /// The next event's type.
    async fn event(&mut self) -> String {
        loop {
            let text = line(&mut self.lines).await.expect("the stream goes on");
            if let Some(data) = text.strip_prefix("data: ") {
                let event: serde_json::Value = serde_json::from_str(data).expect("an event");
                return event["type"].as_str().expect("a type").to_owned();
            }
        }
    }

    async fn hang_up(mut self) {
        self.child.kill().await.expect("curl was there");
    }
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<String> {
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    line.expect("the answer comes").expect("text").map(|line| line.trim_end().to_owned())
}

/// Each proxy of this machine, with curl; says which are missing.
fn proxies(test: &str) -> Vec<(Kind, PathBuf, PathBuf)> {
    let curl = programs::find("curl");
    let installed = |kind: Kind| {
        let found = programs::find(kind.program()).zip(curl.clone());
        if found.is_none() {
            programs::skipped(&format!("{test}, {}", kind.program()), "it or curl is not installed");
        }
        found.map(|(program, curl)| (kind, program, curl))
    };
    [Kind::Nginx, Kind::Caddy].into_iter().filter_map(installed).collect()
}

#[tokio::test]
async fn a_proxy_without_its_worker_tells_event_sources_when_to_come_back_and_others_that_it_is_away() {
    for (kind, program, curl) in proxies("a proxy without its worker") {
        let nobody = programs::free_port();
        let front = Front::start(kind, &program, nobody, ORIGIN).await;
        let get = async |headers: &[&str]| {
            let target = "/api/realtime/stream?organizationId=o1&token=SECRET";
            let mut answer = Answer::get(&curl, front.address, target, headers).await;
            let body = answer.body().await;
            (answer, body)
        };
        let (stream, body) = get(&["Accept: text/event-stream", &format!("Origin: {ORIGIN}")]).await;
        assert_eq!(
            (stream.status, stream.header("content-type")),
            (200, Some("text/event-stream")),
            "{kind:?}"
        );
        let retry = body.lines().find_map(|line| line.strip_prefix("retry: ")?.parse::<u64>().ok());
        assert!(retry.is_some_and(|millis| (1000..=5000).contains(&millis)), "{kind:?}: {body}");
        assert!(body.ends_with("\n\n") && !body.contains("data:"), "{kind:?}: {body:?}");
        // A page of another origin that may not read it would give up.
        assert_eq!(stream.header("access-control-allow-origin"), Some(ORIGIN), "{kind:?}");
        assert_eq!(stream.header("access-control-allow-credentials"), Some("true"), "{kind:?}");
        assert_eq!(stream.header("cache-control"), Some("no-cache, no-transform"), "{kind:?}");

        for evil in [
            "https://evil.example.com",
            "https://front.example.com.evil.example",
            "https://frontXexample.com",
        ] {
            let (other, _) = get(&["Accept: text/event-stream", &format!("Origin: {evil}")]).await;
            assert_eq!(other.header("access-control-allow-origin"), None, "{kind:?} {evil}");
        }
        let (program, body) = get(&["Accept: application/json"]).await;
        assert_eq!(
            (program.status, program.header("content-type")),
            (503, Some("application/json")),
            "{kind:?}"
        );
        assert_eq!(body.trim(), r#"{"error":"away","message":"the worker is away"}"#, "{kind:?}");
        let logged = front.everything_logged();
        assert!(!logged.contains("SECRET"), "{kind:?}: {logged}");
    }
}

#[tokio::test]
async fn a_proxy_passes_frames_at_once_and_as_they_are() {
    for (kind, program, curl) in proxies("frames through a proxy") {
        let app = TestApp::start().await;
        let member = app.member("o1", "u1", "admin").await;
        let front = Front::start(kind, &program, app.address, ORIGIN).await;
        let target = TestApp::target(&member, "");
        let authorization = format!("Authorization: Bearer {}", member.token);
        let headers = ["Accept: text/event-stream", "Accept-Encoding: gzip, br, zstd", &authorization];
        let mut stream = Answer::get(&curl, front.address, &target, &headers).await;
        assert_eq!(
            (stream.status, stream.header("content-type")),
            (200, Some("text/event-stream")),
            "{kind:?}"
        );
        assert_eq!(stream.header("content-encoding"), None, "{kind:?}");
        assert_eq!(stream.header("cache-control"), Some("no-cache, no-transform"), "{kind:?}");
        assert_eq!(stream.event().await, "connected", "{kind:?}");
        // Each is awaited before the next is written: a proxy that collects would keep it.
        for n in 0..5 {
            app.sql(&format!("select walcast.emit('o1', 'n{n}', '1')")).await;
            assert_eq!(stream.event().await, format!("n{n}"), "{kind:?}");
        }
        let logged = front.everything_logged();
        assert!(!logged.contains(&member.token), "{kind:?}: {logged}");
    }
}

#[tokio::test]
async fn a_proxy_passes_a_live_presets_first_answer_its_keepalives_and_what_follows_a_change() {
    for (kind, program, curl) in proxies("a live preset through a proxy") {
        let quick = |config: &mut Config| {
            live::often(config);
            config.http.keepalive = Duration::from_millis(500);
        };
        let app = TestApp::builder().config(quick).start().await;
        let member = app.member("o1", "u1", "admin").await;
        let front = Front::start(kind, &program, app.address, ORIGIN).await;
        let target = format!("{}?organizationId=o1&updateInterval=100&token={}", live::PATH, member.token);
        // As a browser comes back.
        let headers = ["Accept: text/event-stream", "Last-Event-ID: 0123456789abcdef.1.1"];
        let mut stream = Answer::get(&curl, front.address, &target, &headers).await;
        assert_eq!(
            (stream.status, stream.header("content-type")),
            (200, Some("text/event-stream")),
            "{kind:?}"
        );
        assert_eq!((stream.event().await, stream.event().await), ("connected".into(), "update".into()));
        for n in 0..3 {
            let mut comments = 0;
            while comments < 2 {
                let line = line(&mut stream.lines).await.expect("the stream goes on");
                assert!(!line.starts_with("data"), "{kind:?}: nothing changed, and it is told {line}");
                comments += usize::from(line == ": keepalive");
            }
            app.sql(live::ONE).await;
            assert_eq!(stream.event().await, "update", "{kind:?}: change {n}");
        }
        let logged = front.everything_logged();
        assert!(!logged.contains(&member.token), "{kind:?}: {logged}");
    }
}

#[tokio::test]
async fn a_proxy_shows_streams_and_keeps_the_rest_inside() {
    for (kind, program, curl) in proxies("what a proxy shows") {
        let app = TestApp::start().await;
        let front = Front::start(kind, &program, app.address, ORIGIN).await;
        for path in [
            "/metrics",
            "/readyz/reasons",
            "/readyz",
            "/",
            "/api/../metrics",
            "/api/%2e%2e/metrics",
            "//metrics",
        ] {
            let answer = Answer::get(&curl, front.address, path, &[]).await;
            assert_eq!(answer.status, 404, "{kind:?} {path}");
        }
        let refused = Answer::get(&curl, front.address, "/api/realtime/stream?organizationId=o1", &[]).await;
        assert_eq!(refused.status, 401, "{kind:?}: the worker's own answer passes");
    }
}

#[tokio::test]
async fn through_a_proxy_clients_are_counted_by_their_own_address_and_who_hangs_up_makes_room() {
    for (kind, program, curl) in proxies("addresses through a proxy") {
        let app = TestApp::builder()
            .config(|config| {
                config.limits.streams_per_address = 2;
                config.http.trusted_proxies = vec!["127.0.0.1".to_owned()];
            })
            .start()
            .await;
        let member = app.member("o1", "u1", "admin").await;
        let front = Front::start(kind, &program, app.address, ORIGIN).await;
        let authorization = format!("Authorization: Bearer {}", member.token);
        let open = async |claimed: &str| {
            let headers =
                [&format!("X-Forwarded-For: {claimed}"), &format!("X-Real-IP: {claimed}"), &authorization];
            Answer::get(&curl, front.address, &TestApp::target(&member, ""), &headers.map(String::as_str))
                .await
        };
        let mut streams = Vec::new();
        for claimed in ["9.9.9.1", "9.9.9.2"] {
            let stream = open(claimed).await;
            assert_eq!(stream.status, 200, "{kind:?}");
            streams.push(stream);
        }
        assert_eq!(
            open("9.9.9.3").await.status,
            429,
            "{kind:?}: what clients say of themselves is not believed"
        );
        streams.pop().expect("a stream").hang_up().await;
        eventually(&format!("room behind {kind:?}"), || async {
            (open("9.9.9.4").await.status == 200).then_some(())
        })
        .await;
    }
}

#[test]
fn a_quiet_stream_outlives_no_timeout_of_a_proxy() {
    let text = include_str!("../../docs/proxies/nginx.conf");
    let keepalive = walcast::config::Config::default().http.keepalive;
    for name in ["proxy_read_timeout", "proxy_send_timeout"] {
        let value = text.lines().find_map(|line| line.trim().strip_prefix(name)?.trim().strip_suffix("s;"));
        let seconds: u64 = value.and_then(|value| value.parse().ok()).expect("seconds");
        assert!(seconds >= 2 * keepalive.as_secs(), "{name} {seconds}");
    }
    // Caddy has none by default.
    let caddy = include_str!("../../docs/proxies/Caddyfile");
    assert!(!caddy.contains("read_timeout") && !caddy.contains("stream_timeout"));
}
