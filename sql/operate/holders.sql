-- Who holds a slot's restart_lsn back, oldest first.
--
--   psql "$DATABASE_URL" -f sql/operate/holders.sql
--
-- Decoding can only start where the oldest open transaction began, so that is where WAL is kept from, whatever a worker
-- confirms. A transaction counts once it has an xid: one that only reads holds no WAL. Prepared transactions have no
-- session; end them with COMMIT PREPARED or ROLLBACK PREPARED.

select 'session' as holder,
       pid::text as who,
       datname as database,
       usename as role,
       application_name,
       state,
       now() - xact_start as open_for,
       age(backend_xid) as xids_since,
       format('select pg_terminate_backend(%s);', pid) as to_end_it
from pg_stat_activity
where backend_xid is not null
union all
select 'prepared transaction',
       gid,
       database,
       owner,
       null,
       'prepared',
       now() - prepared,
       age(transaction),
       format('rollback prepared %L;', gid)
from pg_prepared_xacts
order by xids_since desc;
