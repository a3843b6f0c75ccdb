//! Clients that take more than their share, by ill will or by accident: they are bounded, and others are served
//! meanwhile.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::bench::app::{Member, TestApp};
use crate::bench::drain::Drains;
use crate::bench::http::Request;
use crate::bench::process::WorkerProcess;
use crate::bench::{PATIENCE, eventually};

/// More than one address may have open without a stream.
const FLOOD: usize = 1100;

async fn connect(app: &TestApp) -> TcpStream {
    TcpStream::connect(app.address).await.expect("the worker listens")
}

async fn said(app: &TestApp, text: &str) -> TcpStream {
    let mut socket = connect(app).await;
    socket.write_all(text.as_bytes()).await.expect("it is taken");
    socket
}

/// What comes until the worker closes.
async fn rest(socket: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end too: the worker had not read all that was sent.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut text)).await.expect("the worker closes");
    String::from_utf8_lossy(&text).into_owned()
}

/// Everything that others ask for is answered as always.
async fn others_are_served(app: &TestApp, member: &Member) {
    assert_eq!(app.get("/healthz").await.head.status, 200);
    let mut stream = app.open(member, "").await;
    app.sql("select walcast.emit('o1', 'served', '1')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("served"));
}

#[tokio::test]
async fn heads_that_do_not_come_to_an_end_are_given_up() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        slow.push(said(&app, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ").await);
    }
    let mut idle = Vec::new();
    for _ in 0..100 {
        let mut socket = said(&app, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut answer = [0; 15];
        socket.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        idle.push(socket);
    }
    let silent = connect(&app).await;
    others_are_served(&app, &member).await;
    // A byte now and then does not help: the head as a whole has its time.
    for socket in &mut slow {
        let _ = socket.write_all(b"x").await;
    }
    for socket in slow.iter_mut().chain(&mut idle).chain(&mut [silent]) {
        let answer = rest(socket).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    others_are_served(&app, &member).await;
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let long = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(20_000));
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let many = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n");
    for head in [long, many] {
        let answer = rest(&mut said(&app, &head).await).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let query = "a=1&".repeat(2500);
    let target = format!("/api/realtime/stream?organizationId=o1&{query}");
    let answer = Request::get(target).bearer(&member.token).fetch(app.address).await;
    assert_eq!(answer.error(), (414, "uri_too_long".to_owned()));
    // One that never ends is cut off.
    let mut endless = connect(&app).await;
    endless.write_all(b"GET /healthz?").await.expect("it is taken");
    let mut sent = 0;
    while endless.write_all(&[b'x'; 4096]).await.is_ok() {
        sent += 4096;
        assert!(sent < 64 << 20, "it is read without end");
    }
    let answer = rest(&mut endless).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    others_are_served(&app, &member).await;
}

#[tokio::test]
async fn a_flood_of_connections_pushes_out_its_own_and_nobody_who_asks_for_something() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut before = app.open(&member, "").await;
    let mut flood = Vec::new();
    for _ in 0..FLOOD {
        flood.push(connect(&app).await);
    }
    // From the address of the flood, and from another.
    others_are_served(&app, &member).await;
    let elsewhere = TcpSocket::new_v4().expect("a socket");
    elsewhere.bind(SocketAddr::from(([127, 0, 0, 2], 0))).expect("an address of this machine");
    let mut elsewhere = elsewhere.connect(app.address).await.expect("the worker listens");
    assert_eq!(rest(&mut flood[0]).await, "", "who waited longest has made room");
    let first = std::time::Instant::now();
    elsewhere
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .expect("it is taken");
    assert!(rest(&mut elsewhere).await.starts_with("HTTP/1.1 200 OK"), "after {:?}", first.elapsed());
    assert_eq!(before.event().await.event_type().as_deref(), Some("served"), "a stream is not in the way");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_a_stream_ends_the_row() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut row = String::new();
    for n in 0..200 {
        let path = if n % 2 == 0 { "/healthz" } else { "/none" };
        row.push_str(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
    row.push_str("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = rest(&mut said(&app, &row).await).await;
    let statuses: Vec<_> =
        answer.match_indices("HTTP/1.1 ").map(|(at, _)| &answer[at + 9..at + 12]).collect();
    assert_eq!(statuses, [["200", "404"].repeat(100), vec!["200"]].concat());

    let stream = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        TestApp::target(&member, ""),
        member.token
    );
    // What follows a stream's request is nobody's: it is dropped, and too much of it ends the stream.
    let mut socket =
        said(&app, &format!("{stream}{}", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(10))).await;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\"connected\"") {
        assert!(socket.read_buf(&mut seen).await.expect("a stream") > 0);
    }
    while socket.write_all(&[b'x'; 4096]).await.is_ok() {}
    others_are_served(&app, &member).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_keeps_nobody_else_waiting() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut held = Vec::new();
    for _ in 0..50 {
        let head = "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
        held.push(said(&app, head).await);
    }
    // A stream does not wait for a body that nobody reads.
    let mut stream = said(
        &app,
        &format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 1000\r\n\r\n",
            TestApp::target(&member, ""),
            member.token
        ),
    )
    .await;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\"connected\"") {
        assert!(stream.read_buf(&mut seen).await.expect("a stream") > 0);
    }
    others_are_served(&app, &member).await;
    for socket in &mut held {
        let answer = rest(socket).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }
}

/// How long it took until a quiet organization's event was seen, the longest of some.
async fn longest(
    app: &TestApp,
    stream: &mut crate::bench::sse::Stream,
    events: usize,
) -> std::time::Duration {
    let mut longest = std::time::Duration::ZERO;
    for n in 0..events {
        app.sql(&format!("select walcast.emit('quiet', 'tick', '{n}')")).await;
        let committed = std::time::Instant::now();
        assert_eq!(stream.event().await.json()["data"], n);
        longest = longest.max(committed.elapsed());
    }
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_organization_does_not_wait_while_a_noisy_ones_streams_catch_up() {
    let mut app = TestApp::start().await;
    let noisy = app.member("noisy", "u1", "admin").await;
    let quiet = app.member("quiet", "u2", "admin").await;
    app.stop().await;
    // In a process of its own: what the readers take is not the worker's.
    let worker = WorkerProcess::start(&app.url, &[]).await;
    app.address = worker.address;
    let mut stream = app.open(&quiet, "").await;
    let alone = longest(&app, &mut stream, 20).await;
    // History that some streams read as fast as it goes, again and again.
    for _ in 0..20 {
        app.sql(
            "select walcast.emit('noisy', 'big', to_jsonb(repeat('x', 10000))) from generate_series(1, 100)",
        )
        .await;
    }
    let readers = Drains::start(worker.address, &noisy, "&since=earliest", 6, 15 << 20);
    eventually("they read", || async { (readers.read() > 0).then_some(()) }).await;
    let before = readers.read();
    let beside = longest(&app, &mut stream, 20).await;
    assert!(readers.read() > before, "they went on reading");
    drop(readers);
    worker.kill().await;
    // Loose, since the machine may be anybody's: the measurement has the figure.
    assert!(beside < 50 * alone + std::time::Duration::from_secs(10), "{beside:?} beside, {alone:?} alone");
}
