//! `walcast token`: signs a token for development, as an application's own backend would.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use super::settings::{Settings, jwt_secret};
use crate::config::{Access, Secret, parse_duration};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The user: the claim sub
    #[arg(long, visible_alias = "user", value_name = "USER")]
    sub: String,
    /// The organization taken when a request names none
    #[arg(long, value_name = "ID")]
    organization: Option<String>,
    /// The user's role there, where no memberships table says it
    #[arg(long, requires = "organization")]
    role: Option<String>,
    /// A scope, such as walcast:stats; may be given again
    #[arg(long)]
    scope: Vec<String>,
    /// For how long
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration)]
    expires: Duration,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "must be a duration such as 30s, 10m or 8h".to_owned())
}

/// What a token says; names as on the wire.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Claims {
    pub sub: String,
    /// Seconds since 1970.
    pub exp: u64,
    pub iat: u64,
    /// Separated by spaces (RFC 8693, 4.2).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    #[serde(rename = "organizationId", skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// Id to role.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub organizations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
}

impl Claims {
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
}

/// A JWT of these claims, HS256.
///
/// # Errors
/// None that claims of this type can cause.
pub fn sign(claims: &Claims, secret: &Secret) -> anyhow::Result<String> {
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key)?)
}

pub(super) fn execute(settings: &Settings, args: Args) -> anyhow::Result<()> {
    let config = settings.load(false)?;
    let mut claims = Claims::new(&args.sub, args.expires, &config.access);
    claims.scope = args.scope.join(" ");
    if let (Some(organization), Some(role)) = (&args.organization, args.role) {
        claims.organizations.insert(organization.clone(), role);
    }
    claims.organization = args.organization;
    writeln!(std::io::stdout(), "{}", sign(&claims, jwt_secret(&config)?)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    #[test]
    fn a_token_is_read_back_with_its_key_and_with_no_other() {
        let access = Access { audience: Some("app".to_owned()), ..Access::default() };
        let mut claims = Claims::new("ada", Duration::from_secs(60), &access);
        claims.organization = Some("acme".to_owned());
        let token = sign(&claims, &Secret::new("k".repeat(32))).unwrap();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&["app"]);
        let read = |key: &str| {
            jsonwebtoken::decode::<serde_json::Value>(
                &token,
                &DecodingKey::from_secret(key.as_bytes()),
                &validation,
            )
        };
        let read_back = read(&"k".repeat(32)).unwrap().claims;
        assert_eq!(read_back["sub"], "ada");
        assert_eq!(read_back["organizationId"], "acme");
        assert_eq!(read_back["exp"].as_u64().unwrap() - read_back["iat"].as_u64().unwrap(), 60);
        assert!(read_back.get("organizations").is_none());
        assert!(read("other").is_err());
    }
}
