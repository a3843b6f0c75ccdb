//! The keys that tokens are verified with. A key decides its algorithm; a token never does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, DecodingKey};

use crate::config::Secret;

/// Bytes below which an HS256 secret is weaker than its hash (RFC 7518 section 3.2). Who shares one with another
/// system can't always choose it, so a shorter one is used, and told.
const STRONG_SECRET: usize = 32;

/// Bytes of an uncompressed point on P-256: one of form, two coordinates of 32.
const P256_POINT: usize = 65;

/// A key and the only algorithm that it verifies.
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("no key to verify tokens with: set access.jwt_secret or access.jwt_public_keys")]
    None,
    #[error("access.jwt_secret is empty; `openssl rand -hex 32` prints a good one")]
    EmptySecret,
    #[error("access.jwt_public_keys: {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("access.jwt_public_keys: {0} holds a private key; only the public one belongs here")]
    Private(PathBuf),
    #[error(
        "access.jwt_public_keys: {0} is not a PEM public key of RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA)"
    )]
    Unknown(PathBuf),
}

impl Key {
    pub(super) fn from_secret(secret: &Secret) -> Result<Self, KeyError> {
        let bytes = secret.expose().as_bytes();
        if bytes.is_empty() {
            return Err(KeyError::EmptySecret);
        }
        if bytes.len() < STRONG_SECRET {
            tracing::warn!(
                bytes = bytes.len(),
                "access.jwt_secret is short: HS256 wants {STRONG_SECRET} bytes, such as `openssl rand -hex 32` prints"
            );
        }
        Ok(Self { algorithm: Algorithm::HS256, decoding: DecodingKey::from_secret(bytes) })
    }

    pub(super) fn from_pem_file(path: &Path) -> Result<Self, KeyError> {
        let pem = fs::read(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
        if memchr::memmem::find(&pem, b"PRIVATE KEY-----").is_some() {
            return Err(KeyError::Private(path.to_owned()));
        }
        Self::from_pem(&pem).ok_or_else(|| KeyError::Unknown(path.to_owned()))
    }

    fn from_pem(pem: &[u8]) -> Option<Self> {
        if let Ok(decoding) = DecodingKey::from_rsa_pem(pem) {
            return Some(Self { algorithm: Algorithm::RS256, decoding });
        }
        if let Ok(decoding) = DecodingKey::from_ec_pem(pem) {
            // Another curve would be accepted here and then fail at every token.
            let p256 = decoding.try_get_as_bytes().is_ok_and(|point| point.len() == P256_POINT);
            return p256.then_some(Self { algorithm: Algorithm::ES256, decoding });
        }
        let decoding = DecodingKey::from_ed_pem(pem).ok()?;
        Some(Self { algorithm: Algorithm::EdDSA, decoding })
    }
}
