//! Events for the tests of the journal and of what reads it.

use std::sync::Arc;

use super::Journals;
use crate::catalog::event::{Audience, Epoch, Event, EventId, Kind, SyncReason, Tags};
use crate::postgres::Lsn;

pub(crate) const EPOCH: Epoch = Epoch::new(7);

/// An event to be; what is not named is ordinary.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) epoch: Epoch,
    pub(crate) organization: String,
    pub(crate) lsn: u64,
    pub(crate) ordinal: u32,
    pub(crate) millis: i64,
    pub(crate) event_type: &'static str,
    pub(crate) channel: &'static str,
    pub(crate) tags: Vec<(u16, String)>,
    pub(crate) audience: Option<Arc<Audience>>,
    /// Bytes of data.
    pub(crate) size: usize,
    /// A `truncated` of the channel instead of data.
    pub(crate) sync: bool,
}

pub(crate) fn draft(organization: &str, lsn: u64, ordinal: u32) -> Draft {
    Draft {
        epoch: EPOCH,
        organization: organization.to_owned(),
        lsn,
        ordinal,
        millis: i64::try_from(lsn).unwrap(),
        event_type: "t",
        channel: "c",
        tags: Vec::new(),
        audience: None,
        size: 10,
        sync: false,
    }
}

impl Draft {
    pub(crate) fn id(&self) -> EventId {
        EventId { epoch: self.epoch, commit_lsn: Lsn::new(self.lsn), ordinal: self.ordinal }
    }

    pub(crate) fn frame(&self) -> String {
        format!("id: {}\ndata: {}\n\n", self.id(), "x".repeat(self.size))
    }

    pub(crate) fn append(&self, journals: &Journals) -> bool {
        let (event_type, channel) = (Arc::from(self.event_type), Arc::from(self.channel));
        let mut tags = Tags::default();
        self.tags.iter().for_each(|(name, value)| tags.push(*name, value.as_bytes()));
        let channels: Arc<[Arc<str>]> = [Arc::clone(&channel)].into();
        let frame = self.frame();
        let kind = if self.sync {
            Kind::Sync { reason: SyncReason::Truncated, channels: &channels }
        } else {
            Kind::Data { event_type: &event_type, channel: &channel, tags: &tags, frame: frame.as_bytes() }
        };
        journals.append(Event {
            id: self.id(),
            organization: &self.organization,
            commit_millis: self.millis,
            kind,
            audience: self.audience.as_ref(),
        })
    }
}

/// Journals whose history starts at `start`.
pub(crate) fn journals(max_memory: u64, start: u64) -> Arc<Journals> {
    let journals = Journals::new(max_memory);
    journals.reset(EPOCH, Lsn::new(start), i64::MIN);
    journals
}

/// One transaction of these events, published.
pub(crate) fn commit(journals: &Journals, drafts: &[Draft]) {
    assert!(drafts.iter().all(|draft| draft.append(journals)), "refused: {drafts:?}");
    let last = drafts.iter().map(|draft| draft.lsn).max().unwrap_or_default();
    journals.publish(Lsn::new(last + 1));
}
