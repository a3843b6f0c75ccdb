//! The keys that tokens are verified with. A key decides its algorithm; a token never does.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaParameters,
    VerificationAlgorithm,
};
use jsonwebtoken::DecodingKey;

use crate::config::{Algorithm, Secret};

/// Bytes below which an HS256 secret is weaker than its hash (RFC 7518 section 3.2). Who shares one with another
/// system can't always choose it, so a shorter one is used, and told.
const STRONG_SECRET: usize = 32;

/// A key and the only algorithm that it verifies.
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    /// What a token's header may choose it by.
    pub(super) id: Option<Box<str>>,
    material: Material,
}

enum Material {
    Secret(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "nothing to know anybody by: set access.jwt_secret, access.jwt_public_keys, access.jwks_url, access.authjs or \
         access.session_query"
    )]
    None,
    #[error("access.jwt_secret is empty; `openssl rand -hex 32` prints a good one")]
    EmptySecret,
    #[error("access.jwt_public_keys: {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("access.jwt_public_keys: {0} holds a private key; only the public one belongs here")]
    Private(PathBuf),
    #[error(
        "access.jwt_public_keys: {0} is not a PEM public key of RSA from 2048 bits (RS256), P-256 (ES256) or Ed25519 \
         (EdDSA)"
    )]
    Unknown(PathBuf),
    #[error("access.algorithms leaves no algorithm that there is a key for")]
    NoneAllowed,
    #[error("access.jwks_url: {0}")]
    Place(String),
    #[error("access.session_query: {path}: {source}")]
    Query { path: PathBuf, source: io::Error },
    #[error("the system gives no randomness to sign tickets with")]
    Random,
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
        let material = Material::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, bytes)));
        Ok(Self { algorithm: Algorithm::HS256, id: None, material })
    }

    pub(super) fn from_pem_file(path: &Path) -> Result<Self, KeyError> {
        let pem = fs::read(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
        if memchr::memmem::find(&pem, b"PRIVATE KEY-----").is_some() {
            return Err(KeyError::Private(path.to_owned()));
        }
        Self::from_pem(&pem).ok_or_else(|| KeyError::Unknown(path.to_owned()))
    }

    fn from_pem(pem: &[u8]) -> Option<Self> {
        let (algorithm, key) = None
            .or_else(|| Some((Algorithm::RS256, DecodingKey::from_rsa_pem(pem).ok()?)))
            .or_else(|| Some((Algorithm::ES256, DecodingKey::from_ec_pem(pem).ok()?)))
            .or_else(|| Some((Algorithm::EdDSA, DecodingKey::from_ed_pem(pem).ok()?)))?;
        Self::public(algorithm, None, key.try_get_as_bytes().ok()?)
    }

    /// A public key in the encoding of its kind: `RSAPublicKey` (RFC 8017 appendix A.1.1), an uncompressed point, or an
    /// Ed25519 key's 32 bytes. None when it is not one, or weaker or of another curve than the algorithm allows.
    pub(super) fn public(algorithm: Algorithm, id: Option<Box<str>>, bytes: &[u8]) -> Option<Self> {
        let by: &'static dyn VerificationAlgorithm = match algorithm {
            Algorithm::HS256 => return None,
            Algorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
            Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::EdDSA => &ED25519,
        };
        // A key that is too small is told here, not at every token.
        let sizes =
            RSA_PKCS1_2048_8192_SHA256.min_modulus_len()..=RSA_PKCS1_2048_8192_SHA256.max_modulus_len();
        if algorithm == Algorithm::RS256 && !sizes.contains(&RsaParameters::public_modulus_len(bytes).ok()?) {
            return None;
        }
        let key = ParsedPublicKey::new(by, bytes).ok()?;
        Some(Self { algorithm, id, material: Material::Public(key) })
    }

    /// In constant time, as far as there is a secret.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Material::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
