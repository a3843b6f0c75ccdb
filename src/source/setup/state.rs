//! The live state that a plan starts from.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Error};

use super::Requirements;
use crate::postgres::schema::TableName;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) server: Server,
    pub(super) role: Role,
    pub(super) publication: Option<Publication>,
    pub(super) slot: Option<Slot>,
    pub(super) grantee: Option<Grantee>,
    pub(super) outbox: Option<Outbox>,
    /// The first virtual generated column of each table that has one.
    pub(super) virtual_columns: BTreeMap<TableName, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Server {
    /// As `server_version_num`.
    pub(super) version: i32,
    pub(super) wal_level: String,
    pub(super) in_recovery: bool,
    pub(super) max_slots: i64,
    pub(super) used_slots: i64,
    /// `max_slot_wal_keep_size`; none is no limit.
    pub(super) keep_size_mib: Option<i64>,
}

/// Who sets up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) may_replicate: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Publication {
    pub(super) all_tables: bool,
    /// Publishes every operation, partitions as their root, and stored generated columns where that can be chosen.
    pub(super) complete: bool,
    /// Whether each is published in part: some rows, or some columns.
    pub(super) tables: BTreeMap<TableName, bool>,
    pub(super) schemas: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slot {
    /// This database's, permanent, for pgoutput.
    pub(super) ours: bool,
    /// Sends transactions when they are prepared, which is before they are committed, if ever.
    pub(super) two_phase: bool,
    pub(super) lost: bool,
    pub(super) active: bool,
}

/// The role that the worker runs as; none when it does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Grantee {
    pub(super) may_replicate: bool,
    pub(super) schemas_without_usage: Vec<String>,
    pub(super) tables_without_select: Vec<TableName>,
}

/// What `walcast migrate` made; none before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outbox {
    /// What is set up, as `walcast.meta` spells it.
    pub(super) source: Option<String>,
    /// Where it ends, in bytes, or nowhere; none in a schema that does not know of an end.
    pub(super) limit: Option<Option<i64>>,
    /// The triggers that write it, and whether each fires always.
    pub(super) triggers: BTreeMap<(TableName, String), bool>,
    /// Copies of them on partitions that do not.
    pub(super) silent: Vec<(TableName, String)>,
    /// There are rows in it.
    pub(super) filled: bool,
}

const SERVER: &str = "
select current_setting('server_version_num')::int, current_setting('wal_level'), pg_is_in_recovery(),
       current_setting('max_replication_slots')::bigint,
       (select count(*) from pg_catalog.pg_replication_slots),
       current_user::text, r.rolsuper or r.rolreplication,
       (select nullif(setting::bigint, -1) from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size')
  from pg_catalog.pg_roles r where r.rolname = current_user";

const PUBLICATION: &str = "
select oid, puballtables, pubinsert and pubupdate and pubdelete and pubtruncate and pubviaroot
                          and coalesce(to_jsonb(p) ->> 'pubgencols', 's') = 's'
  from pg_catalog.pg_publication p where pubname = $1";

const VIRTUAL_COLUMNS: &str = "
select distinct on (1, 2) n.nspname::text, c.relname::text, a.attname::text
  from pg_catalog.pg_attribute a
  join pg_catalog.pg_class c on c.oid = a.attrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where a.attgenerated = 'v' and not a.attisdropped order by 1, 2, a.attnum";

/// Row filters and column lists came with PostgreSQL 15; through json their columns may be missing.
const PUBLISHED_TABLES: &str = "
select n.nspname::text, c.relname::text,
       coalesce(to_jsonb(r) ->> 'prqual', to_jsonb(r) ->> 'prattrs') is not null
  from pg_catalog.pg_publication_rel r
  join pg_catalog.pg_class c on c.oid = r.prrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where r.prpubid = $1";

const PUBLISHED_SCHEMAS_SINCE: i32 = 150_000;
const PUBLISHED_SCHEMAS: &str = "
select n.nspname::text from pg_catalog.pg_publication_namespace p
  join pg_catalog.pg_namespace n on n.oid = p.pnnspid
 where p.pnpubid = $1 order by 1";

const SLOT: &str = "
select coalesce(plugin = 'pgoutput' and database = current_database() and not temporary, false),
       (restart_lsn is null or wal_status = 'lost') and not active, active, two_phase
  from pg_catalog.pg_replication_slots where slot_name = $1";

const GRANTEE: &str = "select rolsuper or rolreplication from pg_catalog.pg_roles where rolname = $1";

const WITHOUT_USAGE: &str = "
select n.nspname::text from pg_catalog.pg_namespace n
 where n.nspname = any ($2) and not pg_catalog.has_schema_privilege($1, n.oid, 'usage') order by 1";

const WITHOUT_SELECT: &str = "
select n.nspname::text, c.relname::text
  from unnest($2::text[], $3::text[]) as wanted(schema, name)
  join pg_catalog.pg_namespace n on n.nspname = wanted.schema
  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = wanted.name
 where c.relkind in ('r', 'p') and not pg_catalog.has_table_privilege($1, c.oid, 'select') order by 1, 2";

/// A role that only replicates may have no right to enter the schema; whoever sets up may read all of it.
const OUTBOX: &str = "
select pg_catalog.has_table_privilege(c.oid, 'select')
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where n.nspname = 'walcast' and c.relname = 'outbox' and pg_catalog.has_schema_privilege(n.oid, 'usage')";
const META: &str = "
select source, to_jsonb(m) ? 'outbox_limit', (to_jsonb(m) ->> 'outbox_limit')::bigint from walcast.meta m";
const FILLED: &str = "select exists (select from walcast.outbox)";

/// A partition has copies of its root's.
const TRIGGERS: &str = "
select n.nspname::text, c.relname::text, t.tgname::text, t.tgenabled = 'A', t.tgparentid <> 0
  from pg_catalog.pg_trigger t
  join pg_catalog.pg_class c on c.oid = t.tgrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_proc f on f.oid = t.tgfoid and f.proname = 'outbox_change'
  join pg_catalog.pg_namespace w on w.oid = f.pronamespace and w.nspname = 'walcast'
 order by 1, 2, 3";

impl State {
    pub(super) async fn fetch(client: &Client, requirements: &Requirements) -> Result<Self, Error> {
        let row = client.query_one(SERVER, &[]).await?;
        let server = Server {
            version: row.try_get(0)?,
            wal_level: row.try_get(1)?,
            in_recovery: row.try_get(2)?,
            max_slots: row.try_get(3)?,
            used_slots: row.try_get(4)?,
            keep_size_mib: row.try_get(7)?,
        };
        let role = Role { name: row.try_get(5)?, may_replicate: row.try_get(6)? };
        let publication = fetch_publication(client, &requirements.publication, server.version).await?;
        let slot = match client.query_opt(SLOT, &[&requirements.slot]).await? {
            Some(row) => Some(Slot {
                ours: row.try_get(0)?,
                lost: row.try_get(1)?,
                active: row.try_get(2)?,
                two_phase: row.try_get(3)?,
            }),
            None => None,
        };
        let grantee = match &requirements.grant_to {
            Some(role) => fetch_grantee(client, role, requirements).await?,
            None => None,
        };
        let outbox = fetch_outbox(client).await?;
        let mut virtual_columns = BTreeMap::new();
        for row in client.query(VIRTUAL_COLUMNS, &[]).await? {
            let table = TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
            virtual_columns.insert(table, row.try_get(2)?);
        }
        Ok(Self { server, role, publication, slot, grantee, outbox, virtual_columns })
    }
}

async fn fetch_publication(
    client: &Client,
    name: &str,
    server_version: i32,
) -> Result<Option<Publication>, Error> {
    let Some(row) = client.query_opt(PUBLICATION, &[&name]).await? else {
        return Ok(None);
    };
    let oid: u32 = row.try_get(0)?;
    let mut publication =
        Publication { all_tables: row.try_get(1)?, complete: row.try_get(2)?, ..Publication::default() };
    for row in client.query(PUBLISHED_TABLES, &[&oid]).await? {
        let table = TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
        publication.tables.insert(table, row.try_get(2)?);
    }
    if server_version >= PUBLISHED_SCHEMAS_SINCE {
        for row in client.query(PUBLISHED_SCHEMAS, &[&oid]).await? {
            publication.schemas.push(row.try_get(0)?);
        }
    }
    Ok(Some(publication))
}

async fn fetch_outbox(client: &Client) -> Result<Option<Outbox>, Error> {
    let Some(row) = client.query_opt(OUTBOX, &[]).await? else {
        return Ok(None);
    };
    let meta = client.query_one(META, &[]).await?;
    let limit = if meta.try_get(1)? { Some(meta.try_get(2)?) } else { None };
    let mut outbox = Outbox { source: meta.try_get(0)?, limit, ..Outbox::default() };
    if row.try_get(0)? {
        outbox.filled = client.query_one(FILLED, &[]).await?.try_get(0)?;
    }
    for row in client.query(TRIGGERS, &[]).await? {
        let table = TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
        let (name, fires, copy): (String, bool, bool) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        if !copy {
            outbox.triggers.insert((table, name), fires);
        } else if !fires {
            outbox.silent.push((table, name));
        }
    }
    Ok(Some(outbox))
}

async fn fetch_grantee(
    client: &Client,
    role: &str,
    requirements: &Requirements,
) -> Result<Option<Grantee>, Error> {
    let Some(row) = client.query_opt(GRANTEE, &[&role]).await? else {
        return Ok(None);
    };
    let mut grantee = Grantee { may_replicate: row.try_get(0)?, ..Grantee::default() };
    let schemas: Vec<&str> = requirements.tables.iter().map(|(table, _)| table.schema.as_str()).collect();
    let names: Vec<&str> = requirements.tables.iter().map(|(table, _)| table.name.as_str()).collect();
    for row in client.query(WITHOUT_USAGE, &[&role, &schemas]).await? {
        grantee.schemas_without_usage.push(row.try_get(0)?);
    }
    for row in client.query(WITHOUT_SELECT, &[&role, &schemas, &names]).await? {
        let table = TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
        grantee.tables_without_select.push(table);
    }
    Ok(Some(grantee))
}
