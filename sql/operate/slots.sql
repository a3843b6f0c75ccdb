-- What every replication slot costs: the WAL that the server keeps for it.
--
--   psql "$DATABASE_URL" -f sql/operate/slots.sql
--
-- `kept` is what is on disk because of the slot. `unconfirmed` is what its worker has not confirmed: walcast's replay
-- window, and what it is behind. `kept` much above `unconfirmed` is an open transaction's doing: holders.sql.
-- `until_lost` is what max_slot_wal_keep_size leaves; null is no limit, and then a dead slot fills the disk.

select slot_name,
       database,
       active,
       active_pid,
       wal_status,
       pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) as kept,
       pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)) as unconfirmed,
       pg_size_pretty(safe_wal_size) as until_lost,
       current_setting('max_slot_wal_keep_size') as max_slot_wal_keep_size
from pg_replication_slots
order by pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) desc nulls first;
