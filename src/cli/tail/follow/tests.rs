use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Answers one connection after the other with the given texts, and keeps the heads of the requests.
async fn scripted(answers: Vec<&'static str>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heads);
    tokio::spawn(async move {
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            kept.lock().unwrap().push(String::from_utf8(head).unwrap());
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (base, heads)
}

fn follow(base: String) -> Follow {
    Follow {
        base,
        credential: Credential::Given("t".to_owned().into()),
        parameters: vec![("organizationId".to_owned(), "a b".to_owned())],
        since: Some("5m".to_owned()),
        style: Style::Json,
        quiet: true,
    }
}

async fn run(answers: Vec<&'static str>) -> (anyhow::Result<()>, String, Vec<String>) {
    let (base, heads) = scripted(answers).await;
    let mut out = Vec::new();
    let done = tokio::time::timeout(Duration::from_secs(20), follow(base).run(&mut out)).await.unwrap();
    let heads = heads.lock().unwrap().clone();
    (done, String::from_utf8(out).unwrap(), heads)
}

const OPEN: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n\
                    retry: 10\nid: e.1.0\ndata: {\"type\":\"connected\"}\n\nid: e.2.1\ndata: {\"type\":\"x\"}\n\n";
const NOT_YET: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nretry: 10\n\n";
const FULL: &str =
    "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const OVER: &str = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
const FORBIDDEN: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 46\r\nConnection: close\r\n\r\n\
                         {\"error\":\"forbidden\",\"message\":\"not a member\"}";
const WRONG: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops";

#[tokio::test]
async fn a_stream_that_ends_is_taken_up_where_it_stood() {
    let (done, out, heads) = run(vec![OPEN, NOT_YET, FULL, OVER]).await;
    done.unwrap();
    assert_eq!(out, "{\"type\":\"connected\"}\n{\"type\":\"x\"}\n");
    assert_eq!(heads.len(), 4);
    assert!(
        heads[0].starts_with("GET /api/realtime/stream?organizationId=a+b&since=5m HTTP/1.1\r\n"),
        "{}",
        heads[0]
    );
    assert!(heads[0].contains("authorization: Bearer t\r\n"), "{}", heads[0]);
    assert!(!heads[0].to_lowercase().contains("last-event-id"));
    for head in &heads[1..] {
        assert!(head.starts_with("GET /api/realtime/stream?organizationId=a+b HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("last-event-id: e.2.1\r\n"), "{head}");
    }
}

#[tokio::test]
async fn a_refusal_ends_with_what_the_server_said() {
    let (done, ..) = run(vec![FORBIDDEN]).await;
    let error = done.unwrap_err();
    assert!(error.is::<Refused>());
    assert_eq!(error.to_string(), "403: not a member");
    let (done, ..) = run(vec![WRONG]).await;
    let error = done.unwrap_err();
    assert!(error.is::<Usage>());
    assert_eq!(error.to_string(), "400: oops");
}

#[test]
fn who_is_followed_is_told_once_connected() {
    let frame = r#"{"type":"connected","organizationId":"acme","organization":{"id":"acme","name":"Acme\u001b","role":"admin"},"resumed":true}"#;
    assert_eq!(greeting(frame).unwrap(), "resumed Acme (acme) as admin; times are UTC");
    assert_eq!(greeting(r#"{"type":"x"}"#), None);
}
