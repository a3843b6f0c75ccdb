//! Every few seconds: what the database says of itself, told to readiness, metrics and the pipeline.
//!
//! A task of its own, with a connection of its own: a database that answers slowly holds nothing up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::catalog::{Compiled, Identity};
use crate::config::Config;
use crate::mirror::MirrorSpec;
use crate::postgres::schema::{Schema, TableName};
use crate::postgres::{Dsn, client};
use crate::source::setup::{IdentityNeed, LIMIT, Requirements, UNLIMITED};
use crate::source::watch::{Report, SlotReport, WalStatus, window_limit};
use crate::source::{Kind, slot_name};
use crate::telemetry::metrics::WalStage;
use crate::telemetry::{Metrics, Readiness, Reason};

/// How long something may be wrong before it is told.
const PERIOD: Duration = Duration::from_secs(5);

/// Catalog queries take milliseconds; a connection that is silent for so long is given up.
const ANSWER: Duration = Duration::from_secs(20);

/// Keys of what is told of the slot.
const WAL: &str = "slot wal_status";
const EXTENDED: &str = "slot wal_status extended";
const HELD: &str = "slot held";
const KEEP_SIZE: &str = "max_slot_wal_keep_size";
const FAILOVER: &str = "slot failover";

/// What keeps a slot that nobody reads; `max_slot_wal_keep_size` still bounds what it costs.
const IDLE: &str = "alter system set idle_replication_slot_timeout = 0; select pg_catalog.pg_reload_conf();";

/// What the pipeline is to heed.
#[derive(Clone, Debug, Default)]
pub(super) struct Signals {
    /// As [`Report::publication`]; none until there was a look.
    pub(super) publication: Option<Option<String>>,
    /// Counts how often partitions were cut.
    pub(super) cuts: u64,
    /// Bound of the window's log; none until it is known.
    pub(super) max_wal: Option<u64>,
}

pub(super) struct Watch {
    dsn: Dsn,
    requirements: Requirements,
    max_wal: u64,
    signals: watch::Sender<Signals>,
    readiness: Readiness,
    metrics: Metrics,
    client: Option<client::Client>,
    before: Option<Report>,
    /// Keys of the shortcomings that were told.
    told: BTreeSet<String>,
}

impl Watch {
    pub(super) fn new(
        config: &Config,
        source: Kind,
        dsn: Dsn,
        tables: Vec<(TableName, IdentityNeed)>,
        readiness: Readiness,
        metrics: Metrics,
    ) -> Self {
        let requirements = Requirements {
            source,
            publication: config.source.publication.clone(),
            slot: slot_name(&config.source, &dsn.database),
            max_outbox: config.max_outbox(),
            tables,
            grant_to: None,
        };
        Self {
            dsn,
            requirements,
            max_wal: config.replay.max_wal.0,
            signals: watch::Sender::new(Signals::default()),
            readiness,
            metrics,
            client: None,
            before: None,
            told: BTreeSet::new(),
        }
    }

    pub(super) fn signals(&self) -> watch::Receiver<Signals> {
        self.signals.subscribe()
    }

    /// For ever.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match timeout(ANSWER, self.fetch()).await {
                Ok(Ok(report)) => self.tell(report),
                // The source says why the database is away; what was told before stays.
                Ok(Err(error)) => {
                    tracing::debug!(error, "the database could not be asked about itself");
                    self.client = None;
                }
                Err(_) => self.client = None,
            }
        }
    }

    async fn fetch(&mut self) -> Result<Report, String> {
        let client = match self.client.take() {
            Some(client) if !client.is_closed() => client,
            _ => client::connect(&self.dsn).await.map_err(|error| error.to_string())?,
        };
        let report = Report::fetch(&client, &self.requirements).await.map_err(|error| error.to_string())?;
        self.client = Some(client);
        Ok(report)
    }

    fn tell(&mut self, report: Report) {
        self.tell_shortcomings(&report);
        if let Some(slot) = &report.slot {
            self.tell_slot(slot);
        }
        let max_wal = report.slot.as_ref().map(|slot| window_limit(self.max_wal, slot));
        let cut = self.before.as_ref().is_some_and(|before| report.cut_since(before));
        self.signals.send_modify(|signals| {
            signals.publication = Some(report.publication.clone());
            signals.cuts += u64::from(cut);
            signals.max_wal = max_wal.or(signals.max_wal);
        });
        self.before = Some(report);
    }

    fn tell_shortcomings(&mut self, report: &Report) {
        let mut now = BTreeSet::new();
        for (number, shortcoming) in report.shortcomings.iter().enumerate() {
            let key = format!("{} {}", shortcoming.of, number + 1);
            let reason = Reason { text: shortcoming.text.clone(), sql: shortcoming.sql.clone() };
            self.readiness.degrade(key.clone(), reason);
            now.insert(key);
        }
        for key in self.told.difference(&now) {
            self.readiness.mend(key);
        }
        self.told = now;
    }

    fn tell_slot(&self, slot: &SlotReport) {
        self.metrics.restart_bytes.set(slot.kept);
        self.metrics.safe_bytes.set(slot.safe.map_or(-1, |safe| i64::try_from(safe).unwrap_or(i64::MAX)));
        self.metrics.wal_stage(self.stage(slot));
        self.tell_status(slot);
        self.tell_holder(slot);
        self.warn_while(slot.limit.is_none(), KEEP_SIZE, || {
            Reason::new(UNLIMITED).mended_by(format!("{LIMIT};"))
        });
        self.warn_while(slot.failover == Some(false), FAILOVER, || {
            Reason::new(format!(
                "slot {} is no failover slot: a standby that is promoted does not have it, and every history begins \
                 anew; stop the worker, drop the slot, and run `walcast setup`",
                self.requirements.slot
            ))
        });
    }

    fn stage(&self, slot: &SlotReport) -> WalStage {
        if slot.wal_status == WalStatus::Lost {
            WalStage::lost
        } else if self.is_held(slot) {
            WalStage::held
        } else if window_limit(self.max_wal, slot) == 0 {
            WalStage::yielding
        } else {
            WalStage::within
        }
    }

    /// Somebody's open transaction keeps more than the whole budget.
    fn is_held(&self, slot: &SlotReport) -> bool {
        slot.holder.is_some() && slot.kept.saturating_sub(slot.unconfirmed) > self.max_wal
    }

    fn tell_status(&self, slot: &SlotReport) {
        let name = &self.requirements.slot;
        let more = "alter system set max_slot_wal_keep_size = '16GB'; select pg_catalog.pg_reload_conf();";
        self.warn_while(slot.wal_status == WalStatus::Extended, EXTENDED, || {
            Reason::new(format!("slot {name} keeps more log than max_wal_size (wal_status extended)"))
        });
        match slot.wal_status {
            WalStatus::Reserved | WalStatus::Extended => {
                self.readiness.mend(WAL);
            }
            WalStatus::Unreserved => {
                let text = format!(
                    "slot {name} keeps more log than max_slot_wal_keep_size (wal_status unreserved): the next \
                     checkpoint may lose it, and then every stream is told to read again"
                );
                self.readiness.degrade(WAL, Reason::new(text).mended_by(more));
            }
            WalStatus::Lost if slot.idled => {
                let text = format!(
                    "slot {name} was read by nobody for longer than idle_replication_slot_timeout (wal_status lost): it \
                     is made again, and every stream told to read again"
                );
                self.readiness.degrade(WAL, Reason::new(text).mended_by(IDLE));
            }
            WalStatus::Lost => {
                let text = format!(
                    "slot {name} lost its log to max_slot_wal_keep_size (wal_status lost): it is made again, and \
                     every stream told to read again"
                );
                self.readiness.degrade(WAL, Reason::new(text).mended_by(more));
            }
        }
    }

    fn tell_holder(&self, slot: &SlotReport) {
        match &slot.holder {
            Some(holder) if self.is_held(slot) => {
                let text = format!(
                    "slot {} keeps log from before its confirmed position, more than replay.max_wal: {} has a \
                     transaction open since {}",
                    self.requirements.slot, holder.who, holder.since
                );
                self.readiness.degrade(HELD, Reason::new(text).mended_by(holder.to_end_it.clone()));
            }
            _ => {
                self.readiness.mend(HELD);
            }
        }
    }

    fn warn_while(&self, wrong: bool, key: &'static str, reason: impl FnOnce() -> Reason) {
        if wrong {
            self.readiness.warn(key, reason());
        } else {
            self.readiness.mend(key);
        }
    }
}

/// Every table that is read, with the old values that it must log.
pub(super) fn tables(
    compiled: &Compiled,
    mirrored: &[MirrorSpec],
    schema: &Schema,
) -> Vec<(TableName, IdentityNeed)> {
    let mut needs: BTreeMap<TableName, IdentityNeed> = BTreeMap::new();
    for need in compiled.identity_needs() {
        let identity = match need.identity {
            Identity::Default => IdentityNeed::Default,
            Identity::Full => IdentityNeed::Full,
        };
        needs.insert(need.table.clone(), identity);
    }
    for spec in mirrored {
        let keyless = schema.tables.get(&spec.table).is_some_and(|table| table.primary_key.is_empty());
        let identity = if keyless { IdentityNeed::Full } else { IdentityNeed::Default };
        needs.entry(spec.table.clone()).or_insert(identity);
    }
    needs.into_iter().collect()
}
