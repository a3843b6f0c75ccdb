-- What the outbox holds, who reads it, and what keeps its space from being used again.
--
--   psql "$DATABASE_URL" -f sql/operate/outbox.sql
--
-- `waiting` rows have no place yet: many of them, or a `read` that is long ago, mean that no worker runs. Space of
-- pruned rows is used again once vacuum may take it, which the oldest transaction of the server holds up. `without_room`
-- changes were not written because the outbox was full; the worker begins a new history when it comes back.

select (select source from walcast.meta) as set_up_for,
       (select count(*) from walcast.outbox) as rows,
       (select count(*) from walcast.outbox o
         where not exists (select from walcast.outbox_transactions t where t.xid = o.xid)) as waiting,
       (select min(created_at) from walcast.outbox) as oldest,
       (select max(numbered_at) from walcast.outbox_transactions) as read,
       (select l.pid from pg_locks l join pg_database d on d.oid = l.database and d.datname = current_database()
         where l.locktype = 'advisory' and l.classid = 2002874371 and l.objid = 1 and l.granted limit 1) as reader,
       pg_size_pretty(pg_total_relation_size('walcast.outbox')
                      + pg_total_relation_size('walcast.outbox_transactions')) as size,
       (select coalesce(pg_size_pretty(outbox_limit), 'none') from walcast.meta) as "limit",
       walcast.outbox_gap_count() - (select gaps from walcast.outbox_state) as without_room;

select pid, usename, state, xact_start, left(query, 60) as query
  from pg_stat_activity
 where backend_xmin is not null and pid <> pg_backend_pid()
 order by age(backend_xmin) desc
 limit 3;
