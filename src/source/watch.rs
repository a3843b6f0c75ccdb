//! What a worker at work must know of its database beside the stream: whether what it needs is still there, how much
//! log its slot keeps and on whose account, and what happened to tables without a trace in the log.
//!
//! Asked over SQL every few seconds. Nothing here is on the way of a transaction: where the answer is late, or none,
//! the stream goes on.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Error, Row};

use super::outbox::triggers;
use super::setup::{self, Requirements, SetupError, Shortcoming};
use super::{Kind, publication};
use crate::postgres::schema::TableName;

const MIB: i64 = 1 << 20;

/// The database as it was when asked.
#[derive(Clone, Debug)]
pub struct Report {
    pub shortcomings: Vec<Shortcoming>,
    /// None: there is no slot at present.
    pub slot: Option<SlotReport>,
    /// As [`Identity::publication`](super::Identity); none: there is no publication.
    pub publication: Option<String>,
    /// Every partition with rows, and what is not told when it changes: the file that they are in (another after a
    /// TRUNCATE), and the triggers of an outbox.
    pub partitions: BTreeMap<u32, String>,
}

/// What the slot costs, in bytes of log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotReport {
    pub wal_status: WalStatus,
    /// From `restart_lsn` to the log's end: what the server keeps.
    pub kept: u64,
    /// From `confirmed_flush_lsn` to the log's end: the worker's part of it.
    pub unconfirmed: u64,
    /// What can be written before the slot is lost; none: no limit.
    pub safe: Option<u64>,
    /// `max_slot_wal_keep_size`; none: no limit.
    pub limit: Option<u64>,
    /// A standby that is promoted has it. None before PostgreSQL 17.
    pub failover: Option<bool>,
    /// Lost because nobody read it for longer than `idle_replication_slot_timeout`, which came with PostgreSQL 18.
    pub idled: bool,
    /// The oldest open transaction that writes.
    pub holder: Option<Holder>,
}

/// `pg_replication_slots.wal_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalStatus {
    Reserved,
    /// Beyond `max_wal_size`.
    Extended,
    /// Beyond `max_slot_wal_keep_size`: the next checkpoint may remove it.
    Unreserved,
    Lost,
}

/// Whose transaction holds `restart_lsn` where it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Such as `session 4711`.
    pub who: String,
    pub since: String,
    pub to_end_it: String,
}

const SLOT: &str = "
select wal_status,
       coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), restart_lsn), 0)::bigint,
       coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), confirmed_flush_lsn), 0)::bigint,
       safe_wal_size,
       (select nullif(setting::bigint, -1) from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size'),
       (to_jsonb(s) ->> 'failover')::bool,
       coalesce(to_jsonb(s) ->> 'invalidation_reason' = 'idle_timeout', false)
  from pg_catalog.pg_replication_slots s where slot_name = $1 and database = current_database()";

/// As sql/operate/holders.sql has them. Of other roles' sessions only who may read all statistics is told.
const HOLDER: &str = "
select 'session ' || pid, xact_start::text, format('select pg_terminate_backend(%s);', pid), age(backend_xid) as age
  from pg_catalog.pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
union all
select 'prepared transaction ' || gid, prepared::text, format('rollback prepared %L;', gid), age(transaction)
  from pg_catalog.pg_prepared_xacts
 order by age desc limit 1";

const PARTITIONS: &str = "
select p.relid::oid, pg_catalog.pg_relation_filenode(p.relid) || coalesce(
       (select pg_catalog.string_agg(pg_catalog.concat(' ', t.xmin, t.tgenabled), '' order by t.oid)
          from pg_catalog.pg_trigger t
          join pg_catalog.pg_proc f on f.oid = t.tgfoid and f.proname = 'outbox_change'
          join pg_catalog.pg_namespace w on w.oid = f.pronamespace and w.nspname = 'walcast'
         where t.tgrelid = p.relid), '')
  from unnest($1::text[], $2::text[]) as wanted(schema, name)
  join pg_catalog.pg_namespace n on n.nspname = wanted.schema
  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = wanted.name and c.relkind = 'p'
 cross join lateral pg_catalog.pg_partition_tree(c.oid) p
 where p.isleaf";

impl Report {
    /// Asks; each question in a transaction of its own.
    ///
    /// # Errors
    /// The connection broke, or a question was refused.
    pub async fn fetch(client: &Client, requirements: &Requirements) -> Result<Self, SetupError> {
        let shortcomings = setup::shortcomings(client, requirements).await?;
        Self::rest(client, requirements, shortcomings).await.map_err(SetupError::State)
    }

    async fn rest(
        client: &Client,
        requirements: &Requirements,
        shortcomings: Vec<Shortcoming>,
    ) -> Result<Self, Error> {
        let tables: Vec<TableName> = requirements.tables.iter().map(|(table, _)| table.clone()).collect();
        let digest = match requirements.source {
            Kind::Wal => publication::digest_sql(&requirements.publication, &tables),
            Kind::Outbox => triggers::digest_sql(&tables),
        };
        let publication = match client.query_opt(&digest, &[]).await? {
            Some(row) => Some(row.try_get(0)?),
            None => None,
        };
        let slot = match requirements.source {
            Kind::Wal => client.query_opt(SLOT, &[&requirements.slot]).await?,
            Kind::Outbox => None,
        };
        let slot = match slot {
            Some(row) => Some(SlotReport::read(&row, holder(client).await?)?),
            None => None,
        };
        let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        let mut partitions = BTreeMap::new();
        for row in client.query(PARTITIONS, &[&schemas, &names]).await? {
            // None while it is being dropped.
            if let Some(file) = row.try_get(1)? {
                partitions.insert(row.try_get(0)?, file);
            }
        }
        Ok(Self { shortcomings, slot, publication, partitions })
    }

    /// Whether a partition lost its rows, or left, since `before`. One whose rows were rewritten (VACUUM FULL) is
    /// told as if it had lost them.
    #[must_use]
    pub fn cut_since(&self, before: &Self) -> bool {
        before.partitions.iter().any(|(partition, file)| self.partitions.get(partition) != Some(file))
    }
}

impl SlotReport {
    fn read(row: &Row, holder: Option<Holder>) -> Result<Self, Error> {
        let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
        let wal_status = match row.try_get::<_, Option<&str>>(0)? {
            Some("reserved") => WalStatus::Reserved,
            Some("extended") => WalStatus::Extended,
            Some("unreserved") => WalStatus::Unreserved,
            // Null where it never had any.
            _ => WalStatus::Lost,
        };
        let limit = row.try_get::<_, Option<i64>>(4)?.map(|mib| bytes(mib.saturating_mul(MIB)));
        let safe = row.try_get::<_, Option<i64>>(3)?.map(bytes);
        Ok(Self {
            wal_status,
            kept: bytes(row.try_get(1)?),
            unconfirmed: bytes(row.try_get(2)?),
            safe,
            limit,
            failover: row.try_get(5)?,
            idled: row.try_get(6)?,
            holder,
        })
    }

    /// Most of what is kept is an open transaction's: giving the window up would gain little.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.holder.is_some() && self.kept.saturating_sub(self.unconfirmed) > self.unconfirmed
    }
}

async fn holder(client: &Client) -> Result<Option<Holder>, Error> {
    let Some(row) = client.query_opt(HOLDER, &[]).await? else {
        return Ok(None);
    };
    let since: Option<String> = row.try_get(1)?;
    Ok(Some(Holder { who: row.try_get(0)?, since: since.unwrap_or_default(), to_end_it: row.try_get(2)? }))
}

/// The bound of the window's log: `max_wal`, or a quarter of the room that the slot has, since `restart_lsn` follows
/// what is confirmed by up to as much again; and nothing when half of the room is used up, unless somebody else holds
/// it.
#[must_use]
pub fn window_limit(max_wal: u64, slot: &SlotReport) -> u64 {
    let Some(limit) = slot.limit else {
        return max_wal;
    };
    let short = slot.safe.is_some_and(|safe| safe < limit / 2);
    if short && !slot.is_held() { 0 } else { max_wal.min(limit / 4) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(kept: u64, unconfirmed: u64, safe: Option<u64>, limit: Option<u64>) -> SlotReport {
        let wal_status = WalStatus::Reserved;
        SlotReport { wal_status, kept, unconfirmed, safe, limit, failover: None, idled: false, holder: None }
    }

    #[test]
    fn the_window_leaves_the_slot_most_of_its_room() {
        assert_eq!(window_limit(100, &slot(10, 10, None, None)), 100);
        assert_eq!(window_limit(100, &slot(10, 10, Some(990), Some(1000))), 100);
        assert_eq!(window_limit(100, &slot(10, 10, Some(50), Some(60))), 15);
    }

    #[test]
    fn the_window_gives_way_only_where_that_helps() {
        assert_eq!(window_limit(100, &slot(90, 80, Some(10), Some(100))), 0);
        assert_eq!(window_limit(100, &slot(90, 20, Some(10), Some(100))), 0);
        let holder = Holder { who: String::new(), since: String::new(), to_end_it: String::new() };
        let held = SlotReport { holder: Some(holder), ..slot(90, 20, Some(10), Some(100)) };
        assert_eq!(window_limit(100, &held), 25);
        assert_eq!(window_limit(100, &SlotReport { unconfirmed: 80, ..held }), 0);
    }

    #[test]
    fn a_partition_that_left_or_was_rewritten_is_cut_and_a_new_one_is_not() {
        let report = |partitions: &[(u32, u32)]| Report {
            shortcomings: Vec::new(),
            slot: None,
            publication: None,
            partitions: partitions.iter().map(|(oid, file)| (*oid, file.to_string())).collect(),
        };
        let before = report(&[(1, 10), (2, 20)]);
        assert!(!report(&[(1, 10), (2, 20), (3, 30)]).cut_since(&before));
        assert!(report(&[(1, 10)]).cut_since(&before));
        assert!(report(&[(1, 10), (2, 21)]).cut_since(&before));
    }
}
