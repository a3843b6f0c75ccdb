//! What the fuzzers assert of bodies that ask to emit.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use serde_json::value::RawValue;

use super::event::read;
use crate::catalog::{OrganizationId, WORKER_TYPES, is_name};

/// Any bytes as a body. It is refused in bounded words, or an event of one organization, of a name that is not the
/// worker's, with data that is JSON, shown to somebody.
pub fn emissions(data: &[u8]) {
    let emission = match read(data) {
        Ok(emission) => emission,
        Err(wrong) => {
            return assert!(!wrong.is_empty() && wrong.len() <= 2 * data.len() + 400, "{wrong}");
        }
    };
    let organization = &*emission.organization;
    assert!(
        !organization.is_empty() && organization != OrganizationId::EVERY && !organization.contains('\0')
    );
    assert!(is_name(&emission.event_type) && !WORKER_TYPES.contains(&&*emission.event_type));
    assert!(emission.channel.as_deref().is_none_or(is_name));
    for json in std::iter::once(&emission.data).chain(&emission.tags) {
        assert!(serde_json::from_str::<&RawValue>(json).is_ok(), "{json}");
    }
    if let Some(only) = &emission.only {
        assert!(!only.roles.is_empty() || only.user.is_some());
        assert!(only.roles.iter().chain(&only.user).all(|text| !text.is_empty() && !text.contains('\0')));
    }
}
