//! What is published, in one value that changes whenever something can have been missed.
//!
//! The rows of the system's catalogs that say what is published are made anew when a publication or a table's part in
//! it is, so their oids tell what names don't: that it was gone in between.

use crate::postgres::schema::TableName;

/// A query of one value: null where there is no such publication. Of `tables`, or of all when none are named: a table
/// that nobody reads may come and go.
pub(super) fn digest_sql(publication: &str, tables: &[TableName]) -> String {
    let read = is_among(tables);
    format!(
        "select md5(concat_ws(' ', p.oid, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, \
         p.pubviaroot, (select string_agg(r.oid::text, ' ' order by r.oid) from pg_catalog.pg_publication_rel r \
         join pg_catalog.pg_class c on c.oid = r.prrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where r.prpubid = p.oid and {read}))) from pg_catalog.pg_publication p where p.pubname = {}",
        literal(publication)
    )
}

/// A condition on a class `c` in a namespace `n`: one of these tables, or any when none are named.
pub(super) fn is_among(tables: &[TableName]) -> String {
    let pairs: Vec<String> = tables
        .iter()
        .map(|table| format!("({}, {})", literal(&table.schema), literal(&table.name)))
        .collect();
    match pairs.is_empty() {
        true => "true".to_owned(),
        false => format!("(n.nspname, c.relname) in ({})", pairs.join(", ")),
    }
}

fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
}
