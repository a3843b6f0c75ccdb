//! Judges live streams by what the memberships table says, as of each transaction.
//!
//! ```text
//! change ─► mirror ─► note: whose place may it have changed, and do they listen?
//! end of the transaction ─► settle: revoked streams end, roles change from this commit on ─► (publish)
//! ```
//!
//! Why nobody slips through: a stream opens by registering in the hub and reading the mirror after that. Either it is
//! registered when a change is noted, and is judged here at the transaction's end; or the mirror has the change when
//! the stream looks. Both happen before anything of the transaction is published.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use crate::access::Memberships;
use crate::catalog::OrganizationId;
use crate::hub::{EndReason, Hub, StreamHandle};
use crate::mirror::Applied;
use crate::postgres::Lsn;
use crate::postgres::pgoutput::Relation;
use crate::presence::Presence;

pub(super) struct Judge {
    hub: Arc<Hub>,
    memberships: Arc<OnceLock<Memberships>>,
    presence: Arc<Presence>,
    /// Who listens, or did just now, and may stand otherwise since the transaction in hand began; never more than there are streams.
    concerned: HashSet<(OrganizationId, Arc<str>)>,
    /// That may be anybody.
    everybody: bool,
}

impl Judge {
    pub(super) fn new(
        hub: Arc<Hub>,
        memberships: Arc<OnceLock<Memberships>>,
        presence: Arc<Presence>,
    ) -> Self {
        Self { hub, memberships, presence, concerned: HashSet::new(), everybody: false }
    }

    /// A mirrored row changed.
    pub(super) fn note(&mut self, applied: &Applied) {
        let Some(memberships) = self.memberships.get().filter(|_| !self.everybody) else {
            return;
        };
        for (organization, user) in memberships.concerned(applied) {
            let organization = OrganizationId::new(organization);
            let listens = self.hub.streams_of_user(&organization, user) > 0;
            if listens || self.presence.is_online(&organization, user) {
                self.concerned.insert((organization, user.into()));
            }
        }
    }

    /// These tables were emptied.
    pub(super) fn note_truncated(&mut self, relations: &[Arc<Relation>]) {
        self.everybody |= self.memberships.get().is_some_and(|memberships| memberships.is_among(relations));
    }

    /// The mirror was read again: what changed meanwhile has no transaction that would tell.
    pub(super) fn note_all(&mut self) {
        self.everybody = true;
    }

    /// What was noted, judged by the mirror as the transaction that commits at `commit_lsn` leaves it. Before its
    /// publish.
    pub(super) fn settle(&mut self, commit_lsn: Lsn) {
        let set_role = |stream: &StreamHandle, role| stream.set_role_from(commit_lsn, role);
        if std::mem::take(&mut self.everybody) {
            self.concerned.clear();
            return self.judge_all(set_role);
        }
        for (organization, user) in std::mem::take(&mut self.concerned) {
            for stream in self.hub.handles_of_user(&organization, &user) {
                self.judge(&stream, set_role);
            }
            let standing = self.memberships.get().and_then(|m| m.standing_of(organization.as_str(), &user));
            if let Some(None) = standing {
                self.presence.dismiss(&organization, &user);
            }
        }
    }

    /// A history begins: everybody, for all that they read from now on.
    pub(super) fn begin(&mut self) {
        self.everybody = false;
        self.concerned.clear();
        self.judge_all(StreamHandle::set_role);
    }

    fn judge_all(&self, set_role: impl Fn(&StreamHandle, Option<Arc<str>>) + Copy) {
        for (organization, _) in self.hub.organizations() {
            for stream in self.hub.handles(&organization) {
                self.judge(&stream, set_role);
            }
        }
    }

    fn judge(&self, stream: &StreamHandle, set_role: impl Fn(&StreamHandle, Option<Arc<str>>)) {
        // Where tokens say who is a member, nothing changes before they run out.
        let standing =
            self.memberships.get().and_then(|m| m.standing_of(stream.organization().as_str(), stream.user()));
        match standing {
            Some(Some(membership)) if membership.role != stream.role() => set_role(stream, membership.role),
            None | Some(Some(_)) => {}
            Some(None) => {
                stream.end(EndReason::Revoked);
                self.presence.dismiss(stream.organization(), stream.user());
            }
        }
    }
}
