//! TLS on a connection: SSLRequest, handshake, and the binding that ties SCRAM to the certificate.
//!
//! Exactly one byte is read before the handshake, so nothing that was sent in the clear is ever taken for encrypted.

mod binding;
mod certificate;
mod verify;

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dsn::{RootCert, Ssl, SslMode};
use super::error::{ConnectFailure, TlsError};
use verify::{AnyCertificate, Trusted};

/// The server's first answer.
pub(super) enum Offer {
    Tls(Box<TlsStream<TcpStream>>),
    /// The server went on without; nothing was read beyond its one byte.
    Plain(TcpStream),
}

/// Asks for TLS and, when the server agrees, shakes hands as `ssl` demands.
pub(super) async fn negotiate(mut stream: TcpStream, host: &str, ssl: &Ssl) -> Result<Offer, ConnectFailure> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    match stream.read_u8().await? {
        b'S' => {}
        b'N' => return Ok(Offer::Plain(stream)),
        // An error text; nobody has proved to be the server, so it is not shown.
        _ => return Err(TlsError::NotOffered.into()),
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name { host: host.to_owned() })?;
    let connector = TlsConnector::from(Arc::new(config(ssl)?));
    let stream = connector.connect(name, stream).await.map_err(TlsError::Handshake)?;
    Ok(Offer::Tls(Box::new(stream)))
}

/// The `tls-server-end-point` binding (RFC 5929) of an established session, where its certificate has one.
pub(super) fn server_end_point(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let (_, session) = stream.get_ref();
    binding::server_end_point(session.peer_certificates()?.first()?)
}

fn config(ssl: &Ssl) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = verifier(ssl, &provider)?;
    let unusable = |error: rustls::Error| TlsError::Configuration(error.to_string());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match &ssl.client {
        None => Ok(builder.with_no_client_auth()),
        Some(client) => {
            let chain = certificates(&client.certificate)?;
            let key = PrivateKeyDer::from_pem_file(&client.key)
                .map_err(|error| TlsError::File { path: client.key.clone(), problem: error.to_string() })?;
            builder.with_client_auth_cert(chain, key).map_err(unusable)
        }
    }
}

fn verifier(ssl: &Ssl, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let check_name = match (ssl.mode, &ssl.root_cert) {
        (SslMode::VerifyFull, _) => true,
        // libpq's rule: who names authorities wants them asked.
        (SslMode::VerifyCa, _) | (SslMode::Require, Some(_)) => false,
        (SslMode::Disable | SslMode::Prefer | SslMode::Require, _) => {
            return Ok(Arc::new(AnyCertificate::new(provider)));
        }
    };
    let roots = match &ssl.root_cert {
        Some(RootCert::File(path)) => certificates(path)?,
        Some(RootCert::System) => system_roots()?,
        None => match std::env::home_dir()
            .map(|home| home.join(".postgresql/root.crt"))
            .filter(|path| path.exists())
        {
            Some(path) => certificates(&path)?,
            None => system_roots()?,
        },
    };
    Ok(Arc::new(Trusted::new(roots, check_name, provider)?))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |problem: String| TlsError::File { path: path.to_owned(), problem };
    let read = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| failed(error.to_string()))?;
    if found.is_empty() { Err(failed("no certificate in it".to_owned())) } else { Ok(found) }
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let problem = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsError::NoSystemRoots { problem });
    }
    Ok(found.certs)
}

/// A store of what can be used; the system's set may hold some that can't.
fn store(roots: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(roots);
    if added == 0 {
        return Err(TlsError::Configuration("none of the trusted certificates can be used".to_owned()));
    }
    Ok(store)
}
