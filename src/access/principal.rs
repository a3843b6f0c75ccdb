//! What a verified token says of its bearer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

/// A verified caller. Only [`super::Authenticator`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The user's id: the token's `sub`.
    pub subject: Arc<str>,
    /// Seconds since 1970; from this second on the token is worth nothing.
    pub expires_at: u64,
    scopes: Vec<Box<str>>,
    /// The claim `organizationId`: what a preset takes when the request names none.
    pub default_organization: Option<Arc<str>>,
    /// The claim `organizations`: id to role. It counts only where no memberships table is configured.
    pub organizations: BTreeMap<Arc<str>, Option<Arc<str>>>,
}

impl Principal {
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|s| &**s == scope)
    }

    /// How long the token is still good; zero when it is not.
    #[must_use]
    pub fn remaining(&self, now: SystemTime) -> Duration {
        UNIX_EPOCH
            .checked_add(Duration::from_secs(self.expires_at))
            .map_or(Duration::MAX, |end| {
                end.duration_since(now).unwrap_or(Duration::ZERO)
            })
    }
}

/// The claims that walcast reads; others are allowed and ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Claims {
    sub: Arc<str>,
    exp: Seconds,
    #[serde(default)]
    scope: Scopes,
    organization_id: Option<Arc<str>>,
    #[serde(default)]
    organizations: Organizations,
}

impl Claims {
    pub(super) fn expires_at(&self) -> u64 {
        self.exp.0
    }

    /// None when the subject is empty: an empty user id would match rows that belong to nobody.
    pub(super) fn into_principal(self) -> Option<Principal> {
        (!self.sub.is_empty()).then(|| Principal {
            expires_at: self.exp.0,
            subject: self.sub,
            scopes: self.scope.0,
            default_organization: self.organization_id.filter(|id| !id.is_empty()),
            organizations: self.organizations.0,
        })
    }
}

/// A NumericDate (RFC 7519 section 2): it may have a fraction, which is cut off.
struct Seconds(u64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Seconds;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("seconds since 1970")
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Seconds, E> {
                Ok(Seconds(seconds))
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Seconds, E> {
                Duration::try_from_secs_f64(seconds)
                    .map(|d| Seconds(d.as_secs()))
                    .map_err(E::custom)
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

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of organization ids to roles, or a list of organization ids")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Organizations, A::Error> {
                let mut organizations = BTreeMap::new();
                while let Some((id, role)) = map.next_entry()? {
                    organizations.insert(id, role);
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
