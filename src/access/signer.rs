//! Signing tokens for development: `walcast token` and `walcast demo`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use super::keys::{Key, KeyError};
use crate::config::{Access, Secret};

/// The claims of a token to be signed.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewToken {
    pub sub: String,
    /// Seconds since 1970.
    pub exp: u64,
    pub iat: u64,
    /// Separated by spaces (RFC 8693, 4.2).
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
    /// Of this user, from now for as long; `iss` and `aud` as the configuration asks for them.
    #[must_use]
    pub fn new(user: &str, lasts: Duration, access: &Access) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            sub: user.to_owned(),
            exp: now.saturating_add(lasts).as_secs(),
            iat: now.as_secs(),
            iss: access.issuer.clone(),
            aud: access.audience.clone(),
            ..Self::default()
        }
    }

    /// Makes the organization the default one, and where a role is given, names it there.
    #[must_use]
    pub fn within(mut self, organization: Option<&str>, role: Option<&str>) -> Self {
        if let (Some(organization), Some(role)) = (organization, role) {
            self.organizations.insert(organization.to_owned(), role.to_owned());
        }
        self.organization_id = organization.map(str::to_owned);
        self
    }

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

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    #[test]
    fn a_token_is_read_back_with_its_key_and_with_no_other() {
        let access = Access { audience: Some("app".to_owned()), ..Access::default() };
        let token = NewToken::new("ada", Duration::from_secs(60), &access).within(Some("acme"), None);
        let token = token.sign(&Secret::new("k".repeat(32))).unwrap();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&["app"]);
        let read = |key: &str| {
            let key = DecodingKey::from_secret(key.as_bytes());
            jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation)
        };
        let read_back = read(&"k".repeat(32)).unwrap().claims;
        assert_eq!(read_back["sub"], "ada");
        assert_eq!(read_back["organizationId"], "acme");
        assert_eq!(read_back["exp"].as_u64().unwrap() - read_back["iat"].as_u64().unwrap(), 60);
        assert!(read_back.get("organizations").is_none());
        assert!(read("other").is_err());
    }
}
