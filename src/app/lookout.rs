//! Whether the database still has what `setup` made: asked now and then, told by readiness.
//!
//! A task of its own, since the log carries nothing of it: a table that is dropped, or made again, or taken out of the
//! publication is only silent.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::prepare::Prepared;
use crate::catalog::Identity;
use crate::config::Config;
use crate::postgres::schema::TableName;
use crate::postgres::{Dsn, client};
use crate::source::setup::{IdentityNeed, Problem, shortfalls};
use crate::telemetry::{Readiness, Reason};

/// How long something may be undone before it is told. A round costs a connection and one query of the catalogs.
const INTERVAL: Duration = Duration::from_secs(10);

/// A round that takes longer is given up: that the database does not answer is the source's to tell.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Lookout {
    dsn: Dsn,
    publication: String,
    tables: Vec<(TableName, IdentityNeed)>,
    readiness: Readiness,
    /// What was told in the last round: readiness's keys.
    told: Vec<String>,
}

impl Lookout {
    pub(super) fn new(config: &Config, dsn: Dsn, prepared: &Prepared, readiness: Readiness) -> Self {
        let mut tables: BTreeMap<TableName, IdentityNeed> =
            prepared.mirror_specs.iter().map(|spec| (spec.table.clone(), IdentityNeed::Default)).collect();
        for need in prepared.compiled.identity_needs() {
            let identity = match need.identity {
                Identity::Default => IdentityNeed::Default,
                Identity::Full => IdentityNeed::Full,
            };
            tables.insert(need.table.clone(), identity);
        }
        let publication = config.source.publication.clone();
        Self { dsn, publication, tables: tables.into_iter().collect(), readiness, told: Vec::new() }
    }

    /// Asks, tells, and begins again, for ever.
    pub(super) async fn run(mut self) {
        let mut rounds = interval(INTERVAL);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            match timeout(PATIENCE, self.ask()).await {
                Ok(Some(problems)) => self.tell(&problems),
                Ok(None) | Err(_) => {}
            }
        }
    }

    async fn ask(&self) -> Option<Vec<Problem>> {
        let client = match client::connect(&self.dsn).await {
            Ok(client) => client,
            Err(error) => {
                tracing::debug!(%error, "what setup made could not be looked at");
                return None;
            }
        };
        match shortfalls(&client, &self.publication, &self.tables).await {
            Ok(problems) => Some(problems),
            Err(error) => {
                tracing::debug!(%error, "what setup made could not be looked at");
                None
            }
        }
    }

    fn tell(&mut self, problems: &[Problem]) {
        let told = std::mem::take(&mut self.told);
        for problem in problems {
            let key = format!("setup {}", problem.text);
            let sql = problem.sql.as_ref().map(|sql| format!("{sql};"));
            self.readiness.degrade(key.clone(), Reason { text: problem.text.clone(), sql });
            self.told.push(key);
        }
        for key in told.iter().filter(|key| !self.told.contains(key)) {
            self.readiness.mend(key);
        }
    }
}
