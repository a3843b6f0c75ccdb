//! Where a stream starts, and what it must be told first.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, timeout_at};

use crate::catalog::event::{EventId, OrganizationId, SyncReason};
use crate::journal::{Journals, Place, Snapshot, View};
use crate::postgres::Lsn;

/// From where on a stream wants to see events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From this position on, all of whose commits are visible to whoever reads the database now.
    Now(Lsn),
    /// Everything that is kept.
    Earliest,
    /// What comes after this id.
    After(EventId),
    /// What committed so long ago or later. When some of that is evicted, what is kept follows a `history_expired`.
    Since(Duration),
    /// An id was given that is none.
    Unreadable,
}

/// A start, judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) view: View,
    /// The stream sees what is after.
    pub(super) after: Place,
    /// Everything after an id that the client had will be there.
    pub(super) resumed: bool,
    pub(super) sync: Option<SyncReason>,
}

enum Judgement {
    Placed(Placement),
    /// This node has not come so far.
    Ahead,
}

/// Waits at most `patience` for the head to reach an id that is ahead of it.
pub(super) async fn place(
    journals: &Journals,
    organization: &OrganizationId,
    start: Start,
    patience: Duration,
) -> Placement {
    let deadline = Instant::now() + patience;
    let mut late = false;
    loop {
        let moved = journals.moved();
        tokio::pin!(moved);
        // Before looking, so that a move after the look is not missed.
        moved.as_mut().enable();
        let snapshot = journals.snapshot(organization);
        match judge(&snapshot, start) {
            Judgement::Placed(placement) => return placement,
            Judgement::Ahead if late => return lost(&snapshot, SyncReason::HistoryReset),
            Judgement::Ahead => late = timeout_at(deadline, moved).await.is_err(),
        }
    }
}

fn judge(snapshot: &Snapshot, start: Start) -> Judgement {
    let at = |after: Place| Placement { view: snapshot.view, after, resumed: false, sync: None };
    Judgement::Placed(match start {
        Start::Now(visible) if (visible, 0) < snapshot.floor() => lost(snapshot, SyncReason::HistoryExpired),
        Start::Now(visible) => at((visible, 0)),
        Start::Earliest => at(snapshot.floor()),
        Start::Since(ago) => {
            let millis = now_millis().saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX));
            let first = snapshot.since(millis).unwrap_or(snapshot.view.head);
            let sync = snapshot.lost_since(millis).then_some(SyncReason::HistoryExpired);
            Placement { sync, ..at(snapshot.floor().max((first, 0))) }
        }
        Start::Unreadable => lost(snapshot, SyncReason::HistoryReset),
        Start::After(id) => return judge_id(snapshot, id),
    })
}

fn judge_id(snapshot: &Snapshot, id: EventId) -> Judgement {
    let view = snapshot.view;
    if id.epoch != view.epoch {
        return Judgement::Placed(lost(snapshot, SyncReason::HistoryReset));
    }
    if id.place() < snapshot.floor() {
        return Judgement::Placed(lost(snapshot, SyncReason::HistoryExpired));
    }
    let is_position = id.ordinal == 0;
    if id.commit_lsn > view.head || (id.commit_lsn == view.head && !is_position) {
        return Judgement::Ahead;
    }
    if !is_position && !snapshot.names(id) {
        return Judgement::Placed(lost(snapshot, SyncReason::HistoryReset));
    }
    Judgement::Placed(Placement { view, after: id.place(), resumed: true, sync: None })
}

/// The client can't have what it asks for: it is told, and goes on where reading the database leaves no gap.
fn lost(snapshot: &Snapshot, reason: SyncReason) -> Placement {
    Placement { view: snapshot.view, after: snapshot.restart(), resumed: false, sync: Some(reason) }
}

fn now_millis() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}
