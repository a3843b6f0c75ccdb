//! What a running worker lacks, asked often and therefore in one lean query: what `setup` made may be undone at any
//! time, and nothing in the log tells (a table that was dropped and made again is no longer published).

use tokio_postgres::{Client, Error, Row};

use super::plan::{quote, quote_table};
use super::{IdentityNeed, Problem};
use crate::postgres::schema::TableName;

/// A partition logs by its own replica identity, and is published as its root.
const TABLES: &str = "
with wanted as (
  select w.place, w.schema, w.name, c.oid, c.relpersistence
    from unnest($1::text[], $2::text[]) with ordinality as w(schema, name, place)
    left join pg_catalog.pg_namespace n on n.nspname = w.schema
    left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.name and c.relkind in ('r', 'p'))
select w.oid is not null as there, coalesce(w.relpersistence = 'p', false) as logged,
       exists (select from pg_catalog.pg_publication_tables p
                where p.pubname = $3 and p.schemaname = w.schema and p.tablename = w.name) as published,
       coalesce((select array_agg(distinct
                   case when c.relreplident = 'd' and not exists (
                               select from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisprimary)
                        then 'n' else c.relreplident end::text)
                   from (select w.oid union select relid from pg_catalog.pg_partition_tree(w.oid) where isleaf) t(oid)
                   join pg_catalog.pg_class c on c.oid = t.oid), '{}') as identities
  from wanted w order by w.place";

/// What stands between `tables` and their events. A publication that is missing as a whole is the source's to tell.
///
/// # Errors
/// The query failed.
pub async fn shortfalls(
    client: &Client,
    publication: &str,
    tables: &[(TableName, IdentityNeed)],
) -> Result<Vec<Problem>, Error> {
    let schemas: Vec<&str> = tables.iter().map(|(table, _)| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|(table, _)| table.name.as_str()).collect();
    let rows = client.query(TABLES, &[&schemas, &names, &publication]).await?;
    let mut problems = Vec::new();
    for ((table, need), row) in tables.iter().zip(&rows) {
        problems.extend(shortfall(publication, table, *need, row)?);
    }
    Ok(problems)
}

fn shortfall(
    publication: &str,
    table: &TableName,
    need: IdentityNeed,
    row: &Row,
) -> Result<Option<Problem>, Error> {
    let problem = |text: String, sql: Option<String>| Ok(Some(Problem { text, sql }));
    let sql_name = quote_table(table);
    if !row.try_get::<_, bool>("there")? {
        return problem(format!("table {table} is not in the database: no events come from it"), None);
    }
    if !row.try_get::<_, bool>("logged")? {
        let text = format!("table {table} is unlogged: its changes are not in the WAL");
        return problem(text, Some(format!("ALTER TABLE {sql_name} SET LOGGED")));
    }
    if !row.try_get::<_, bool>("published")? {
        let text = format!(
            "table {table} is not in publication {publication}: no events come from it; `walcast setup` adds it, with \
             its replica identity"
        );
        return problem(text, Some(format!("ALTER PUBLICATION {} ADD TABLE {sql_name}", quote(publication))));
    }
    let identities: Vec<String> = row.try_get("identities")?;
    let has = |identity: &str| identities.iter().any(|known| known == identity);
    match need {
        // Whether an index covers what is needed, the mapper tells where it does not.
        IdentityNeed::Full if has("d") || has("n") => problem(
            format!("the replica identity of table {table} does not log the old values that its events need"),
            Some(format!("ALTER TABLE {sql_name} REPLICA IDENTITY FULL")),
        ),
        IdentityNeed::Default if has("n") => problem(
            format!(
                "table {table} has no replica identity: its updates and deletes are refused by the server"
            ),
            Some(format!("ALTER TABLE {sql_name} REPLICA IDENTITY DEFAULT")),
        ),
        IdentityNeed::Full | IdentityNeed::Default => Ok(None),
    }
}
