//! What a source has to tell beside transactions: in the order in which it happened, and nothing twice.

use std::collections::VecDeque;
use std::time::Duration;

use super::item::{Identity, ResetReason, SourceItem};
use super::policy::{SourceError, describe};
use crate::postgres::Lsn;

#[derive(Debug, Default)]
pub(super) struct News {
    items: VecDeque<SourceItem>,
    /// The reason that was told last, while nothing flows.
    told: Option<String>,
}

impl News {
    pub(super) fn pop(&mut self) -> Option<SourceItem> {
        self.items.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Data flows, of another history where there is a reason for one.
    pub(super) fn connected(&mut self, identity: Identity, start: Lsn, reset: Option<ResetReason>) {
        if let Some(reason) = reset {
            self.items.push_back(SourceItem::Reset { reason, identity: identity.clone(), start });
        }
        self.items.push_back(SourceItem::Connected { identity, start });
        self.told = None;
    }

    /// Nothing flows. The same reason again is no news.
    pub(super) fn disconnected(&mut self, error: &SourceError, retry_in: Duration) {
        let (kind, text) = (error.kind(), describe(error));
        tracing::debug!(error = text, retry_in_ms = retry_in.as_millis(), "the source is not connected");
        if self.told.as_deref() != Some(&text) {
            self.told = Some(text.clone());
            let standby = error.is_busy();
            self.items.push_back(SourceItem::Disconnected { kind, error: text, standby, retry_in });
        }
    }
}
