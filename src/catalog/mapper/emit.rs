//! Events that an application emits by itself: `walcast.emit`, a message in its transaction.
//!
//! Every role may write a logical message of any prefix; only `walcast.emit` knows the secret. The content is the
//! signature in 64 hexadecimal digits, a space, and the JSON that is signed:
//! `sha256(secret || sha256(secret || xid || ':' || json))`, the xid decimal, modulo 2^32. So a message that was
//! signed in one transaction can't be written again in another.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::catalog::compile::{Compiled, Inherited};
use crate::catalog::event::{Audience, OrganizationId, Tags};
use crate::catalog::spelling::{WORKER_TYPES, is_name};
use crate::config::Secret;

/// Why an emitted event was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the worker has no secret to verify it with; grant its role select on walcast.secret")]
    NoSecret,
    #[error("it is not signed by walcast.emit")]
    Unsigned,
    #[error("it is not what walcast.emit writes")]
    Malformed,
    #[error("its organization is empty or \"*\"; emit to one organization")]
    Organization,
    #[error("its type or channel is no name; names match [A-Za-z0-9._:-]{{1,100}}")]
    Name,
    #[error("its type is the worker's own; choose another")]
    WorkerType,
    #[error("its tags are not names with values")]
    Tags,
    #[error("its only names neither a role nor a user")]
    Only,
    #[error("the catalog shows its type to one user, and it names none; give only.user")]
    UserMissing,
    #[error("its only admits somebody whom the catalog does not admit to its type")]
    OnlyTooWide,
    #[error("rules of its type differ in channel or only; emit a type of its own")]
    Ambiguous,
    #[error("it is empty, or larger than source.max_row")]
    Size,
}

impl Refusal {
    pub(super) const fn number(self) -> usize {
        self as usize
    }
}

/// An emitted event that may go out.
#[derive(Debug)]
pub(super) struct Emitted<'a> {
    pub(super) organization: Cow<'a, str>,
    pub(super) event_type: Arc<str>,
    pub(super) channel: Arc<str>,
    pub(super) tags: Tags,
    pub(super) audience: Option<Arc<Audience>>,
    pub(super) data: &'a str,
}

/// What `walcast.emit` writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    #[serde(borrow)]
    organization_id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(default)]
    tags: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    only: Option<Only>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Only {
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    user: Option<String>,
}

/// The secret of `walcast.secret`.
#[derive(Debug)]
pub(super) struct Verifier {
    secret: Option<Vec<u8>>,
}

impl Verifier {
    /// From hexadecimal digits, with or without `\x`. Anything else verifies nothing.
    pub(super) fn new(secret: Option<&Secret>) -> Self {
        let decode = |secret: &Secret| {
            let digits = secret.expose().strip_prefix("\\x").unwrap_or(secret.expose());
            decode_hex(digits.as_bytes()).filter(|secret| !secret.is_empty())
        };
        Self { secret: secret.and_then(decode) }
    }

    /// The signed JSON.
    fn verify<'a>(&self, xid: u32, content: &'a [u8]) -> Result<&'a str, Refusal> {
        let secret = self.secret.as_deref().ok_or(Refusal::NoSecret)?;
        // The source empties what is too long to be kept.
        if content.is_empty() {
            return Err(Refusal::Size);
        }
        let (signature, rest) = content.split_first_chunk::<64>().ok_or(Refusal::Unsigned)?;
        let json = rest.strip_prefix(b" ").ok_or(Refusal::Unsigned)?;
        let signature = decode_hex(signature).ok_or(Refusal::Unsigned)?;
        let right = digest(secret, xid, json);
        let difference = right.iter().zip(&signature).fold(0, |seen, (a, b)| seen | (a ^ b));
        if difference != 0 || signature.len() != right.len() {
            return Err(Refusal::Unsigned);
        }
        std::str::from_utf8(json).map_err(|_| Refusal::Malformed)
    }

    /// What `walcast.emit` writes for this JSON.
    #[cfg(any(test, fuzzing))]
    pub(super) fn sign(&self, xid: u32, json: &[u8]) -> Vec<u8> {
        let digest = digest(self.secret.as_deref().unwrap_or_default(), xid, json);
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        [digits.as_bytes(), b" ", json].concat()
    }

    pub(super) fn read<'a>(
        &self,
        xid: u32,
        content: &'a [u8],
        compiled: &Compiled,
    ) -> Result<Emitted<'a>, Refusal> {
        let json = self.verify(xid, content)?;
        let message: Message<'a> = serde_json::from_str(json).map_err(|_| Refusal::Malformed)?;
        if message.organization_id.is_empty() || message.organization_id == OrganizationId::EVERY {
            return Err(Refusal::Organization);
        }
        if !is_name(&message.event_type) || !is_name(&message.channel) {
            return Err(Refusal::Name);
        }
        if WORKER_TYPES.contains(&&*message.event_type) {
            return Err(Refusal::WorkerType);
        }
        let tags = read_tags(message.tags.unwrap_or_default(), compiled.tag_names())?;
        let (event_type, channel, audience) = match compiled.inherited.get_key_value(&*message.event_type) {
            Some((_, Inherited::Ambiguous)) => return Err(Refusal::Ambiguous),
            Some((event_type, Inherited::One { channel, roles, needs_user })) => {
                let audience = narrow(roles, *needs_user, message.only)?;
                (Arc::clone(event_type), Arc::clone(channel), audience)
            }
            None => {
                let audience = match message.only {
                    Some(only) if only.roles.is_empty() && only.user.is_none() => return Err(Refusal::Only),
                    Some(only) => Some(audience(&only.roles, only.user)),
                    None => None,
                };
                ((&*message.event_type).into(), (&*message.channel).into(), audience)
            }
        };
        Ok(Emitted {
            organization: message.organization_id,
            event_type,
            channel,
            tags,
            audience: audience.map(Arc::new),
            data: message.data.get(),
        })
    }
}

fn digest(secret: &[u8], xid: u32, json: &[u8]) -> [u8; 32] {
    let inner = Sha256::new()
        .chain_update(secret)
        .chain_update(itoa::Buffer::new().format(xid))
        .chain_update(b":")
        .chain_update(json)
        .finalize();
    Sha256::new().chain_update(secret).chain_update(inner).finalize().into()
}

impl Compiled {
    /// Whether an emitted event of this type would go out under this restriction (roles, user).
    ///
    /// # Errors
    /// Why it would be dropped.
    pub fn judge_emit(
        &self,
        event_type: &str,
        only: Option<(&[String], Option<&str>)>,
    ) -> Result<(), String> {
        let only = only.map(|(roles, user)| Only { roles: roles.to_vec(), user: user.map(str::to_owned) });
        let judged = match self.inherited.get(event_type) {
            Some(Inherited::Ambiguous) => Err(Refusal::Ambiguous),
            Some(Inherited::One { roles, needs_user, .. }) => narrow(roles, *needs_user, only).map(|_| ()),
            None => Ok(()),
        };
        judged.map_err(|refusal| refusal.to_string())
    }
}

/// What the catalog says, narrowed by what was emitted; never widened.
fn narrow(roles: &[Arc<str>], needs_user: bool, only: Option<Only>) -> Result<Option<Audience>, Refusal> {
    let restricted = needs_user || !roles.is_empty();
    let Some(only) = only else {
        return match (needs_user, restricted) {
            (true, _) => Err(Refusal::UserMissing),
            (false, true) => Ok(Some(Audience { roles: roles.to_vec(), user: None })),
            (false, false) => Ok(None),
        };
    };
    if only.roles.is_empty() && only.user.is_none() {
        return Err(Refusal::Only);
    }
    if !restricted {
        return Ok(Some(audience(&only.roles, only.user)));
    }
    if needs_user && only.user.is_none() {
        return Err(Refusal::UserMissing);
    }
    let within = only.roles.iter().all(|role| roles.iter().any(|known| **known == **role));
    if !within || (only.user.is_some() && !needs_user) {
        return Err(Refusal::OnlyTooWide);
    }
    let mut narrowed = audience(&only.roles, only.user);
    if narrowed.roles.is_empty() {
        narrowed.roles = roles.to_vec();
    }
    Ok(Some(narrowed))
}

fn audience(roles: &[String], user: Option<String>) -> Audience {
    Audience { roles: roles.iter().map(|role| role.as_str().into()).collect(), user: user.map(Into::into) }
}

/// Tags that the catalog does not know can't be filtered on, and are left out.
fn read_tags(given: BTreeMap<String, Value>, names: &[String]) -> Result<Tags, Refusal> {
    let mut tags = Tags::default();
    for (name, value) in given {
        if !is_name(&name) {
            return Err(Refusal::Tags);
        }
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        let index = names.iter().position(|known| *known == name).and_then(|index| u16::try_from(index).ok());
        for value in values {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(value) => value.to_string(),
                Value::Array(_) | Value::Object(_) => return Err(Refusal::Tags),
            };
            if let Some(index) = index {
                tags.push(index, text.as_bytes());
            }
        }
    }
    Ok(tags)
}

fn decode_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}
