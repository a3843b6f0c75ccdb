//! Once a second: what readiness and metrics say of the pipeline.

use crate::catalog::{Counters, Mapper};
use crate::journal::Journals;
use crate::mirror::Mirror;
use crate::postgres::PgTimestamp;
use crate::postgres::schema::TableName;
use crate::source::Source;
use crate::telemetry::{Metrics, Readiness, Reason};

/// What was told in the last round.
#[derive(Debug, Default)]
pub(super) struct Housekeeping {
    counters: Counters,
    revision: u64,
    /// The keys of the mapper's problems among readiness's reasons.
    problems: Vec<String>,
    /// The same of mirrored columns that are gone.
    gone: Vec<String>,
}

impl Housekeeping {
    pub(super) fn tell(
        &mut self,
        source: &Source,
        mirror: &Mirror,
        mapper: &Mapper,
        journals: &Journals,
        readiness: &Readiness,
        metrics: &Metrics,
    ) {
        self.count(mapper.counters(), metrics);
        if self.revision != mapper.problems_revision() {
            self.revision = mapper.problems_revision();
            self.tell_problems(mapper, readiness);
        }
        self.tell_gone(mirror, readiness);
        let (head, confirmed) = (journals.head(), source.confirmed());
        metrics.head_lsn.set(head.as_u64());
        metrics.confirmed_lsn.set(confirmed.as_u64());
        metrics.lag_bytes.set(source.server_head().bytes_since(head));
        metrics.pinned_bytes.set(source.server_head().max(head).bytes_since(confirmed));
        metrics.window_bytes.set(journals.bytes());
        let oldest = journals.oldest_commit_millis();
        let age_millis = oldest.map_or(0, |oldest| PgTimestamp::now().unix_millis().saturating_sub(oldest));
        metrics.window_seconds.set(u64::try_from(age_millis / 1000).unwrap_or(0));
        metrics.mirror_bytes.set(mirror.bytes());
        metrics.mirror_rows.set(mirror.rows());
    }

    fn count(&mut self, now: Counters, metrics: &Metrics) {
        let before = std::mem::replace(&mut self.counters, now);
        metrics.events.inc_by(now.events - before.events);
        metrics.oversize.inc_by(now.oversize - before.oversize);
        metrics.emit_refused.inc_by(now.refused_emits - before.refused_emits);
        metrics.expression_errors.inc_by(now.failed_expressions - before.failed_expressions);
    }

    /// Every problem is a reason of its own; what is no problem any more is mended.
    fn tell_problems(&mut self, mapper: &Mapper, readiness: &Readiness) {
        let told = std::mem::take(&mut self.problems);
        for problem in mapper.problems() {
            let key = format!("{} {}", problem.kind, problem.text);
            let reason = Reason { text: problem.text.clone(), sql: problem.sql.clone() };
            readiness.degrade(key.clone(), reason);
            self.problems.push(key);
        }
        for key in told.iter().filter(|key| !self.problems.contains(key)) {
            readiness.mend(key);
        }
    }

    fn tell_gone(&mut self, mirror: &Mirror, readiness: &Readiness) {
        let missing = mirror.missing();
        let key = |(table, column): &(TableName, String)| format!("mirror {table}.{column}");
        let told = std::mem::replace(&mut self.gone, missing.iter().map(key).collect());
        for (place, (table, column)) in missing.iter().enumerate() {
            let Some(key) = self.gone.get(place).filter(|key| !told.contains(key)) else { continue };
            let text =
                format!("table {table} has no column {column:?} any more: to lookups and access it is null");
            readiness.degrade(key.clone(), Reason::new(text));
        }
        for key in told.iter().filter(|key| !self.gone.contains(key)) {
            readiness.mend(key);
        }
    }
}
