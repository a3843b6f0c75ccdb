//! Requests that two readers would read in two ways, or that pretend to come from elsewhere.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{exchange, native, statuses};
use crate::bench::app::{TestApp, token_with};
use crate::bench::http::Request;
use crate::bench::programs;
use crate::bench::sse::Stream;
use crate::bench::{PATIENCE, eventually};

#[tokio::test]
async fn a_request_whose_length_is_ambiguous_carries_no_other() {
    let app = TestApp::start().await;
    let smuggled = "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Smuggled: 1\r\nConnection: close\r\n\r\n";
    let length = smuggled.len();
    for headers in [
        format!("Content-Length: {length}\r\nContent-Length: 0\r\n"),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: 0, {length}\r\n"),
        "Content-Length: +0\r\n".to_owned(),
        "Content-Length: -1\r\n".to_owned(),
        "Content-Length: 0x0\r\n".to_owned(),
        "Content-Length: 18446744073709551616\r\n".to_owned(),
        "Transfer-Encoding: identity\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n".to_owned(),
        "Transfer-Encoding:\u{b}chunked\r\n".to_owned(),
        " Transfer-Encoding: chunked\r\n".to_owned(),
        "X: y\r\n\tTransfer-Encoding: chunked\r\n".to_owned(),
        "X: y\0\r\n".to_owned(),
        "X: y\rTransfer-Encoding: chunked\r\n".to_owned(),
        "X\0: y\r\n".to_owned(),
        "X y: z\r\n".to_owned(),
        ": y\r\n".to_owned(),
    ] {
        let request = format!("GET /readyz HTTP/1.1\r\nHost: x\r\n{headers}\r\n{smuggled}");
        let answer = exchange(app.address, request.as_bytes()).await;
        assert_eq!(statuses(&answer), [400], "{headers:?}: {answer}");
    }
    // Both lengths: the chunks count, as RFC 9112 section 6.3 says, and what follows them is not the body.
    for coding in ["chunked", "Chunked"] {
        let request = format!(
            "GET /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n",
            length + 5
        );
        let answer = exchange(app.address, request.as_bytes()).await;
        assert!(statuses(&answer).len() <= 1, "{coding}: {answer}");
    }
    // A body of a known length is no request.
    let request = format!("GET /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{smuggled}");
    let answer = exchange(app.address, request.as_bytes()).await;
    assert_eq!(statuses(&answer), [200], "{answer}");
}

#[tokio::test]
async fn what_follows_a_streams_request_is_never_answered() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let target = TestApp::target(&member, "");
    let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n", member.token);
    let next = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    for request in [
        format!("{head}\r\n{next}{next}"),
        format!("{head}Content-Length: {}\r\n\r\n{next}", next.len()),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}"),
        format!("{head}Connection: keep-alive\r\n\r\n{next}"),
        format!("{head}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n{next}"),
        format!("{head}Expect: 100-continue\r\n\r\n{next}"),
    ] {
        let mut socket = TcpStream::connect(app.address).await.expect("the worker listens");
        socket.write_all(request.as_bytes()).await.expect("the request is taken");
        let mut answer = Vec::new();
        let until_connected = async {
            while !String::from_utf8_lossy(&answer).contains("\"connected\"") {
                assert!(socket.read_buf(&mut answer).await.expect("an answer") > 0, "{request}");
            }
        };
        timeout(PATIENCE, until_connected).await.expect("a stream");
        socket.write_all(next.as_bytes()).await.expect("it is taken");
        app.sql("select walcast.emit('o1', 'marker', '1')").await;
        let until_marker = async {
            while !String::from_utf8_lossy(&answer).contains("\"marker\"") {
                assert!(socket.read_buf(&mut answer).await.expect("an event") > 0, "{request}");
            }
        };
        timeout(PATIENCE, until_marker).await.expect("an event");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let answers: Vec<_> = statuses(&answer).into_iter().filter(|status| *status != 100).collect();
        assert_eq!(answers, [200], "{request}: {answer}");
        let head = answer.split("\r\n\r\n").find(|head| head.contains("event-stream")).expect("a head");
        assert!(head.to_ascii_lowercase().contains("connection: close"), "{head}");
    }
}

#[tokio::test]
async fn no_other_method_reads_and_none_is_overridden() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let stream = TestApp::target(&member, "");
    for method in ["TRACE", "CONNECT", "PROPFIND", "PATCH", "GETS", "get", "QUERY"] {
        for target in [stream.as_str(), "/api/sse/dashboard", "/metrics", "/readyz", "/"] {
            let request = format!(
                "{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nX-Mark: seen\r\nConnection: close\r\n\r\n",
                member.token
            );
            let answer = exchange(app.address, request.as_bytes()).await;
            let status = statuses(&answer);
            assert!(matches!(status[..], [400 | 404 | 405]), "{method} {target}: {answer}");
            assert!(
                !answer.contains("seen") && !answer.contains(&member.token),
                "{method} {target}: {answer}"
            );
        }
    }
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        let request = Request::new("PATCH", "/readyz").header(name, "GET");
        assert_eq!(request.fetch(app.address).await.head.status, 405, "{name}");
        let request = Request::get("/readyz").header(name, "DELETE");
        assert_eq!(request.fetch(app.address).await.head.status, 200, "{name}");
    }
}

#[tokio::test]
async fn a_path_has_one_spelling() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    for path in [
        "/metrics/",
        "//metrics",
        "/%6detrics",
        "/metrics%00",
        "/metrics;x",
        "/METRICS",
        "/./metrics",
        "/api/../metrics",
        "/api/%2e%2e/metrics",
        "/api/realtime/stream/..%2f..%2f..%2fmetrics",
        "/readyz/reasons/",
        "/readyz/../metrics",
        "/api/realtime/Stream?organizationId=o1",
        "//api/realtime/stream?organizationId=o1",
        "/.git/config",
        "/walcast.toml",
    ] {
        let answer = Request::get(path).bearer(&member.token).fetch(app.address).await;
        assert!(matches!(answer.error().0, 404 | 405), "{path}: {}", answer.head.status);
    }
}

#[tokio::test]
async fn the_host_of_a_request_changes_nothing_but_what_counts_as_local() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let get = async |target: &str, host: &str, more: &str| {
        let request = format!("GET {target} HTTP/1.1\r\n{host}{more}Connection: close\r\n\r\n");
        exchange(app.address, request.as_bytes()).await
    };
    for target in ["/", "/readyz", "/api/sse/dashboard", "/nowhere"] {
        for host in [
            "Host: evil.example\r\n",
            "Host: evil.example:1@127.0.0.1\r\n",
            "Host: x\r\nX-Forwarded-Host: evil.example\r\nX-Host: evil.example\r\n",
        ] {
            let answer = get(target, host, "").await;
            assert!(!answer.contains("evil.example"), "{target} {host}: {answer}");
            assert_eq!(statuses(&answer).len(), 1, "{target} {host}: {answer}");
        }
        let absolute = get(&format!("http://evil.example{target}"), "Host: x\r\n", "").await;
        assert!(!absolute.contains("evil.example"), "{target}: {absolute}");
    }
    // A page of evil.example whose name has come to mean this machine reads nothing from the inside of it.
    for path in ["/metrics", "/readyz/reasons"] {
        for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"]
        {
            let answer = get(path, &format!("Host: {host}\r\n"), "").await;
            assert_eq!(statuses(&answer), [401], "{path} {host}: {answer}");
        }
        for host in ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:8080", "[::1]:8080"] {
            let answer = get(path, &format!("Host: {host}\r\n"), "").await;
            assert_eq!(statuses(&answer), [200], "{path} {host}");
        }
    }
    // Nor does a name make a cookie's origin its own: the cookie is another host's.
    let cookie = format!("Cookie: session={}\r\n", member.token);
    let answer = get("/api/sse/dashboard", "Host: x\r\n", &format!("{cookie}Origin: http://y\r\n")).await;
    assert_eq!(statuses(&answer), [401], "no cookie is configured: {answer}");
}

#[tokio::test]
async fn what_untrusted_peers_say_of_their_address_is_not_believed() {
    let app = TestApp::builder().config(|config| config.limits.streams_per_address = 2).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let open = async |n: usize| {
        let mut request = native("organizationId=o1").bearer(&member.token);
        for name in ["X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP", "CF-Connecting-IP", "Via"]
        {
            request = request.header(name, &format!("10.0.0.{n}"));
        }
        Stream::open(app.address, request).await
    };
    // The stream by which the membership was awaited may still be going.
    let places = eventually("both places", || async {
        let places = [open(1).await, open(2).await];
        places.iter().all(|stream| stream.head.status == 200).then_some(places)
    })
    .await;
    for n in 3..6 {
        assert_eq!(open(n).await.head.status, 429);
    }
    drop(places);
}

/// An address of this machine that is not loopback's; nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

#[tokio::test]
async fn metrics_and_reasons_are_closed_to_other_machines_whatever_they_say() {
    let Some(own) = own_address() else {
        return programs::skipped("metrics from another address", "this machine has only loopback");
    };
    let app =
        TestApp::builder().config(|config| config.http.listen = SocketAddr::from((own, 0))).start().await;
    assert_eq!(app.address.ip(), own);
    let reader = token_with("operator", serde_json::json!({ "scope": "walcast:stats" }));
    for path in ["/metrics", "/readyz/reasons"] {
        for host in ["localhost", "127.0.0.1"] {
            let plain = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            assert_eq!(statuses(&exchange(app.address, plain.as_bytes()).await), [401], "{path}");
        }
        for name in ["X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP", "X-Originating-IP"] {
            let answer = Request::get(path).header(name, "127.0.0.1").fetch(app.address).await;
            assert_eq!(answer.error().0, 401, "{path} {name}");
        }
        assert_eq!(Request::get(path).bearer(&reader).fetch(app.address).await.head.status, 200, "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        let answer = app.get(path).await;
        assert!(!answer.body.contains("postgres") && answer.body.len() < 20, "one word: {}", answer.body);
    }
}
