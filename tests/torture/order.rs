//! The order of commits as Postgres itself tells it: a slot that only the judge reads, over a publication of its own.

use std::collections::HashMap;

use walcast::postgres::dsn::Dsn;

use super::check::{Committed, Facts, Placed};
use super::reader::Micros;
use super::writer::{self, Ledger};

/// Every counted transaction writes its number there.
pub const LEDGER: &str = "create schema torture;
     create table torture.ledger (number bigint primary key, xid text not null);
     create publication torture for table torture.ledger;";

pub const SLOT: &str = "select pg_create_logical_replication_slot('torture', 'pgoutput')";

/// Binary messages, of which only `Begin` is read: position of the commit, time, transaction.
const READ: &str = "select encode(substring(data from 2 for 8), 'hex'), encode(substring(data from 10 for 8), 'hex'),
       encode(substring(data from 18 for 4), 'hex')
  from pg_logical_slot_get_binary_changes('torture', null, null, 'proto_version', '1', 'publication_names', 'torture')
 where get_byte(data, 0) = ascii('B')";

/// From 1970 to 2000, where the server's times begin.
const EPOCH: Micros = 946_684_800_000_000;

/// What was read so far: a transaction's id, position and time.
#[derive(Default)]
pub struct Order {
    commits: Vec<(u64, u64, Micros)>,
}

impl Order {
    /// What committed since it was last read. While nobody restarts the server: what is read is gone from there.
    pub async fn read(&mut self, dsn: &Dsn) {
        let session = writer::connect(dsn).await;
        for row in session.query(READ, &[]).await.expect("the order of commits") {
            let number = |at| u64::from_str_radix(row.get(at), 16).expect("a number");
            self.commits.push((number(2), number(0), EPOCH + number(1).cast_signed()));
        }
    }

    /// All events that committed, in that order, and what is known of the commits beside.
    pub async fn history(&mut self, dsn: &Dsn, ledger: &Ledger) -> (Vec<Committed>, Facts) {
        self.read(dsn).await;
        let session = writer::connect(dsn).await;
        let rows = session.query("select number, xid from torture.ledger", &[]).await.expect("the ledger");
        let numbers: HashMap<u64, u64> = rows
            .iter()
            .map(|row| {
                let (number, xid): (i64, String) = (row.get(0), row.get(1));
                (xid.parse().expect("an id"), u64::try_from(number).expect("a number"))
            })
            .collect();
        let mut committed = ledger.committed.lock().expect("no writer panicked").clone();
        let (mut history, mut facts) = (Vec::new(), Facts::default());
        for (xid, lsn, time) in &self.commits {
            let (lsn, time) = (*lsn, *time);
            facts.commits.push((lsn, time));
            let Some(done) = numbers.get(xid).and_then(|number| committed.remove(number)) else { continue };
            history.extend(done.events.into_iter().map(|event| Committed { lsn, event }));
            facts.placed.extend(done.standing.map(|standing| Placed { lsn, time, standing }));
        }
        assert!(committed.is_empty(), "committed, and not decoded by the server itself: {committed:?}");
        assert!(facts.commits.is_sorted(), "the order of commits is theirs in the log");
        (history, facts)
    }
}
