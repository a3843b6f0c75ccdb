use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::postgres::error::StreamError;
use crate::postgres::socket::Socket;

/// AuthenticationRequest.
fn ask(kind: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len() + 8).unwrap();
    [&b"R"[..], &length.to_be_bytes(), &kind.to_be_bytes(), data].concat()
}

/// Authenticates against a server that sends these, one after each message it gets.
async fn against(
    parameters: &str,
    binding: Option<Vec<u8>>,
    script: Vec<Vec<u8>>,
) -> Result<Vec<u8>, ConnectFailure> {
    let dsn = Dsn::parse(&format!("postgres://ada@/d?passfile=/nonexistent&{parameters}")).unwrap();
    let (ours, mut server) = UnixStream::pair().unwrap();
    let mut wire = Wire::new(Socket::Unix(ours));
    let scripted = tokio::spawn(async move {
        let mut received = Vec::with_capacity(4096);
        for message in script {
            server.write_all(&message).await.unwrap();
            server.read_buf(&mut received).await.unwrap();
        }
        received
    });
    let result = authenticate(&mut wire, &dsn, &dsn.hosts[0], binding).await;
    drop(wire);
    let received = scripted.await.unwrap();
    result.map(|_| received)
}

fn authentication(result: Result<Vec<u8>, ConnectFailure>) -> AuthenticationError {
    match result {
        Err(ConnectFailure::Authentication(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn md5_answers_with_the_salted_hash() {
    let script = vec![ask(request::MD5, b"salt"), ask(request::OK, b"")];
    let received = against("password=secret", None, script).await.unwrap();
    let expected = md5_hash(b"ada", b"secret", *b"salt");
    assert_eq!(received, [&b"p\0\0\0\x28"[..], expected.as_bytes(), b"\0"].concat());
}

#[tokio::test]
async fn required_binding_takes_no_lesser_method() {
    for (binding, script) in [
        (None, ask(request::OK, b"")),
        (None, ask(request::CLEARTEXT, b"")),
        (None, ask(request::MD5, b"salt")),
        (Some(vec![1]), ask(request::SASL, b"SCRAM-SHA-256\0\0")),
        (None, ask(request::SASL, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")),
    ] {
        let parameters = "password=secret&channel_binding=require";
        let error = authentication(against(parameters, binding, vec![script]).await);
        assert!(matches!(error, AuthenticationError::ChannelBinding(_)), "{error}");
    }
}

#[tokio::test]
async fn scram_tells_the_server_what_binding_it_could_have() {
    let both = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    let plain = b"SCRAM-SHA-256\0\0";
    for (parameters, binding, offer, mechanism, header) in [
        ("", true, &both[..], "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,"),
        ("", true, plain, "SCRAM-SHA-256", "y,,"),
        ("", false, plain, "SCRAM-SHA-256", "n,,"),
        ("channel_binding=disable", true, both, "SCRAM-SHA-256", "n,,"),
    ] {
        let (ours, mut server) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(Socket::Unix(ours));
        let dsn = Dsn::parse(&format!("postgres://ada:secret@/d?{parameters}")).unwrap();
        server.write_all(&ask(request::SASL, offer)).await.unwrap();
        let exchange = async {
            let mut received = Vec::with_capacity(4096);
            server.read_buf(&mut received).await.unwrap();
            drop(server);
            received
        };
        let binding = binding.then(|| vec![1, 2, 3]);
        let (result, received) =
            tokio::join!(authenticate(&mut wire, &dsn, &dsn.hosts[0], binding), exchange);
        assert!(matches!(result, Err(ConnectFailure::Stream(StreamError::Closed))), "{result:?}");
        let sent = String::from_utf8_lossy(&received[5..]);
        let (name, rest) = sent.split_once('\0').unwrap();
        assert_eq!(name, mechanism);
        // Four bytes of length between.
        assert!(rest[4..].starts_with(header), "{rest:?}");
    }
}

#[tokio::test]
async fn server_that_skips_its_proof_is_not_believed() {
    let script = vec![ask(request::SASL, b"SCRAM-SHA-256\0\0"), ask(request::OK, b"")];
    let result = against("password=secret", None, script).await;
    assert!(matches!(result, Err(ConnectFailure::Stream(StreamError::Protocol(_)))), "{result:?}");

    let stranger = b"r=another,s=c2FsdA==,i=4096";
    let script = vec![ask(request::SASL, b"SCRAM-SHA-256\0\0"), ask(request::SASL_CONTINUE, stranger)];
    let error = authentication(against("password=secret", None, script).await);
    assert!(matches!(error, AuthenticationError::Scram(_)), "{error}");
}

#[tokio::test]
async fn missing_passwords_and_unknown_methods_are_named() {
    let error = authentication(against("", None, vec![ask(request::CLEARTEXT, b"")]).await);
    assert_eq!(error, AuthenticationError::NoPassword);
    for (kind, data, name) in [
        (request::GSS, &b""[..], "GSSAPI"),
        (99, b"", "number 99"),
        (request::SASL, b"OAUTHBEARER\0\0", "SASL without SCRAM-SHA-256"),
    ] {
        let error = authentication(against("password=x", None, vec![ask(kind, data)]).await);
        assert_eq!(error, AuthenticationError::UnknownMethod(name.to_owned()));
    }
}
