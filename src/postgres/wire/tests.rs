use tokio::net::UnixStream;

use super::*;

fn pair() -> (Wire, UnixStream) {
    let (ours, server) = UnixStream::pair().unwrap();
    (Wire::new(Socket::Unix(ours)), server)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

#[tokio::test]
async fn messages_come_whole_however_they_are_cut() {
    let (mut wire, mut server) = pair();
    let bytes = [message(b'S', b"a\0b\0"), message(b'Z', b"I")].concat();
    let writer = tokio::spawn(async move {
        for byte in bytes {
            server.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let first = wire.frame().await.unwrap();
    assert_eq!((first.tag, first.body()), (b'S', &b"a\0b\0"[..]));
    let second = wire.frame().await.unwrap();
    assert_eq!((second.tag, &second.into_body()[..]), (b'Z', &b"I"[..]));
    writer.await.unwrap();
    assert!(matches!(wire.frame().await, Err(StreamError::Closed)));
}

#[tokio::test]
async fn impossible_lengths_are_errors_before_anything_is_reserved() {
    for (authenticated, tag, length) in [
        (false, b'R', 3),
        (false, b'R', u32::MAX),
        (false, b'd', MAX_SHORT_LENGTH + 1),
        (true, b'Z', MAX_SHORT_LENGTH + 1),
        (true, b'd', MAX_LENGTH + 1),
        (true, b'd', 0),
    ] {
        let (mut wire, mut server) = pair();
        if authenticated {
            wire.set_authenticated();
        }
        server.write_all(&[&[tag][..], &length.to_be_bytes()].concat()).await.unwrap();
        match wire.frame().await {
            Err(StreamError::Protocol(error)) => assert_eq!(error, ProtocolError::Length { tag, length }),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn claimed_gigabyte_reserves_little_until_it_comes() {
    let (mut wire, mut server) = pair();
    wire.set_authenticated();
    server.write_all(&[&b"d"[..], &MAX_LENGTH.to_be_bytes(), &[0; 1000]].concat()).await.unwrap();
    drop(server);
    assert!(matches!(wire.frame().await, Err(StreamError::Closed)));
    assert!(wire.input.capacity() <= 4 * READ_BUFFER, "{}", wire.input.capacity());
}

#[tokio::test]
async fn what_waits_is_sent_before_an_answer_is_awaited() {
    let (mut wire, mut server) = pair();
    wire.output().extend_from_slice(b"ping");
    let answer = tokio::spawn(async move {
        let mut asked = [0; 4];
        server.read_exact(&mut asked).await.unwrap();
        server.write_all(&message(b'Z', &asked)).await.unwrap();
    });
    assert_eq!(wire.frame().await.unwrap().body(), b"ping");
    answer.await.unwrap();
}

#[test]
fn server_errors_keep_what_matters() {
    let body = b"SFEHLER\0VERROR\0C42704\0Mgone\0Dd\0Hh\0Rroutine\0\0";
    let error = ServerError::parse(body).unwrap();
    assert_eq!(error.to_string(), "ERROR: gone (SQLSTATE 42704); detail: d; hint: h");
    assert_eq!(error.sqlstate, tokio_postgres::error::SqlState::UNDEFINED_OBJECT);
    for end in 0..body.len() - b"Dd\0Hh\0Rroutine\0\0".len() {
        assert_eq!(ServerError::parse(&body[..end]), None, "{end} bytes");
    }
}
