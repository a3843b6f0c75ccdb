//! Faults of the outbox: what was written is thrown away, or is not written at all. Nobody else writes meanwhile, so
//! that it is known what was lost.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{HEALED_WITHIN, Victims};
use crate::deed::{self, ORGANIZATIONS};
use crate::order::Lost;
use crate::reader::now;
use crate::{worker, writer};

/// What an operator may come to think of who finds the outbox large.
const EMPTYINGS: [&str; 3] = [
    "select walcast.clear_outbox()",
    "truncate walcast.outbox",
    "delete from walcast.outbox where operation = 'M'",
];

impl Victims {
    /// Some events are written, and thrown away: before the worker has seen them, or while it is about to.
    pub(super) async fn outbox_emptied(&mut self, rng: &mut fastrand::Rng) {
        let ledger = self.ledger.clone();
        let nobody_writes = ledger.gate.write().await;
        self.sql("select walcast.number_outbox()").await;
        let (start, began) = (self.head().await, now());
        let history = self.history().await;
        let away = rng.bool();
        if away {
            self.proxy.cut();
        }
        let organization = rng.choice(ORGANIZATIONS).unwrap_or("north");
        for at in 0..rng.usize(1..6) {
            let deed = deed::emit(organization, &format!("aside-{began}-{at}"));
            writer::aside(self.dsn.clone(), self.ledger.clone(), deed).await;
        }
        self.sql(rng.choice(EMPTYINGS).expect("one")).await;
        self.lost.push(Lost { during: began..=now(), at: start - 1 });
        assert_ne!(self.history().await, history, "what was lost is known");
        drop(nobody_writes);
        if away {
            sleep(Duration::from_millis(rng.u64(100..1500))).await;
            self.proxy.restore();
        }
        self.healed(start).await;
    }

    /// Some events find no room; one of them commits long after there is some again.
    pub(super) async fn outbox_full(&mut self, rng: &mut fastrand::Rng) {
        let ledger = self.ledger.clone();
        let nobody_writes = ledger.gate.write().await;
        self.sql("select walcast.number_outbox()").await;
        let (start, began) = (self.head().await, now());
        let away = rng.bool();
        if away {
            self.proxy.cut();
        }
        self.sql("update walcast.meta set outbox_limit = 1").await;
        let organization = rng.choice(ORGANIZATIONS).unwrap_or("north");
        let late = deed::emit(organization, &format!("late-{began}"));
        let late = deed::Deed { sql: format!("{} select pg_sleep(2);", late.sql), ..late };
        let late = tokio::spawn(writer::aside(self.dsn.clone(), self.ledger.clone(), late));
        for at in 0..rng.usize(1..6) {
            let deed = deed::telemetry(organization, &format!("full-{began}-{at}"));
            writer::aside(self.dsn.clone(), self.ledger.clone(), deed).await;
        }
        // It has found none by now.
        let waiting = "select count(*)::text from pg_locks
                        where locktype = 'advisory' and classid = 2002874371 and objid = 3 and granted";
        while !late.is_finished() && self.text(waiting).await == "0" {
            sleep(Duration::from_millis(20)).await;
        }
        self.sql("update walcast.meta set outbox_limit = null").await;
        if away {
            sleep(Duration::from_millis(rng.u64(100..1500))).await;
            self.proxy.restore();
        }
        late.await.expect("it commits");
        self.lost.push(Lost { during: began..=now(), at: start - 1 });
        drop(nobody_writes);
        self.healed(start).await;
    }

    /// A table's triggers are switched off for a while, which is only looked for every few seconds.
    pub(super) async fn triggers_off(&mut self, rng: &mut fastrand::Rng) {
        let ledger = self.ledger.clone();
        let _nobody_writes = ledger.gate.write().await;
        self.sql("select walcast.number_outbox()").await;
        let start = self.head().await;
        let (before, organization) = (self.epoch().await, rng.choice(ORGANIZATIONS).unwrap_or("north"));
        let began = now();
        let mut deed = deed::telemetry(organization, &format!("unseen-{began}"));
        deed.sql = format!(
            "alter table device_telemetry disable trigger all; {}
             alter table device_telemetry enable always trigger \"00_walcast_change\";
             alter table device_telemetry enable always trigger \"00_walcast_truncate\";",
            deed.sql
        );
        writer::aside(self.dsn.clone(), self.ledger.clone(), deed).await;
        self.lost.push(Lost { during: began..=now(), at: start - 1 });
        let deadline = Instant::now() + HEALED_WITHIN;
        while self.epoch().await == before {
            assert!(Instant::now() < deadline, "nobody noticed that triggers were off");
            sleep(Duration::from_millis(200)).await;
        }
        self.healed(start).await;
    }

    async fn history(&self) -> String {
        self.text("select history::text from walcast.outbox_state").await
    }

    /// Of a stream that begins now.
    async fn epoch(&self) -> String {
        loop {
            if let Some(epoch) = worker::epoch(self.address).await {
                return epoch;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}
