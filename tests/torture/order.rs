//! The order of commits, by which everything is judged.
//!
//! Of the log it is what Postgres itself decodes, for a slot that only the judge reads, over a publication of its own.
//! Of the outbox it is the durable numbering; a trigger of the judge's keeps every place that was ever given. What
//! that order may not be, only the writers know: whatever had committed before a transaction began comes before it.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use walcast::postgres::dsn::Dsn;
use walcast::source::Kind;

use super::check::{Acknowledged, Committed, Facts, Placed};
use super::deed::Expected;
use super::reader::Micros;
use super::writer::{self, Done, Ledger};

/// Every counted transaction writes its number there.
const LEDGER: &str =
    "create schema torture; create table torture.ledger (number bigint primary key, xid text not null);";

const PUBLICATION: &str = "create publication torture for table torture.ledger";

const SLOT: &str = "select pg_create_logical_replication_slot('torture', 'pgoutput')";

/// Pruning takes places away again.
const PLACES: &str = "
create table torture.places (position bigint, xid text, numbered_at timestamptz);
create function torture.place() returns trigger language plpgsql as
$$begin insert into torture.places values (new.position, new.xid::text, new.numbered_at); return null; end$$;
create trigger place after insert on walcast.outbox_transactions for each row execute function torture.place();";

/// Binary messages, of which only `Begin` is read: position of the commit, time, transaction.
const DECODED: &str = "select encode(substring(data from 2 for 8), 'hex'), encode(substring(data from 10 for 8), 'hex'),
       encode(substring(data from 18 for 4), 'hex')
  from pg_logical_slot_get_binary_changes('torture', null, null, 'proto_version', '1', 'publication_names', 'torture')
 where get_byte(data, 0) = ascii('B')";

const NUMBERED: &str = "select to_hex(position), to_hex((date_part('epoch', numbered_at) * 1000000)::bigint),
       to_hex(xid::bigint) from torture.places order by position";

/// From 1970 to 2000, where the server's times begin.
const EPOCH: Micros = 946_684_800_000_000;

/// How long a worker may take to number what has committed.
const NUMBERED_WITHIN: Duration = Duration::from_secs(90);

/// What was thrown away before it had a place in the order: when it was written, and what place it would have had.
#[derive(Clone, Debug)]
pub struct Lost {
    pub during: RangeInclusive<Micros>,
    pub at: u64,
}

/// What was read so far: a transaction's id, position and time.
pub struct Order {
    source: Kind,
    commits: Vec<(u64, u64, Micros)>,
}

impl Order {
    pub const fn new(source: Kind) -> Self {
        Self { source, commits: Vec::new() }
    }

    /// What it needs in the database, after `walcast setup`.
    pub async fn prepare(&self, dsn: &Dsn) {
        let statements: &[&str] = match self.source {
            // A slot is made by a transaction that has written nothing.
            Kind::Wal => &[LEDGER, PUBLICATION, SLOT],
            Kind::Outbox => &[LEDGER, PLACES],
        };
        let session = writer::connect(dsn).await;
        for sql in statements {
            session.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }

    /// On a server that was promoted: slots stayed behind.
    pub async fn go_on(&self, dsn: &Dsn) {
        if self.source == Kind::Wal {
            writer::connect(dsn).await.batch_execute(SLOT).await.expect("the judge's slot");
        }
    }

    /// What committed since it was last read. While nobody restarts the server: what is read is gone from there.
    pub async fn read(&mut self, dsn: &Dsn) {
        let session = writer::connect(dsn).await;
        let (sql, epoch) = match self.source {
            Kind::Wal => (DECODED, EPOCH),
            Kind::Outbox => (NUMBERED, 0),
        };
        if self.source == Kind::Outbox {
            self.commits.clear();
        }
        for row in session.query(sql, &[]).await.expect("the order of commits") {
            let number = |at| u64::from_str_radix(row.get(at), 16).expect("a number");
            self.commits.push((number(2), number(0), epoch + number(1).cast_signed()));
        }
    }

    /// All events that committed, in that order, and what is known of the commits beside.
    pub async fn history(&mut self, dsn: &Dsn, ledger: &Ledger, lost: &[Lost]) -> (Vec<Committed>, Facts) {
        let session = writer::connect(dsn).await;
        let rows = session.query("select number, xid from torture.ledger", &[]).await.expect("the ledger");
        let numbers: HashMap<u64, u64> = rows
            .iter()
            .map(|row| {
                let (number, xid): (i64, String) = (row.get(0), row.get(1));
                (xid.parse().expect("an id"), u64::try_from(number).expect("a number"))
            })
            .collect();
        let deadline = Instant::now() + NUMBERED_WITHIN;
        loop {
            self.read(dsn).await;
            let mut left = ledger.committed.lock().expect("no writer panicked").clone();
            for (xid, ..) in &self.commits {
                numbers.get(xid).and_then(|number| left.remove(number));
            }
            left.retain(|_, done| done.says_something() && thrown_away(done, lost).is_none());
            if left.is_empty() {
                break;
            }
            assert!(
                self.source == Kind::Outbox && Instant::now() < deadline,
                "committed, and in no order: {left:?}"
            );
            sleep(Duration::from_millis(300)).await;
        }
        self.judge_by(ledger, &numbers, lost)
    }

    fn judge_by(
        &self,
        ledger: &Ledger,
        numbers: &HashMap<u64, u64>,
        lost: &[Lost],
    ) -> (Vec<Committed>, Facts) {
        let mut committed = ledger.committed.lock().expect("no writer panicked").clone();
        let (mut history, mut facts) = (Vec::new(), Facts::default());
        for (xid, lsn, time) in &self.commits {
            let (lsn, time) = (*lsn, *time);
            facts.commits.push((lsn, time));
            let Some(done) = numbers.get(xid).and_then(|number| committed.remove(number)) else { continue };
            facts.acknowledged.extend(done.during.map(|(began, ended)| Acknowledged { lsn, began, ended }));
            history.extend(done.events.into_iter().map(|event| Committed { lsn, event }));
            facts.placed.extend(done.standing.map(|standing| Placed { lsn, time, standing }));
        }
        for done in committed.into_values() {
            if let Some(lsn) = thrown_away(&done, lost) {
                history.extend(done.events.into_iter().map(|event| Committed { lsn, event }));
            }
        }
        history.sort_by_key(|committed| committed.lsn);
        assert!(facts.commits.is_sorted_by_key(|(lsn, _)| *lsn), "positions are in the order of commits");
        (history, facts)
    }
}

/// Where it would have been.
fn thrown_away(done: &Done, lost: &[Lost]) -> Option<u64> {
    let (began, ended) = done.during?;
    let of = lost.iter().find(|lost| lost.during.contains(&began) && lost.during.contains(&ended))?;
    Some(of.at)
}

/// Proof that what was thrown away is owed in its place, and nothing else is.
///
/// # Panics
/// When it is not.
pub fn prove() {
    let done =
        |began, ended| Done { during: Some((began, ended)), ..Done::of(vec![Expected::sync("x", "y")]) };
    let ledger = Ledger::new(Kind::Outbox);
    let committed = [(1, done(1, 2)), (2, done(8, 9)), (3, done(4, 5)), (4, done(3, 5)), (5, done(4, 7))];
    ledger.committed.lock().expect("nobody writes").extend(committed);
    let order = Order { source: Kind::Outbox, commits: vec![(101, 10, 2), (102, 20, 9), (105, 25, 9)] };
    let numbers = HashMap::from([(101, 1), (102, 2), (105, 5)]);
    let lost = [Lost { during: 4..=6, at: 14 }];
    let (history, facts) = order.judge_by(&ledger, &numbers, &lost);
    assert_eq!(history.iter().map(|committed| committed.lsn).collect::<Vec<_>>(), [10, 14, 20, 25]);
    assert_eq!(facts.acknowledged.len(), 3, "what has no place has no order");
    let left = |during: (Micros, Micros)| thrown_away(&done(during.0, during.1), &lost);
    assert_eq!((left((4, 5)), left((3, 5)), left((5, 7))), (Some(14), None, None));
}
