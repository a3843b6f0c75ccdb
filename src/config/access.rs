//! The section `access`: by what callers prove who they are, and where it is written what they may see.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::Secret;
use super::units;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// The key of HS256 tokens; 32 bytes or more make it as strong as its hash.
    pub jwt_secret: Option<Secret>,
    /// PEM files with public keys: RSA (RS256), P-256 (ES256), Ed25519 (EdDSA).
    pub jwt_public_keys: Vec<PathBuf>,
    /// Where a key set is (RFC 7517): https, http on this machine, or a file's path.
    pub jwks_url: Option<String>,
    /// The algorithms that are accepted; empty: every one that there is a key for.
    pub algorithms: Vec<Algorithm>,
    /// What `iss` must be, when set.
    pub issuer: Option<String>,
    /// What `aud` must contain, when set.
    pub audience: Option<String>,
    /// How far the clocks of who signs and of this machine may be apart.
    #[serde(deserialize_with = "units::deserialize_duration")]
    pub leeway: Duration,
    /// The name of a cookie whose value is a token; none: no such cookie is read.
    pub cookie: Option<String>,
    /// Session cookies of Auth.js or NextAuth.js with their strategy "jwt".
    pub authjs: Option<AuthJs>,
    /// A file with a query that knows a session by its cookie's value, which is `$1`.
    pub session_query: Option<PathBuf>,
    /// The name of that cookie.
    pub session_cookie: Option<String>,
    /// How often the session of an open stream is asked about again; zero: never.
    #[serde(deserialize_with = "units::deserialize_duration")]
    pub session_recheck: Duration,
    /// Subjects whose tokens, with the scope to emit and naming no organization, emit for all of them; empty: those of
    /// every subject that is a member of none.
    pub emitters: Vec<String>,
    pub memberships: Option<Memberships>,
    pub organizations: Option<Organizations>,
    /// With the source away for longer, nobody new is let in.
    #[serde(deserialize_with = "units::deserialize_duration")]
    pub max_staleness: Duration,
}

/// How a token is signed (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Algorithm {
    HS256,
    RS256,
    ES256,
    EdDSA,
}

/// Session cookies that Auth.js encrypts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthJs {
    /// 4: next-auth 4; 5: next-auth 5 and @auth/core.
    pub version: u8,
    /// What the application has as `AUTH_SECRET` or `NEXTAUTH_SECRET`.
    pub secret: Option<Secret>,
    /// Secrets that cookies may still be encrypted with.
    pub old_secrets: Vec<Secret>,
    /// The cookie's name where the application gives it another than the default.
    pub cookie: Option<String>,
}

/// The table that says who is a member of what, and its columns.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memberships {
    pub table: String,
    pub organization: String,
    pub user: String,
    pub role: Option<String>,
}

/// The table that names organizations, and its columns, for the `connected` frame.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Organizations {
    pub table: String,
    pub id: String,
    pub name: String,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            jwt_secret: None,
            jwt_public_keys: Vec::new(),
            jwks_url: None,
            algorithms: Vec::new(),
            issuer: None,
            audience: None,
            leeway: Duration::ZERO,
            cookie: None,
            authjs: None,
            session_query: None,
            session_cookie: None,
            session_recheck: Duration::from_secs(60),
            emitters: Vec::new(),
            memberships: None,
            organizations: None,
            max_staleness: Duration::from_secs(60),
        }
    }
}

impl Access {
    /// Whether there is anything that a caller could be known by.
    #[must_use]
    pub fn admits_anybody(&self) -> bool {
        self.jwt_secret.is_some()
            || !self.jwt_public_keys.is_empty()
            || self.jwks_url.is_some()
            || self.authjs.is_some()
            || self.session_query.is_some()
    }
}
