//! From a credential to a [`Principal`].
//!
//! ```text
//! Bearer, ?token=, cookie ─► Jws ─► a key of its algorithm (ours, or a key set's) ─► Claims ─┐
//! Auth.js' cookie ─► AuthJs ────────────────────────────────────────────────────► Claims ─┼─► Principal
//! a session's cookie ─► Sessions ─────────────────────────────────────────────────────────┤
//! ?ticket= ─► Tickets ────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Only algorithms for which a key is configured are accepted, and each key verifies its own algorithm only, so a
//! public key can't be taken for an HMAC secret. What can't be judged now is an error of its own kind: neither good nor
//! bad.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;

use super::authjs::AuthJs;
use super::claims::{Claims, Rules};
use super::credential::{CookieNames, Credential, CredentialError};
use super::jwks::Jwks;
use super::jws::Jws;
use super::keys::{Key, KeyError};
use super::principal::Principal;
use super::sessions::{Review, Session, Sessions};
use super::tickets::{Claim, Tickets};
use crate::config::{self, Algorithm};
use crate::postgres::dsn::Dsn;
use crate::telemetry::Readiness;

/// Judges credentials.
pub struct Authenticator {
    keys: Vec<Key>,
    jwks: Option<Arc<Jwks>>,
    allowed: Vec<Algorithm>,
    rules: Rules,
    cookie: Cookie,
    cookie_names: CookieNames,
    tickets: Tickets,
}

/// What the value of the known cookie is.
enum Cookie {
    Token,
    AuthJs(AuthJs, Rules),
    Session(Arc<Sessions>),
}

/// Why a credential is not accepted. For the log and for a stable code; a caller learns no more than expired or not.
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
    MissingClaim(&'static str),
    #[error("not a token, or a claim of the wrong form")]
    Malformed,
    #[error("there is no such session")]
    Unknown,
    #[error("the ticket was used")]
    Used,
    #[error("a ticket opens a stream and nothing else")]
    TicketOnly,
    /// It is not known whether it is good: what it has to be judged by can't be had now.
    #[error("the {0} to judge by can't be had now")]
    Unavailable(&'static str),
}

impl Authenticator {
    /// Reads the keys.
    ///
    /// # Errors
    /// When there is nothing to judge by, or something of it can't be read or used.
    pub fn new(access: &config::Access) -> Result<Self, KeyError> {
        if !access.admits_anybody() {
            return Err(KeyError::None);
        }
        let secret = access.jwt_secret.iter().map(Key::from_secret);
        let public = access.jwt_public_keys.iter().map(|path| Key::from_pem_file(path));
        let mut keys = secret.chain(public).collect::<Result<Vec<_>, KeyError>>()?;
        let jwks = access.jwks_url.as_deref().map(Jwks::new).transpose()?;
        if !access.algorithms.is_empty() {
            let had_keys = !keys.is_empty();
            keys.retain(|key| access.algorithms.contains(&key.algorithm));
            let by_jwks = jwks.is_some() && access.algorithms.iter().any(|name| *name != Algorithm::HS256);
            if (had_keys || jwks.is_some()) && keys.is_empty() && !by_jwks {
                return Err(KeyError::NoneAllowed);
            }
        }
        let (cookie, cookie_names) = cookie(access)?;
        Ok(Self {
            keys,
            jwks,
            allowed: access.algorithms.clone(),
            rules: Rules::of_tokens(access),
            cookie,
            cookie_names,
            tickets: Tickets::new().map_err(|_| KeyError::Random)?,
        })
    }

    /// Tells where sessions are asked for.
    #[must_use]
    pub fn with_database(self, dsn: &Dsn, readiness: &Readiness) -> Self {
        if let Cookie::Session(sessions) = &self.cookie {
            sessions.connect_to(dsn, readiness);
        }
        self
    }

    /// Keeps what is fetched from elsewhere fresh; ends at once where nothing is. To be run beside the server.
    pub fn keep(&self, readiness: Readiness) -> impl Future<Output = ()> + Send + use<> {
        let jwks = self.jwks.clone();
        async move {
            if let Some(jwks) = jwks {
                jwks.keep(readiness).await;
            }
        }
    }

    /// The credential that decides; `ticket` and `token` are the query's parameters.
    ///
    /// # Errors
    /// When there is none, or the deciding one has not the form of one.
    pub fn choose<'a>(
        &self,
        headers: &'a HeaderMap,
        ticket: Option<&'a str>,
        token: Option<&'a str>,
    ) -> Result<Credential<'a>, CredentialError> {
        Credential::choose(headers, ticket, token, &self.cookie_names)
    }

    /// Whose credential it is, now, for anything but a stream: a ticket is for nothing else.
    ///
    /// # Errors
    /// When it is not good, or can't be judged.
    pub async fn judge(&self, credential: &Credential<'_>) -> Result<Principal, TokenError> {
        match credential {
            Credential::Bearer(token) | Credential::Query(token) => self.authenticate(token).await,
            Credential::Cookie(value, name) => match &self.cookie {
                Cookie::Token => self.authenticate(value).await,
                Cookie::AuthJs(authjs, rules) => {
                    Claims::read(&authjs.open(value, *name)?)?.judge_session(rules, SystemTime::now())
                }
                Cookie::Session(sessions) => sessions.find(value, SystemTime::now()).await,
            },
            Credential::Ticket(_) => Err(TokenError::TicketOnly),
        }
    }

    /// As [`judge`](Self::judge), for a stream. A ticket is to be redeemed before the stream opens.
    ///
    /// # Errors
    /// When it is not good, or can't be judged.
    pub async fn judge_for_stream(
        &self,
        credential: &Credential<'_>,
    ) -> Result<(Principal, Option<Claim>), TokenError> {
        if let Credential::Ticket(ticket) = credential {
            return self.tickets.read(ticket).map(|(principal, claim)| (principal, Some(claim)));
        }
        self.judge(credential).await.map(|principal| (principal, None))
    }

    /// Of whom the token speaks, now.
    ///
    /// # Errors
    /// When the token is not one that a known key signed and that is good now, or its key can't be had.
    pub async fn authenticate(&self, token: &str) -> Result<Principal, TokenError> {
        self.authenticate_at(token, SystemTime::now()).await
    }

    pub(super) async fn authenticate_at(
        &self,
        token: &str,
        now: SystemTime,
    ) -> Result<Principal, TokenError> {
        let token = Jws::parse(token)?;
        self.verify(&token).await?;
        Claims::read(&token.payload()?)?.judge(&self.rules, now)
    }

    async fn verify(&self, token: &Jws<'_>) -> Result<(), TokenError> {
        if !self.allowed.is_empty() && !self.allowed.contains(&token.algorithm) {
            return Err(TokenError::Algorithm);
        }
        let outcome = self.verify_by_ours(token);
        match &self.jwks {
            // No public key verifies it.
            Some(_) if token.algorithm == Algorithm::HS256 => outcome,
            Some(jwks) if outcome.is_err() => {
                let published = jwks.find(token.algorithm, token.key_id.as_deref()).await?;
                let fits = published.iter().any(|key| key.verifies(token.message, &token.signature));
                if fits { Ok(()) } else { Err(TokenError::Signature) }
            }
            _ => outcome,
        }
    }

    fn verify_by_ours(&self, token: &Jws<'_>) -> Result<(), TokenError> {
        let mut outcome = Err(TokenError::Algorithm);
        for key in self.keys.iter().filter(|key| key.algorithm == token.algorithm) {
            // Several keys of one algorithm are a rotation.
            if key.verifies(token.message, &token.signature) {
                return Ok(());
            }
            outcome = Err(TokenError::Signature);
        }
        outcome
    }

    /// What became of sessions by now, each in its place.
    pub async fn review(&self, sessions: &[&Session]) -> Vec<Review> {
        match &self.cookie {
            Cookie::Session(known) => known.review(sessions, SystemTime::now()).await,
            Cookie::Token | Cookie::AuthJs(..) => vec![Review::Unknown; sessions.len()],
        }
    }

    #[must_use]
    pub const fn tickets(&self) -> &Tickets {
        &self.tickets
    }
}

fn cookie(access: &config::Access) -> Result<(Cookie, CookieNames), KeyError> {
    if let Some(authjs) = &access.authjs {
        let (authjs, names) = AuthJs::new(authjs);
        let names = CookieNames { names, chunked: true };
        return Ok((Cookie::AuthJs(authjs, Rules::of_sessions(access)), names));
    }
    if let Some(path) = &access.session_query {
        let query =
            std::fs::read_to_string(path).map_err(|source| KeyError::Query { path: path.clone(), source })?;
        let names = access.session_cookie.iter().cloned().collect();
        let sessions = Arc::new(Sessions::new(&query, access.leeway));
        return Ok((Cookie::Session(sessions), CookieNames { names, chunked: false }));
    }
    let names = access.cookie.iter().cloned().collect();
    Ok((Cookie::Token, CookieNames { names, chunked: false }))
}

#[cfg(test)]
mod tests;
