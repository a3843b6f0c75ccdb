//! Claims: from the JSON of a token whose signature fits to a [`Principal`].
//!
//! `exp` is required and `nbf` honoured, both to the configured leeway; `iss` and `aud` must be there and match where
//! they are configured. A claim that is read stands there once: of two, readers would differ on which one counts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::Value;

use super::authenticator::TokenError;
use super::jws::object;
use super::principal::Principal;
use crate::config;

/// What is asked of claims.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    issuer: Option<String>,
    audience: Option<String>,
    leeway: Duration,
}

impl Rules {
    /// Of tokens that somebody signs for this worker, among others.
    pub(super) fn of_tokens(access: &config::Access) -> Self {
        Self { issuer: access.issuer.clone(), audience: access.audience.clone(), leeway: access.leeway }
    }

    /// Of what an application encrypts for itself: who has its secret is the issuer.
    pub(super) fn of_sessions(access: &config::Access) -> Self {
        Self { issuer: None, audience: None, leeway: access.leeway }
    }
}

/// The claims that walcast reads; others are allowed and ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Claims {
    sub: Option<Arc<str>>,
    /// Where Auth.js's own callbacks put the user instead.
    #[serde(default)]
    id: Value,
    exp: Option<NumericDate>,
    nbf: Option<NumericDate>,
    #[serde(default)]
    iss: Value,
    #[serde(default)]
    aud: Value,
    #[serde(default)]
    scope: Scopes,
    organization_id: Option<Arc<str>>,
    #[serde(default)]
    organizations: Organizations,
}

impl Claims {
    pub(super) fn read(json: &[u8]) -> Result<Self, TokenError> {
        object(json)
    }

    /// As [`judge`](Self::judge); without `sub`, the user is `id`.
    pub(super) fn judge_session(mut self, rules: &Rules, now: SystemTime) -> Result<Principal, TokenError> {
        if let (None, Value::String(id)) = (&self.sub, &self.id) {
            self.sub = Some(id.as_str().into());
        }
        self.judge(rules, now)
    }

    /// Of whom they speak, if they hold at `now`.
    pub(super) fn judge(self, rules: &Rules, now: SystemTime) -> Result<Principal, TokenError> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let missing = |claim: &'static str| TokenError::MissingClaim(claim);
        // The leeway is part of how long it holds, so that a stream that it opens does not end at once.
        let expires_at = self.exp.ok_or(missing("exp"))?.0.saturating_add(rules.leeway).as_secs();
        if expires_at <= now.as_secs() {
            return Err(TokenError::Expired);
        }
        if self.nbf.is_some_and(|from| from.0 > now.saturating_add(rules.leeway)) {
            return Err(TokenError::NotYetValid);
        }
        if let Some(issuer) = &rules.issuer {
            match &self.iss {
                Value::Null => return Err(missing("iss")),
                Value::String(iss) if iss == issuer => {}
                _ => return Err(TokenError::Issuer),
            }
        }
        // Where no audience is configured a token that names one is accepted.
        if let Some(audience) = &rules.audience {
            match &self.aud {
                Value::Null => return Err(missing("aud")),
                Value::String(aud) if aud == audience => {}
                Value::Array(all) if all.iter().any(|aud| aud == audience) => {}
                _ => return Err(TokenError::Audience),
            }
        }
        let subject = self.sub.ok_or(missing("sub"))?;
        // An empty user id would match rows that belong to nobody.
        if subject.is_empty() {
            return Err(TokenError::Malformed);
        }
        Ok(Principal {
            subject,
            expires_at,
            scopes: self.scope.0,
            default_organization: self.organization_id.filter(|id| !id.is_empty()),
            organizations: self.organizations.0,
            bound_to: None,
            session: None,
        })
    }
}

/// Seconds since 1970, maybe with a fraction (RFC 7519 section 2).
struct NumericDate(Duration);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = NumericDate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since 1970")
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<NumericDate, E> {
                Ok(NumericDate(Duration::from_secs(seconds)))
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<NumericDate, E> {
                Duration::try_from_secs_f64(seconds).map(NumericDate).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// `scope` as RFC 8693 has it, words between spaces; or a list of them.
#[derive(Default)]
struct Scopes(Vec<Box<str>>);

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Words(String),
            List(Vec<Box<str>>),
        }
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::Words(words) => words.split_ascii_whitespace().map(Box::from).collect(),
            Form::List(list) => list,
        }))
    }
}

/// A map of id to role, or a list of ids.
#[derive(Default)]
struct Organizations(BTreeMap<Arc<str>, Option<Arc<str>>>);

impl<'de> Deserialize<'de> for Organizations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapOrList;
        impl<'de> Visitor<'de> for MapOrList {
            type Value = Organizations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of organization ids to roles, or a list of organization ids")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Organizations, E> {
                Ok(Organizations::default())
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Organizations, A::Error> {
                let mut organizations = BTreeMap::new();
                while let Some((id, role)) = map.next_entry()? {
                    if organizations.insert(id, role).is_some() {
                        return Err(de::Error::custom("an organization stands there twice"));
                    }
                }
                Ok(Organizations(organizations))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Organizations, A::Error> {
                let mut organizations = BTreeMap::new();
                while let Some(id) = list.next_element()? {
                    organizations.insert(id, None);
                }
                Ok(Organizations(organizations))
            }
        }
        deserializer.deserialize_any(MapOrList)
    }
}
