//! Tokens: from text to [`Principal`].
//!
//! Only algorithms for which a key is configured are accepted, and each key verifies its own algorithm only, so a
//! public key can't be taken for an HMAC secret. `exp` is required and has no leeway; `nbf` is honoured; `iss` and
//! `aud` must be there and match where they are configured.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};

use super::keys::{Key, KeyError};
use super::principal::{Claims, Principal};
use crate::config;

/// Verifies tokens with static keys.
pub struct Authenticator {
    keys: Vec<(Key, Validation)>,
}

/// Why a token is not accepted. For the log and for a stable code; a caller learns no more than expired or not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token's signature does not fit any key")]
    Signature,
    #[error("no key is configured for the token's algorithm")]
    Algorithm,
    #[error("the token has the wrong issuer")]
    Issuer,
    #[error("the token has the wrong audience")]
    Audience,
    #[error("the token lacks the claim {0}")]
    MissingClaim(String),
    #[error("not a token, or a claim of the wrong form")]
    Malformed,
}

impl From<Error> for TokenError {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYetValid,
            ErrorKind::InvalidSignature | ErrorKind::InvalidRsaKey(_) | ErrorKind::Provider(_) => {
                Self::Signature
            }
            ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Self::Algorithm,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::MissingRequiredClaim(claim) => Self::MissingClaim(claim.clone()),
            _ => Self::Malformed,
        }
    }
}

impl Authenticator {
    /// Reads the keys.
    ///
    /// # Errors
    /// When there is no key, or one can't be read or used.
    pub fn new(access: &config::Access) -> Result<Self, KeyError> {
        let secret = access.jwt_secret.iter().map(Key::from_secret);
        let public = access.jwt_public_keys.iter().map(|path| Key::from_pem_file(path));
        let paired = secret.chain(public).map(|key| {
            let key = key?;
            let validation = validation(access, key.algorithm);
            Ok((key, validation))
        });
        let keys = paired.collect::<Result<Vec<_>, KeyError>>()?;
        if keys.is_empty() { Err(KeyError::None) } else { Ok(Self { keys }) }
    }

    /// Of whom the token speaks, now.
    ///
    /// # Errors
    /// When the token is not one that a configured key signed and that is good now.
    #[allow(clippy::unused_async, reason = "not every key need be at hand")]
    pub async fn authenticate(&self, token: &str) -> Result<Principal, TokenError> {
        self.judge(token, SystemTime::now())
    }

    pub(super) fn judge(&self, token: &str, now: SystemTime) -> Result<Principal, TokenError> {
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        // What must be understood is not (RFC 7515 section 4.1.11).
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let mut outcome = Err(TokenError::Algorithm);
        for (key, validation) in self.keys.iter().filter(|(key, _)| key.algorithm == header.alg) {
            outcome = decode::<Claims>(token, &key.decoding, validation).map_err(TokenError::from);
            // Several keys of one algorithm are a rotation: only a signature that does not fit asks the next.
            if !matches!(outcome, Err(TokenError::Signature)) {
                break;
            }
        }
        let claims = outcome?.claims;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if claims.expires_at() <= now {
            return Err(TokenError::Expired);
        }
        claims.into_principal().ok_or(TokenError::Malformed)
    }
}

fn validation(access: &config::Access, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = 0;
    validation.validate_nbf = true;
    let mut required = vec!["exp", "sub"];
    if let Some(issuer) = &access.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    // Where no audience is configured a token that names one is accepted.
    validation.validate_aud = access.audience.is_some();
    if let Some(audience) = &access.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

#[cfg(test)]
mod tests;
