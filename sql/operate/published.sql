-- What the publication carries, and what each table writes to the WAL for a changed row's old values.
--
--   psql "$DATABASE_URL" -v publication=walcast -f sql/operate/published.sql
--
-- Replica identity `default` writes the primary key where it changed or the row is deleted; `full` writes the whole old
-- row on every update and delete, out-of-line values included; `nothing` makes updates and deletes of a published table
-- fail. `walcast setup --dry-run` says which tables need which.

select format('%I.%I', tables.schemaname, tables.tablename) as "table",
       case relreplident
           when 'd' then 'default' when 'f' then 'full' when 'i' then 'index' else 'nothing'
       end as replica_identity,
       pg_size_pretty(pg_table_size(pg_class.oid)) as size,
       n_tup_ins as inserts,
       n_tup_upd as updates,
       n_tup_del as deletes
from pg_publication_tables as tables
join pg_namespace on nspname = tables.schemaname
join pg_class on relnamespace = pg_namespace.oid and relname = tables.tablename
left join pg_stat_user_tables on relid = pg_class.oid
where pubname = :'publication'
order by n_tup_upd + n_tup_del desc nulls last;
