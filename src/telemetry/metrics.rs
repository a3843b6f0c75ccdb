//! Metrics: every name and every label of the worker, in this one file.
//!
//! No organization and no user is ever a label: a scrape names nobody. Counters end in `_total` on the wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::process::Process;
use super::readiness::{Readiness, State};

/// The content type of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Name and help of each metric.
pub mod names {
    pub type Name = (&'static str, &'static str);

    pub const TRANSACTIONS: Name = ("walcast_transactions", "Committed transactions taken from the source");
    pub const CHANGES: Name = ("walcast_changes", "Row changes taken from the source");
    pub const SPOOLED: Name = ("walcast_spooled_transactions", "Transactions too large for memory");
    pub const EVENTS: Name = ("walcast_events", "Events appended to the journals");
    pub const EVENT_BYTES: Name = ("walcast_event_bytes", "Bytes of frames appended to the journals");
    pub const OVERSIZE: Name = ("walcast_oversize_events", "Events sent without their data for their size");
    pub const EMIT_REFUSED: Name =
        ("walcast_emit_refused", "Emitted messages dropped: unsigned or malformed");
    pub const EXPRESSION_ERRORS: Name = ("walcast_expression_errors", "Catalog expressions that failed");
    pub const FRAMES_WRITTEN: Name = ("walcast_frames_written", "Frames written to streams");
    pub const BYTES_WRITTEN: Name = ("walcast_bytes_written", "Bytes written to streams");
    pub const WRITES: Name = ("walcast_writes", "Write calls that carried frames to streams");
    pub const STREAMS: Name = ("walcast_streams", "Open streams");
    pub const OPENS: Name = ("walcast_stream_opens", "Requests for a stream, by outcome");
    pub const ENDS: Name = ("walcast_stream_ends", "Streams that ended, by reason");
    pub const SYNCS: Name = ("walcast_syncs", "data.sync frames sent, by reason");
    pub const LIVE_RUNS: Name = ("walcast_live_runs", "Runs of live presets' queries, by outcome");
    pub const LIVE_UPDATES: Name =
        ("walcast_live_updates", "Answers of live presets' queries sent to streams");
    pub const RECONNECTS: Name =
        ("walcast_source_reconnects", "Connections to the source made after the first");
    pub const CONFIRMED_LSN: Name = ("walcast_source_confirmed_lsn", "Position confirmed to the slot");
    pub const HEAD_LSN: Name = ("walcast_source_head_lsn", "Position below which every commit is done");
    pub const LAG_BYTES: Name = ("walcast_source_lag_bytes", "Write-ahead log written but not processed");
    pub const PINNED_BYTES: Name = ("walcast_source_pinned_bytes", "Write-ahead log that the slot keeps");
    pub const RESTART_BYTES: Name = (
        "walcast_source_restart_lsn_bytes",
        "Write-ahead log that the server keeps for the slot, from restart_lsn on, whoever holds it there",
    );
    pub const SAFE_BYTES: Name =
        ("walcast_source_safe_wal_bytes", "What can be written before the slot is lost; -1 for no limit");
    pub const WAL_STAGE: Name = ("walcast_source_wal_stage", "1 for the present stage of the log's budget");
    pub const WINDOW_SECONDS: Name =
        ("walcast_window_seconds", "Age of the oldest event that can be replayed");
    pub const WINDOW_BYTES: Name = ("walcast_window_bytes", "Memory of the journals");
    pub const MIRROR_ROWS: Name = ("walcast_mirror_rows", "Rows in the mirror");
    pub const MIRROR_BYTES: Name = ("walcast_mirror_bytes", "Memory of the mirror");
    pub const CANARY_AGE: Name =
        ("walcast_canary_age_seconds", "Since the newest heartbeat that came through was written");
    pub const STATE: Name = ("walcast_state", "1 for the present state of readiness");
    pub const REASONS: Name = ("walcast_degraded_reasons", "Things that the worker can't do at present");
    pub const BUILD: Name = ("walcast_build", "The worker's version");
    pub const RESIDENT_BYTES: Name = ("process_resident_memory_bytes", "Resident memory");
    pub const START_TIME_SECONDS: Name =
        ("process_start_time_seconds", "When the process started, since 1970");
}

/// How a request for a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the wire's spelling")]
pub enum Outcome {
    opened,
    /// As opened, after an id of the client's.
    resumed,
    bad_request,
    unauthorized,
    forbidden,
    limited,
    /// Not now: starting, draining, stale.
    unavailable,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the wire's spelling")]
pub enum End {
    client_closed,
    write_timeout,
    expired,
    revoked,
    evicted,
    drained,
    /// It took so little that what has no id was lost to it.
    lagging,
    failed,
}

/// How a run of a live preset's query ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the wire's spelling")]
pub enum LiveRun {
    answered,
    /// Its answer is larger than an event may be.
    oversize,
    /// The database refused it, or was not there.
    failed,
}

/// Whether the slot's log is within its budget, and who holds it where it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the wire's spelling")]
pub enum WalStage {
    within,
    /// The window is given up before `max_slot_wal_keep_size` is reached.
    yielding,
    /// An open transaction keeps more than the budget.
    held,
    lost,
}

impl WalStage {
    const ALL: [Self; 4] = [Self::within, Self::yielding, Self::held, Self::lost];
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: WalStage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpenLabels {
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    reason: End,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LiveLabels {
    outcome: LiveRun,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SyncLabels {
    reason: &'static str,
}

/// A gauge over the whole range of a position.
pub type Level = Gauge<u64, AtomicU64>;

/// Every metric; clones are the same ones. Fields without labels are used as they are: `metrics.events.inc()`.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub transactions: Counter,
    pub changes: Counter,
    pub spooled: Counter,
    pub events: Counter,
    pub event_bytes: Counter,
    pub oversize: Counter,
    pub emit_refused: Counter,
    pub expression_errors: Counter,
    pub frames_written: Counter,
    pub bytes_written: Counter,
    pub writes: Counter,
    pub live_updates: Counter,
    pub streams: Gauge,
    pub reconnects: Counter,
    pub confirmed_lsn: Level,
    pub head_lsn: Level,
    pub lag_bytes: Level,
    pub pinned_bytes: Level,
    pub restart_bytes: Level,
    pub safe_bytes: Gauge,
    pub window_seconds: Level,
    pub window_bytes: Level,
    pub mirror_rows: Level,
    pub mirror_bytes: Level,
    canary_age: CanaryAge,
    opens: Family<OpenLabels, Counter>,
    ends: Family<EndLabels, Counter>,
    syncs: Family<SyncLabels, Counter>,
    live_runs: Family<LiveLabels, Counter>,
    stages: Family<StageLabels, Gauge>,
    registry: Arc<Registry>,
}

impl Metrics {
    #[must_use]
    pub fn new(readiness: &Readiness) -> Self {
        let mut registry = Registry::default();
        let counter = |registry: &mut Registry, (name, help): names::Name| {
            let metric = Counter::default();
            registry.register(name, help, metric.clone());
            metric
        };
        let level = |registry: &mut Registry, (name, help): names::Name| {
            let metric = Level::default();
            registry.register(name, help, metric.clone());
            metric
        };
        let mut metrics = Self {
            transactions: counter(&mut registry, names::TRANSACTIONS),
            changes: counter(&mut registry, names::CHANGES),
            spooled: counter(&mut registry, names::SPOOLED),
            events: counter(&mut registry, names::EVENTS),
            event_bytes: counter(&mut registry, names::EVENT_BYTES),
            oversize: counter(&mut registry, names::OVERSIZE),
            emit_refused: counter(&mut registry, names::EMIT_REFUSED),
            expression_errors: counter(&mut registry, names::EXPRESSION_ERRORS),
            frames_written: counter(&mut registry, names::FRAMES_WRITTEN),
            bytes_written: counter(&mut registry, names::BYTES_WRITTEN),
            writes: counter(&mut registry, names::WRITES),
            live_updates: counter(&mut registry, names::LIVE_UPDATES),
            streams: Gauge::default(),
            reconnects: counter(&mut registry, names::RECONNECTS),
            confirmed_lsn: level(&mut registry, names::CONFIRMED_LSN),
            head_lsn: level(&mut registry, names::HEAD_LSN),
            lag_bytes: level(&mut registry, names::LAG_BYTES),
            pinned_bytes: level(&mut registry, names::PINNED_BYTES),
            restart_bytes: level(&mut registry, names::RESTART_BYTES),
            safe_bytes: Gauge::default(),
            window_seconds: level(&mut registry, names::WINDOW_SECONDS),
            window_bytes: level(&mut registry, names::WINDOW_BYTES),
            mirror_rows: level(&mut registry, names::MIRROR_ROWS),
            mirror_bytes: level(&mut registry, names::MIRROR_BYTES),
            canary_age: CanaryAge::default(),
            opens: Family::default(),
            ends: Family::default(),
            syncs: Family::default(),
            live_runs: Family::default(),
            stages: Family::default(),
            registry: Arc::default(),
        };
        registry.register(names::STREAMS.0, names::STREAMS.1, metrics.streams.clone());
        registry.register_collector(Box::new(metrics.canary_age.clone()));
        registry.register(names::OPENS.0, names::OPENS.1, metrics.opens.clone());
        registry.register(names::ENDS.0, names::ENDS.1, metrics.ends.clone());
        registry.register(names::SAFE_BYTES.0, names::SAFE_BYTES.1, metrics.safe_bytes.clone());
        registry.register(names::WAL_STAGE.0, names::WAL_STAGE.1, metrics.stages.clone());
        registry.register(names::SYNCS.0, names::SYNCS.1, metrics.syncs.clone());
        registry.register(names::LIVE_RUNS.0, names::LIVE_RUNS.1, metrics.live_runs.clone());
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register(names::BUILD.0, names::BUILD.1, build);
        registry.register_collector(Box::new(Process::new()));
        registry.register_collector(Box::new(Standing(readiness.clone())));
        metrics.registry = Arc::new(registry);
        metrics
    }

    /// Counts a request for a stream.
    pub fn opened(&self, outcome: Outcome) {
        self.opens.get_or_create(&OpenLabels { outcome }).inc();
    }

    /// Tells the canary's age; none while there is no canary: the metric is absent then, and not 0.
    pub fn canary_age(&self, age: Option<Duration>) {
        let seconds = age.map_or(f64::NAN, |age| age.as_secs_f64());
        self.canary_age.0.store(seconds.to_bits(), Ordering::Relaxed);
    }

    /// Counts a stream's end.
    pub fn ended(&self, reason: End) {
        self.ends.get_or_create(&EndLabels { reason }).inc();
    }

    /// Counts a `data.sync`; `reason` is the wire's word for it.
    pub fn synced(&self, reason: &'static str) {
        self.syncs.get_or_create(&SyncLabels { reason }).inc();
    }

    /// Counts a run of a live preset's query.
    pub fn ran_live(&self, outcome: LiveRun) {
        self.live_runs.get_or_create(&LiveLabels { outcome }).inc();
    }

    /// The present stage of the log's budget.
    pub fn wal_stage(&self, present: WalStage) {
        for stage in WalStage::ALL {
            self.stages.get_or_create(&StageLabels { stage }).set(i64::from(stage == present));
        }
    }

    /// The exposition, of [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail; a collector's error would leave what came before it.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// The process's resident memory in bytes, where the platform tells.
    #[must_use]
    pub fn resident_bytes() -> Option<u64> {
        super::process::resident_bytes()
    }
}

/// The canary's age in seconds, as bits; not a number while nobody knows it, and then no metric.
#[derive(Clone, Debug)]
struct CanaryAge(Arc<AtomicU64>);

impl Default for CanaryAge {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(f64::NAN.to_bits())))
    }
}

impl Collector for CanaryAge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let seconds = f64::from_bits(self.0.load(Ordering::Relaxed));
        if seconds.is_nan() {
            return Ok(());
        }
        let gauge = ConstGauge::new(seconds);
        let (name, help) = names::CANARY_AGE;
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
    }
}

/// Readiness as a state set.
#[derive(Debug)]
struct Standing(Readiness);

impl Collector for Standing {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let snapshot = self.0.snapshot();
        let present = snapshot.state();
        let (name, help) = names::STATE;
        let kind = ConstGauge::new(0i64).metric_type();
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for state in State::ALL {
            let gauge = ConstGauge::new(i64::from(state == present));
            gauge.encode(family.encode_family(&[("state", state.word())])?)?;
        }
        let gauge = ConstGauge::new(u64::try_from(snapshot.reasons().count()).unwrap_or(u64::MAX));
        let (name, help) = names::REASONS;
        gauge.encode(encoder.encode_descriptor(name, help, None, kind)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::readiness::{Phase, Reason};
    use super::*;

    #[test]
    fn a_scrape_carries_what_was_counted_and_names_nobody() {
        let readiness = Readiness::new();
        let metrics = Metrics::new(&readiness);
        metrics.transactions.inc_by(3);
        metrics.streams.inc();
        metrics.head_lsn.set(u64::MAX);
        metrics.opened(Outcome::bad_request);
        metrics.ended(End::write_timeout);
        metrics.synced("slow_consumer");
        let text = metrics.encode();
        for line in [
            "walcast_transactions_total 3",
            "walcast_streams 1",
            "walcast_source_head_lsn 18446744073709551615",
            "walcast_stream_opens_total{outcome=\"bad_request\"} 1",
            "walcast_stream_ends_total{reason=\"write_timeout\"} 1",
            "walcast_syncs_total{reason=\"slow_consumer\"} 1",
            "walcast_state{state=\"starting\"} 1",
            "walcast_state{state=\"ready\"} 0",
            "walcast_build_info{version=\"0.1.0\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("organization"));
    }

    #[test]
    fn the_state_follows_readiness() {
        let readiness = Readiness::new();
        let metrics = Metrics::new(&readiness);
        readiness.enter(Phase::Live);
        readiness.degrade("slot", Reason::new("the slot is lost"));
        let text = metrics.encode();
        assert!(text.contains("walcast_state{state=\"degraded\"} 1\n"), "{text}");
        assert!(text.contains("walcast_degraded_reasons 1\n"), "{text}");
    }

    #[test]
    fn without_a_canary_it_has_no_age() {
        let metrics = Metrics::new(&Readiness::new());
        let told = |metrics: &Metrics| metrics.encode().contains("walcast_canary_age_seconds 1.5\n");
        assert!(!metrics.encode().contains("\nwalcast_canary_age_seconds "));
        metrics.canary_age(Some(Duration::from_millis(1500)));
        assert!(told(&metrics), "{}", metrics.encode());
        metrics.canary_age(None);
        assert!(!metrics.encode().contains("\nwalcast_canary_age_seconds "));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn resident_memory_is_told() {
        assert!(Metrics::resident_bytes().unwrap() > 1 << 20);
        assert!(Metrics::new(&Readiness::new()).encode().contains("process_resident_memory_bytes "));
    }
}
