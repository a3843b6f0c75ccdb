//! A published key set over TLS: whose certificates are trusted, and what is told of those that are not.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::bench::app::TestApp;
use crate::bench::eventually;
use crate::bench::http::Request;
use crate::bench::process::{WorkerProcess, command};
use crate::claims::{SET, key, signed};

/// `openssl` in the folder, so that certificates are made by who does not read them.
fn openssl(folder: &Path, arguments: &str) {
    let arguments = arguments.split_ascii_whitespace();
    let made = std::process::Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .stderr(Stdio::null())
        .status();
    assert!(made.is_ok_and(|status| status.success()), "openssl makes a certificate");
}

/// An authority of its own (`ca.pem`), and a certificate by it for the name localhost (`cert.pem`, `key.pem`).
fn authority(folder: &Path) {
    const NEW: &str = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    openssl(folder, &format!("{NEW} -keyout ca.key -out ca.pem -subj /CN=authority"));
    openssl(
        folder,
        &format!(
            "{NEW} -keyout key.pem -out cert.pem -subj /CN=localhost -CA ca.pem -CAkey ca.key \
             -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
        ),
    );
}

/// Publishes the key set over TLS; its port.
async fn publish(folder: &Path) -> u16 {
    let chain = CertificateDer::pem_file_iter(folder.join("cert.pem")).expect("a file");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).expect("a key");
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("TLS").with_no_client_auth().with_single_cert(chain, key).expect("a server");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // Who does not trust it hangs up.
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && socket.read_buf(&mut head).await.is_ok_and(|read| read > 0)
            {
            }
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{SET}", SET.len());
            let _ = socket.write_all(answer.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
    });
    port
}

#[tokio::test]
async fn a_key_set_counts_from_who_has_a_trusted_certificate_of_its_name() {
    let mut app = TestApp::start().await;
    app.member("o1", "u1", "admin").await;
    app.stop().await;
    let folder = tempfile::tempdir().expect("a folder");
    authority(folder.path());
    let port = publish(folder.path()).await;
    let exp = jsonwebtoken::get_current_timestamp() + 600;
    let private = EncodingKey::from_ec_pem(&key("p256.private.pem")).expect("a key");
    let token = signed(Algorithm::ES256, "p256", &private, &json!({ "sub": "u1", "exp": exp }));
    let authority = folder.path().join("ca.pem");
    let authority = authority.to_str().expect("a path");
    let by_name = format!("https://localhost:{port}/jwks");
    let by_address = format!("https://127.0.0.1:{port}/jwks");
    for (url, trusted, told) in [
        (&by_name, Some(authority), None),
        (&by_name, None, Some("UnknownIssuer")),
        (&by_address, Some(authority), Some("not valid for name")),
    ] {
        let mut environment = vec![("WALCAST_ACCESS_JWKS_URL", url.as_str())];
        environment.extend(trusted.map(|path| ("SSL_CERT_FILE", path)));
        let worker = WorkerProcess::start(&app.url, &environment).await;
        let ask = async || {
            let request = Request::get("/api/realtime/stats").bearer(&token);
            request.fetch(worker.address).await
        };
        let Some(told) = told else {
            assert_eq!(ask().await.head.status, 200, "{}", worker.log());
            worker.kill().await;
            continue;
        };
        // Neither good nor bad: nothing can be known of it.
        assert_eq!(ask().await.error(), (503, "credentials".to_owned()));
        let reason = eventually("readiness tells why", || async {
            let told = Request::get("/readyz/reasons").fetch(worker.address).await.body;
            told.contains("access.jwks_url").then_some(told)
        })
        .await;
        assert!(reason.contains("can't be fetched") && reason.contains(told), "{reason}");
        assert!(
            !reason.contains(&port.to_string()),
            "the address may hold what is nobody's business: {reason}"
        );
        worker.kill().await;
    }
}

#[tokio::test]
async fn a_key_set_without_tls_from_another_machine_is_refused_at_the_start() {
    let mut worker = command("postgres://nobody@127.0.0.1:1/none");
    worker.env("WALCAST_ACCESS_JWKS_URL", "http://id.example.com/jwks").args(["run", "--reference"]);
    let ended = worker.output().await.expect("the binary");
    assert!(!ended.status.success());
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(told.contains("access.jwks_url must be an https URL"), "{told}");
}
