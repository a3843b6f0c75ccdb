-- Drops a slot whose worker is gone for good, and frees the WAL that it holds at the next checkpoint.
--
--   psql "$DATABASE_URL" -v slot=walcast_app -f sql/operate/drop_slot.sql
--
-- Stop its worker first: a slot in use can't be dropped. A worker that comes back makes the slot again and tells every
-- stream to read its state anew (data.sync, history_reset).

select slot_name, pg_drop_replication_slot(slot_name) is not null as dropped
from pg_replication_slots
where slot_name = :'slot';
