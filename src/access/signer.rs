//! Signing tokens for development: `walcast token` and `walcast demo`.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use super::keys::{Key, KeyError};
use crate::config::Secret;

/// The claims of a token to be signed.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewToken {
    pub sub: String,
    /// Seconds since 1970.
    pub exp: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<String>,
    /// Id to role; it counts only where no memberships table is configured.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub organizations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("signing the token: {0}")]
    Encode(#[from] jsonwebtoken::errors::Error),
}

impl NewToken {
    /// The token's text, by HS256.
    ///
    /// # Errors
    /// When there is no secret.
    pub fn sign(&self, secret: &Secret) -> Result<String, SignError> {
        Key::from_secret(secret)?;
        let key = EncodingKey::from_secret(secret.expose().as_bytes());
        Ok(encode(&Header::new(Algorithm::HS256), self, &key)?)
    }
}
