//! A signed token's parts, before anything of it is believed (RFC 7515, compact serialization).
//!
//! The header only chooses among the keys that are configured: which algorithm a key verifies is the key's own. What
//! the header demands to be understood is not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::authenticator::TokenError;
use crate::config::Algorithm;

/// Bytes of a token. A request's head carries no longer one, and a body need not either.
pub(super) const MAX_TOKEN: usize = 16 << 10;

/// A token whose signature nobody has looked at yet.
pub(super) struct Jws<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    /// What is signed.
    pub(super) message: &'a [u8],
    pub(super) signature: Vec<u8>,
    payload: &'a str,
}

/// What is read of a header; a name that stands in it twice is an error.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515 section 4.1.11): none is.
    crit: Option<IgnoredAny>,
}

impl<'a> Jws<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        if payload.contains('.') {
            return Err(TokenError::Malformed);
        }
        let header: Header = object(&decode(header)?)?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        Ok(Self {
            algorithm: algorithm(&header.alg).ok_or(TokenError::Algorithm)?,
            key_id: header.kid,
            message: message.as_bytes(),
            signature: decode(signature)?,
            payload,
        })
    }

    /// The claims' bytes: for who has verified the signature.
    pub(super) fn payload(&self) -> Result<Vec<u8>, TokenError> {
        decode(self.payload)
    }
}

/// By its registered name, letter by letter; `none` is not among them.
fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "HS256" => Algorithm::HS256,
        "RS256" => Algorithm::RS256,
        "ES256" => Algorithm::ES256,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

/// Unpadded and canonical: a token has one spelling.
pub(super) fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)
}

/// A JSON object; an array would be taken for the members in their order.
pub(super) fn object<T: DeserializeOwned>(json: &[u8]) -> Result<T, TokenError> {
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(TokenError::Malformed);
    }
    serde_json::from_slice(json).map_err(|_| TokenError::Malformed)
}
