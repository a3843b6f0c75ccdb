//! The body of a request to emit: from JSON to an [`Emission`], each mistake told by the field that it is in.
//!
//! What `walcast.emit` would refuse is refused here first, in the words of HTTP. Names are checked for being known and
//! for being there once: of two equal ones a reader between would see another than we do.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::body::mistake;
use crate::catalog::{OrganizationId, WORKER_TYPES, is_name};
use crate::emit::{Emission, Only};

const FIELDS: [&str; 6] = ["organizationId", "type", "data", "channel", "tags", "only"];

const NAMES: &str = "1 to 100 of A-Z a-z 0-9 . _ : -";

/// Bytes of the longest organization's id.
const MAX_ORGANIZATION: usize = 255;

/// What is wrong, to be told.
type Wrong = String;

pub(super) fn read(body: &[u8]) -> Result<Emission, Wrong> {
    let object: Object<'_> = serde_json::from_slice(body)
        .map_err(|error| format!("the body must be a JSON object: {}", mistake(&error)))?;
    let [organization, event_type, data, channel, tags, only] = object.take(&FIELDS, "")?;
    let organization = text("organizationId", required("organizationId", organization)?)?;
    if organization == OrganizationId::EVERY {
        return Err("organizationId: must be one organization, not *".to_owned());
    }
    if organization.is_empty() || organization.len() > MAX_ORGANIZATION {
        return Err(format!(
            "organizationId: must be the id of an organization, 1 to {MAX_ORGANIZATION} bytes"
        ));
    }
    let event_type = name("type", required("type", event_type)?)?;
    if WORKER_TYPES.contains(&&*event_type) {
        return Err(format!("type: {event_type} is the worker's own; choose another name"));
    }
    Ok(Emission {
        organization,
        event_type,
        data: data.ok_or("data: required, any JSON value")?.get().to_owned(),
        channel: given(channel).map(|raw| name("channel", raw)).transpose()?,
        tags: given(tags).map(read_tags).transpose()?,
        only: given(only).map(read_only).transpose()?,
    })
}

/// An optional field may be null, as the arguments of `walcast.emit` may.
fn given(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| raw.get() != "null")
}

fn required<'a>(field: &str, raw: Option<&'a RawValue>) -> Result<&'a RawValue, Wrong> {
    given(raw).ok_or_else(|| format!("{field}: required, a string"))
}

fn text(field: &str, raw: &RawValue) -> Result<String, Wrong> {
    let text: String = serde_json::from_str(raw.get()).map_err(|_| format!("{field}: must be a string"))?;
    if text.contains('\0') {
        return Err(format!("{field}: must not have the character \\u0000"));
    }
    Ok(text)
}

fn name(field: &str, raw: &RawValue) -> Result<String, Wrong> {
    let text = text(field, raw)?;
    if is_name(&text) { Ok(text) } else { Err(format!("{field}: must be {NAMES}")) }
}

/// As it was given, once each value is one that can be filtered on.
fn read_tags(raw: &RawValue) -> Result<String, Wrong> {
    const FORM: &str = "tags: must be an object of names with strings, numbers, booleans or null";
    let object: Object<'_> = serde_json::from_str(raw.get()).map_err(|_| FORM.to_owned())?;
    let mut seen = BTreeSet::new();
    for (tag, value) in &object.0 {
        if !is_name(tag) {
            return Err(format!("tags: a name must be {NAMES}"));
        }
        if !seen.insert(tag) {
            return Err(format!("tags: {tag} is given more than once"));
        }
        match serde_json::from_str(value.get()) {
            Ok(Value::String(_)) => drop(text(&format!("tags: {tag}"), value)?),
            Ok(Value::Number(_) | Value::Bool(_) | Value::Null) => {}
            _ => return Err(FORM.to_owned()),
        }
    }
    Ok(raw.get().to_owned())
}

/// What is not understood must not widen: everything but the two known forms is refused.
fn read_only(raw: &RawValue) -> Result<Only, Wrong> {
    const FORM: &str = "only: must be {\"roles\": [...]}, {\"user\": \"...\"} or both";
    let object: Object<'_> = serde_json::from_str(raw.get()).map_err(|_| FORM.to_owned())?;
    let [roles, user] = object.take(&["roles", "user"], "only.")?;
    let roles = match roles {
        Some(raw) => {
            let roles: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
            let roles = roles.into_iter().map(|role| text("only.roles", role));
            let roles = roles.collect::<Result<Vec<_>, _>>()?;
            if roles.is_empty() || roles.iter().any(String::is_empty) {
                return Err("only.roles: must be a list of role names".to_owned());
            }
            roles
        }
        None => Vec::new(),
    };
    let user = user.map(|raw| text("only.user", raw)).transpose()?;
    if user.as_ref().is_some_and(String::is_empty) {
        return Err("only.user: must be a user's id".to_owned());
    }
    if roles.is_empty() && user.is_none() {
        return Err(FORM.to_owned());
    }
    Ok(Only { roles, user })
}

/// An object's members in their order, equal names kept.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    /// The members of these names; there must be no other, and none twice.
    fn take<const N: usize>(
        &self,
        names: &[&str; N],
        prefix: &str,
    ) -> Result<[Option<&'a RawValue>; N], Wrong> {
        let mut taken = [None; N];
        for (name, value) in &self.0 {
            let place = names.iter().position(|known| known == name).and_then(|at| taken.get_mut(at));
            let Some(place) = place else {
                let shown: String = name.chars().take(100).collect();
                return Err(format!("{prefix}{shown}: unknown; allowed are {}", names.join(", ")));
            };
            if place.replace(*value).is_some() {
                return Err(format!("{prefix}{name}: given more than once"));
            }
        }
        Ok(taken)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(fields: &str) -> String {
        read(format!("{{{fields}}}").as_bytes()).unwrap_err()
    }

    const RIGHT: &str = r#""organizationId":"a","type":"t","data":1"#;

    #[test]
    fn everything_that_may_be_said_is_taken_as_it_is() {
        let body = br#" {"organizationId":"a\u00e9","type":"import.done","data": {"b": [1, 2.50]},"channel":"imports",
                        "tags":{"n":1,"s":"x","none":null,"yes":true},"only":{"roles":["admin"],"user":"u"}}"#;
        let emission = read(body).unwrap();
        assert_eq!(emission.organization, "a\u{e9}");
        assert_eq!(emission.event_type, "import.done");
        assert_eq!(emission.data, r#"{"b": [1, 2.50]}"#);
        assert_eq!(emission.channel.as_deref(), Some("imports"));
        assert_eq!(emission.tags.as_deref(), Some(r#"{"n":1,"s":"x","none":null,"yes":true}"#));
        let only = Only { roles: vec!["admin".to_owned()], user: Some("u".to_owned()) };
        assert_eq!(emission.only, Some(only));
        let least =
            read(format!("{{{RIGHT},\"channel\":null,\"tags\":null,\"only\":null}}").as_bytes()).unwrap();
        assert_eq!((least.channel, least.tags, least.only), (None, None, None));
        assert_eq!(read(br#"{"organizationId":"a","type":"t","data":null}"#).unwrap().data, "null");
    }

    #[test]
    fn a_mistake_names_its_field_and_what_is_allowed() {
        let names = "must be 1 to 100 of A-Z a-z 0-9 . _ : -";
        let only = "only: must be {\"roles\": [...]}, {\"user\": \"...\"} or both";
        let tags = "tags: must be an object of names with strings, numbers, booleans or null";
        for (fields, message) in [
            ("", "organizationId: required, a string".to_owned()),
            (r#""organizationId":null"#, "organizationId: required, a string".to_owned()),
            (r#""organizationId":7"#, "organizationId: must be a string".to_owned()),
            (r#""organizationId":"*","#, String::new()),
            (r#""organizationId":"*""#, "organizationId: must be one organization, not *".to_owned()),
            (
                r#""organizationId":"a\u0000""#,
                "organizationId: must not have the character \\u0000".to_owned(),
            ),
            (
                r#""organizationId":"""#,
                "organizationId: must be the id of an organization, 1 to 255 bytes".to_owned(),
            ),
            (r#""organizationId":"a""#, "type: required, a string".to_owned()),
            (r#""organizationId":"a","type":"a b""#, format!("type: {names}")),
            (
                r#""organizationId":"a","type":"data.sync""#,
                "type: data.sync is the worker's own; choose another name".to_owned(),
            ),
            (r#""organizationId":"a","type":"t""#, "data: required, any JSON value".to_owned()),
            (&format!("{RIGHT},\"channel\":\"\""), format!("channel: {names}")),
            (&format!("{RIGHT},\"tags\":[]"), tags.to_owned()),
            (&format!("{RIGHT},\"tags\":{{\"a\":[1]}}"), tags.to_owned()),
            (&format!("{RIGHT},\"tags\":{{\"a b\":1}}"), format!("tags: a name {names}")),
            (&format!("{RIGHT},\"tags\":{{\"a\":1,\"a\":2}}"), "tags: a is given more than once".to_owned()),
            (&format!("{RIGHT},\"only\":{{}}"), only.to_owned()),
            (&format!("{RIGHT},\"only\":\"admin\""), only.to_owned()),
            (
                &format!("{RIGHT},\"only\":{{\"role\":\"a\"}}"),
                "only.role: unknown; allowed are roles, user".to_owned(),
            ),
            (
                &format!("{RIGHT},\"only\":{{\"roles\":[]}}"),
                "only.roles: must be a list of role names".to_owned(),
            ),
            (
                &format!("{RIGHT},\"only\":{{\"roles\":\"a\"}}"),
                "only.roles: must be a list of role names".to_owned(),
            ),
            (&format!("{RIGHT},\"only\":{{\"user\":\"\"}}"), "only.user: must be a user's id".to_owned()),
            (&format!("{RIGHT},\"data\":2"), "data: given more than once".to_owned()),
            (
                &format!("{RIGHT},\"organization_id\":\"a\""),
                "organization_id: unknown; allowed are organizationId, type, data, channel, tags, only"
                    .to_owned(),
            ),
        ] {
            let told = wrong(fields);
            if message.is_empty() {
                assert!(told.starts_with("the body must be a JSON object: "), "{told}");
            } else {
                assert_eq!(told, message, "{fields}");
            }
        }
        for body in ["", "[]", "7", "{", "null", "{} {}", "\u{feff}{}"] {
            assert!(
                read(body.as_bytes()).unwrap_err().starts_with("the body must be a JSON object: "),
                "{body}"
            );
        }
        assert!(read(b"{\"data\":\"\xff\"}").is_err());
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{{{RIGHT},\"only\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(deep.as_bytes()).is_err());
        let deep = format!(
            "{{\"organizationId\":\"a\",\"type\":\"t\",\"data\":{}1{}}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert!(read(deep.as_bytes()).is_ok(), "how deep a value may be is the database's to say");
    }
}
