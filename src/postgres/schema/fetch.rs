//! The two queries that read a schema.

use std::collections::HashMap;

use serde::Deserialize;
use tokio_postgres::{Client, Row};

use super::types::{Field, Type, TypeKind, Types};
use super::{Column, IdentityIndex, ReplicaIdentity, Schema, Table, TableKind, TableName};

/// User tables, ordinary and partitioned. Lists come as json text: an array of rows has no plainer wire form.
const TABLES: &str = "
select c.oid, n.nspname::text as schema, c.relname::text as name,
       c.relkind = 'p' as partitioned, c.relpersistence = 'p' as logged,
       rn.nspname::text as root_schema, r.relname::text as root_name,
       c.relreplident::text as identity,
       coalesce(attributes.list, '[]'::json)::text as columns,
       coalesce(indexes.list, '[]'::json)::text as indexes
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_class r on c.relispartition and r.oid = pg_catalog.pg_partition_root(c.oid)
  left join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
  left join lateral (
       select json_agg(json_build_object(
                  'name', a.attname, 'type_oid', a.atttypid::bigint, 'type_modifier', a.atttypmod,
                  'not_null', a.attnotnull, 'generated', a.attgenerated <> '') order by a.attnum) as list
         from pg_catalog.pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) attributes on true
  left join lateral (
       select json_agg(json_build_object(
                  'name', ic.relname, 'primary', i.indisprimary, 'identity', i.indisreplident,
                  'usable', i.indisunique and i.indimmediate and i.indisvalid
                            and i.indpred is null and i.indexprs is null and keys.never_null,
                  'columns', keys.names) order by ic.relname) as list
         from pg_catalog.pg_index i
         join pg_catalog.pg_class ic on ic.oid = i.indexrelid
         cross join lateral (
              select json_agg(a.attname order by k.position) as names,
                     bool_and(a.attnotnull and a.attgenerated = '') as never_null
                from unnest(i.indkey::int2[]) with ordinality as k(attnum, position)
                join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
               where k.position <= i.indnkeyatts and k.attnum > 0) keys
        where i.indrelid = c.oid and i.indisunique and i.indislive and keys.names is not null) indexes on true
 where c.relkind in ('r', 'p') and c.relpersistence <> 't'
   and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'";

/// Every type. An array is what `to_json` takes for one: `get_element_type` looks at the subscript handler.
const TYPES: &str = "
select t.oid, n.nspname::text as schema, t.typname::text as name, t.typtype::text as kind,
       t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc and t.typelem <> 0 as is_array,
       t.typelem as element, coalesce(e.typdelim, ',')::text as delimiter,
       t.typbasetype as base, coalesce(fields.list, '[]'::json)::text as fields
  from pg_catalog.pg_type t
  join pg_catalog.pg_namespace n on n.oid = t.typnamespace
  left join pg_catalog.pg_type e on e.oid = t.typelem
  left join lateral (
       select json_agg(json_build_object('name', a.attname, 'type_oid', a.atttypid::bigint)
                       order by a.attnum) as list
         from pg_catalog.pg_attribute a
        where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) fields on true";

/// Why the schema could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("the schema could not be read")]
    Query(#[from] tokio_postgres::Error),
    #[error("the schema query answered something that can't be read")]
    Answer(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct FetchedColumn {
    name: String,
    type_oid: u32,
    type_modifier: i32,
    not_null: bool,
    generated: bool,
}

#[derive(Deserialize)]
struct FetchedIndex {
    name: String,
    primary: bool,
    identity: bool,
    usable: bool,
    columns: Vec<String>,
}

#[derive(Deserialize)]
struct FetchedField {
    name: String,
    type_oid: u32,
}

impl Schema {
    /// # Errors
    /// When a query fails or answers in another shape.
    pub async fn fetch(client: &Client) -> Result<Self, SchemaError> {
        let types = Types::fetch(client).await?;
        let mut tables = HashMap::new();
        for row in client.query(TABLES, &[]).await? {
            let table = read_table(&row)?;
            tables.insert(table.name.clone(), table);
        }
        Ok(Self { tables, types })
    }
}

impl Types {
    /// # Errors
    /// When the query fails or answers in another shape.
    pub async fn fetch(client: &Client) -> Result<Self, SchemaError> {
        client.query(TYPES, &[]).await?.iter().map(read_type).collect()
    }
}

fn read_table(row: &Row) -> Result<Table, SchemaError> {
    let columns: Vec<FetchedColumn> = serde_json::from_str(row.try_get("columns")?)?;
    let indexes: Vec<FetchedIndex> = serde_json::from_str(row.try_get("indexes")?)?;
    let root: Option<String> = row.try_get("root_name")?;
    let root_schema: Option<String> = row.try_get("root_schema")?;
    let replica_identity = match row.try_get("identity")? {
        "f" => ReplicaIdentity::Full,
        "i" => indexes
            .iter()
            .find(|index| index.identity)
            .map_or(ReplicaIdentity::Nothing, |index| ReplicaIdentity::Index(index.name.clone())),
        "n" => ReplicaIdentity::Nothing,
        _ => ReplicaIdentity::Default,
    };
    let primary_key = indexes.iter().find(|index| index.primary).map(|index| index.columns.clone());
    let identity_indexes = indexes
        .into_iter()
        .filter(|index| index.usable)
        .map(|index| IdentityIndex { name: index.name, columns: index.columns })
        .collect();
    let partitioned: bool = row.try_get("partitioned")?;
    Ok(Table {
        oid: row.try_get("oid")?,
        name: TableName { schema: row.try_get("schema")?, name: row.try_get("name")? },
        kind: if partitioned { TableKind::Partitioned } else { TableKind::Ordinary },
        logged: row.try_get("logged")?,
        columns: columns
            .into_iter()
            .map(|column| Column {
                name: column.name,
                type_oid: column.type_oid,
                type_modifier: column.type_modifier,
                not_null: column.not_null,
                generated: column.generated,
            })
            .collect(),
        primary_key: primary_key.unwrap_or_default(),
        replica_identity,
        identity_indexes,
        root: root_schema.zip(root).map(|(schema, name)| TableName { schema, name }),
    })
}

fn read_type(row: &Row) -> Result<Type, SchemaError> {
    let is_array: bool = row.try_get("is_array")?;
    let element: u32 = row.try_get("element")?;
    let oid: u32 = row.try_get("oid")?;
    let kind = match row.try_get("kind")? {
        "b" if Types::is_vector(oid) => TypeKind::Vector { element },
        "b" if is_array => {
            let delimiter: &str = row.try_get("delimiter")?;
            TypeKind::Array { element, delimiter: delimiter.bytes().next().unwrap_or(b',') }
        }
        "d" => TypeKind::Domain { base: row.try_get("base")? },
        "e" => TypeKind::Enum,
        "c" => {
            let fields: Vec<FetchedField> = serde_json::from_str(row.try_get("fields")?)?;
            let fields = fields.into_iter().map(|field| Field { name: field.name, type_oid: field.type_oid });
            TypeKind::Composite { fields: fields.collect() }
        }
        "r" => TypeKind::Range,
        "m" => TypeKind::Multirange,
        "p" => TypeKind::Pseudo,
        _ => TypeKind::Base,
    };
    Ok(Type { oid, schema: row.try_get("schema")?, name: row.try_get("name")?, kind })
}
