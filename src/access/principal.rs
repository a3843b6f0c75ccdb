//! Who somebody is, once it is proven.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::sessions::Session;

/// A verified caller. Only [`super::Authenticator`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The user's id.
    pub subject: Arc<str>,
    /// Seconds since 1970; from this second on what proved it is worth nothing.
    pub expires_at: u64,
    pub(super) scopes: Vec<Box<str>>,
    /// What a preset takes when the request names no organization.
    pub default_organization: Option<Arc<str>>,
    /// Id to role, as the token says it. It counts only where no memberships table is configured.
    pub organizations: BTreeMap<Arc<str>, Option<Arc<str>>>,
    /// The only organization that it is good for, where what proved it was bound to one.
    pub(super) bound_to: Option<Arc<str>>,
    /// What proved it, where that may be taken back before its end: to be asked about again while a stream is open.
    pub session: Option<Session>,
}

impl Principal {
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|s| &**s == scope)
    }

    /// Whether what proved it may be used in this organization at all; whether they are a member is another question.
    #[must_use]
    pub fn may_ask_for(&self, organization: &str) -> bool {
        self.bound_to.as_deref().is_none_or(|bound| bound == organization)
    }

    /// How long it still holds; zero when it does not.
    #[must_use]
    pub fn remaining(&self, now: SystemTime) -> Duration {
        UNIX_EPOCH
            .checked_add(Duration::from_secs(self.expires_at))
            .map_or(Duration::MAX, |end| end.duration_since(now).unwrap_or(Duration::ZERO))
    }
}
