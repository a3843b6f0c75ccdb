//! What a run came to, for people and for docs/torture.md.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use walcast::source::Kind;

use super::check::Verdict;
use super::fault::Fault;

pub struct Report {
    pub source: Kind,
    pub seed: u64,
    /// Its window is bounded by memory.
    pub tight: bool,
    pub length: Duration,
    pub transactions: u64,
    pub events: u64,
    pub rolled_back: u64,
    pub savepoints: u64,
    pub in_doubt: u64,
    /// Transactions that stood still for a while before they committed.
    pub long: u64,
    pub bulky: u64,
    pub standings: u64,
    pub readers: u64,
    pub opened: u64,
    pub resumes: u64,
    pub stalls: u64,
    pub faults: BTreeMap<Fault, u64>,
    pub verdict: Verdict,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [missed, duplicated, reordered, foreign, untold, unfounded, wrong] = self.verdict.counts();
        let Verdict { delivered, revoked, told, evidence, .. } = &self.verdict;
        for line in evidence {
            writeln!(f, "  {line}")?;
        }
        let window = if self.tight { ", a window of 2 MiB" } else { "" };
        writeln!(f, "source {}, seed {}, {} s{window}", self.source, self.seed, self.length.as_secs())?;
        writeln!(
            f,
            "transactions {} committed ({} events), {} rolled back, {} savepoints undone, {} in doubt when a connection broke, {} long, {} of megabytes",
            self.transactions,
            self.events,
            self.rolled_back,
            self.savepoints,
            self.in_doubt,
            self.long,
            self.bulky
        )?;
        writeln!(
            f,
            "streams {} readers, {} opened, {} resumed, {} stalled, {revoked} revoked, {delivered} events delivered",
            self.readers, self.opened, self.resumes, self.stalls
        )?;
        let faults: Vec<_> = self.faults.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect();
        writeln!(f, "faults {}: {}", self.faults.values().sum::<u64>(), faults.join(", "))?;
        let told: BTreeMap<_, _> = told.iter().collect();
        writeln!(f, "memberships and roles {} changes; data.sync told {told:?}", self.standings)?;
        write!(
            f,
            "missed {missed}, duplicated {duplicated}, reordered {reordered}, foreign {foreign}, untold {untold}, unfounded {unfounded}, wrong {wrong}"
        )
    }
}
