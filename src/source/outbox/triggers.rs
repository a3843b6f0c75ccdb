//! What writes to the outbox, in one value that changes whenever something can have been missed.
//!
//! A trigger that is made, switched off or switched on again has a row of another transaction in the system's catalog:
//! that tells what its state does not, that it was off in between.

use crate::postgres::schema::TableName;
use crate::source::publication::is_among;

/// A query of one value: of `tables`, or of all when none are named. A partition's triggers are copies of its root's,
/// and come and go with it.
pub(in crate::source) fn digest_sql(tables: &[TableName]) -> String {
    let read = is_among(tables);
    format!(
        "select pg_catalog.md5(coalesce(string_agg(concat_ws(' ', t.oid, t.xmin, t.tgenabled), ' ' order by t.oid), '')) \
         from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid \
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace join pg_catalog.pg_proc f on f.oid = t.tgfoid \
         join pg_catalog.pg_namespace w on w.oid = f.pronamespace where w.nspname = 'walcast' \
         and f.proname = 'outbox_change' and t.tgparentid = 0 and {read}"
    )
}
