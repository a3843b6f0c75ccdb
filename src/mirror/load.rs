//! Reading the tables, all in one snapshot.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::{StreamExt, pin_mut};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::key::encode_key;
use super::table::Rows;
use super::{Joining, Mirror, MirrorError, MirrorRow, State, Table};
use crate::postgres::Lsn;
use crate::postgres::schema::{ReplicaIdentity, Schema, SchemaError, TableKind, TableName};
use crate::source::{InvalidSnapshot, Kind, Snapshot};

/// Row security is off so that a table that would be read in part fails: a partial mirror is an error.
const BEGIN: &str =
    "begin transaction isolation level repeatable read read only; set local row_security = off";

/// A commit of our own after everything that was read: the stream passes it soon, also in an idle database.
/// `synchronous_commit = local`: the stream needs it flushed here, and no standby may hold it up.
const BARRIER: &str = "begin; set local synchronous_commit = local; \
                       select pg_logical_emit_message(true, 'walcast.barrier', ''); commit";

/// The same over an outbox: everything that committed before is given a position below, whatever the role or the
/// database is set to.
const OUTBOX_BARRIER: &str = "begin isolation level read committed; set local synchronous_commit = local; \
                              select pg_catalog.to_hex(walcast.number_outbox()); commit";

/// What was read, for joining it to the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSnapshot {
    pub snapshot: Snapshot,
    /// Whatever can have been read was committed below.
    pub barrier: Lsn,
}

/// Why the mirror could not be read. All but [`LoadError::Query`] wait for somebody to mend them.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the mirrored tables could not be read")]
    Query(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Snapshot(#[from] InvalidSnapshot),
    #[error("the server answered a query with fewer rows or columns than it has")]
    Answer,
    #[error("table {0} does not exist, but is to be mirrored")]
    MissingTable(TableName),
    #[error("table {table} has no column {column} that the WAL carries, but rows are to be found by it")]
    MissingColumn { table: TableName, column: String },
    #[error(
        "the WAL does not tell the rows of {0} apart, but it is to be mirrored: \
         give it a primary key, and a replica identity other than nothing"
    )]
    NoKey(TableName),
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

impl Mirror {
    /// Reads every table, in the place of what was there; on failure what was there stays. Nothing may be applied
    /// meanwhile: it would be lost with the old rows. So the stream waits, and is kept alive by its pulse.
    ///
    /// The connection must be in
    /// no transaction and have the session format of [`crate::postgres::client`]. Dropped halfway, this leaves its
    /// transaction open: give the connection up too.
    ///
    /// # Errors
    /// A table, a column that rows are found by, or a key is missing, the role may not read all of a table, it is too
    /// large, or the connection failed. Any other column that is missing reads as null, as it does in the stream.
    pub async fn load(&self, client: &Client) -> Result<MirrorSnapshot, LoadError> {
        client.batch_execute(BEGIN).await?;
        let (snapshot, loaded) = match self.fetch(client).await {
            Ok(fetched) => {
                client.batch_execute("commit").await?;
                fetched
            }
            Err(error) => {
                // It fails only with the connection, of which the error at hand tells already.
                let _ = client.batch_execute("rollback").await;
                return Err(error);
            }
        };
        let barrier = self.fetch_barrier(client).await?;
        let snapshot = Arc::new(MirrorSnapshot { snapshot, barrier });

        // All at once: nobody reads one table of this load beside another of the last.
        let mut states: Vec<_> = self.tables.iter().map(Table::write).collect();
        let memory = loaded.iter().map(|state| state.rows.memory()).sum();
        for (state, loaded) in states.iter_mut().zip(loaded) {
            **state = loaded;
        }
        self.memory.store(memory, Ordering::Relaxed);
        *self.joining() = Joining::Loaded(Arc::clone(&snapshot));
        Ok((*snapshot).clone())
    }

    async fn fetch_barrier(&self, client: &Client) -> Result<Lsn, LoadError> {
        match self.source {
            Kind::Wal => fetch_text(client, BARRIER).await?.parse().map_err(|_| LoadError::Answer),
            Kind::Outbox => {
                let digits = fetch_text(client, OUTBOX_BARRIER).await?;
                u64::from_str_radix(&digits, 16).map(Lsn::new).map_err(|_| LoadError::Answer)
            }
        }
    }

    async fn fetch(&self, client: &Client) -> Result<(Snapshot, Vec<State>), LoadError> {
        // The first query of the transaction takes its snapshot.
        let snapshot = fetch_text(client, "select pg_catalog.pg_current_snapshot()::text").await?.parse()?;
        let schema = Schema::fetch(client).await?;
        let mut loaded = Vec::with_capacity(self.tables.len());
        let mut memory = 0;
        for table in &self.tables {
            let state = table.fetch(client, &schema, memory, self.max_bytes).await?;
            memory += state.rows.memory();
            loaded.push(state);
        }
        Ok((snapshot, loaded))
    }
}

impl Table {
    async fn fetch(
        &self,
        client: &Client,
        schema: &Schema,
        others_bytes: u64,
        limit_bytes: u64,
    ) -> Result<State, LoadError> {
        let name = &self.spec.table;
        let table = schema.tables.get(name).ok_or_else(|| LoadError::MissingTable(name.clone()))?;
        let key = match &table.replica_identity {
            ReplicaIdentity::Default | ReplicaIdentity::Full => Some(&table.primary_key),
            ReplicaIdentity::Index(index) => {
                table.identity_indexes.iter().find(|known| known.name == *index).map(|index| &index.columns)
            }
            ReplicaIdentity::Nothing => None,
        };
        let key = key.filter(|key| !key.is_empty()).ok_or_else(|| LoadError::NoKey(name.clone()))?;
        let mut absent = Vec::with_capacity(self.columns.len());
        for (place, column) in self.columns.iter().enumerate() {
            let known = table.column(column);
            let needed = self.indexes.iter().flatten().any(|indexed| *indexed == place);
            if known.map_or(needed, |column| column.generated) {
                return Err(LoadError::MissingColumn { table: name.clone(), column: column.clone() });
            }
            absent.push(known.is_none());
        }
        // Children by inheritance are published as themselves, partitions as their root.
        let only = if table.kind == TableKind::Partitioned { "" } else { "only " };
        let values = self.columns.iter().zip(&absent);
        let values = values.map(|(name, absent)| if *absent { "null".to_owned() } else { quote(name) });
        let list = key.iter().map(|name| quote(name)).chain(values).collect::<Vec<_>>().join(", ");
        let query = format!("select {list} from {only}{}.{}", quote(&name.schema), quote(&name.name));

        let mut rows = Rows::new(&self.indexes);
        // The simple protocol: each value comes as its type's text output, as in the WAL.
        let messages = client.simple_query_raw(&query).await?;
        pin_mut!(messages);
        while let Some(message) = messages.next().await {
            let SimpleQueryMessage::Row(row) = message? else {
                continue;
            };
            let mut cells = Vec::with_capacity(row.len());
            for column in 0..row.len() {
                cells.push(row.try_get(column)?.map(str::as_bytes));
            }
            let (row_key, values) = cells.split_at_checked(key.len()).ok_or(LoadError::Answer)?;
            let row_key =
                encode_key(row_key.iter().copied()).ok_or_else(|| LoadError::NoKey(name.clone()))?;
            let row = MirrorRow::new(&row_key, values.iter().copied());
            rows.put(row.ok_or_else(|| MirrorError::RowTooLarge { table: name.clone() })?);
            if others_bytes + rows.memory() > limit_bytes {
                return Err(MirrorError::TooLarge { table: name.clone(), limit_bytes }.into());
            }
        }
        Ok(State { rows, key: key.clone(), oid: Some(table.oid), binding: None, absent })
    }
}

/// The first value of the first row.
async fn fetch_text(client: &Client, sql: &str) -> Result<String, LoadError> {
    for message in client.simple_query(sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            return row.try_get(0)?.map(str::to_owned).ok_or(LoadError::Answer);
        }
    }
    Err(LoadError::Answer)
}

fn quote(identifier: &str) -> String {
    postgres_protocol::escape::escape_identifier(identifier)
}
