-- An outbox that nobody reads has an end, and one that somebody emptied is known to have been.
--
-- What is not written, or taken away before it was read, is missing in the history that the worker tells. So that this
-- is never a silent gap, another history begins: the worker sees that before it hands out what came later, and tells
-- every stream to read its state again.

-- Bytes of the outbox on disk, without its indexes. Null: no end. `walcast setup` writes it: source.max_outbox.
alter table walcast.meta add column outbox_limit bigint default 1073741824 check (outbox_limit > 0);

-- Counts what had no room. A sequence, because whoever commits later and read the database as of earlier (REPEATABLE
-- READ) must count as well, and nobody may wait for another's count. After a crash it may be ahead: told once too often.
create sequence walcast.outbox_gaps;

-- How far that was counted when this history began.
alter table walcast.outbox_state add column gaps bigint not null default 0;

create function walcast.outbox_gap_count() returns bigint
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
    select case when is_called then last_value else 0 end from walcast.outbox_gaps
$$;

-- Whether a change may be written. Who may not counts, and holds a lock to the end of the transaction: the history that
-- begins after a gap must begin after everything that is missing has committed, and not before.
create function walcast.outbox_has_room() returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    bytes constant bigint := (select outbox_limit from walcast.meta);
begin
    if bytes is null or pg_table_size('walcast.outbox') < bytes then
        return true;
    end if;
    perform pg_advisory_xact_lock_shared(2002874371, 3);
    -- Where it had to wait, the outbox was emptied meanwhile.
    if pg_table_size('walcast.outbox') < bytes then
        return true;
    end if;
    perform nextval('walcast.outbox_gaps');
    return false;
end
$$;

-- As in 0003_outbox.sql, where there is room.
create or replace function walcast.outbox_change() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set extra_float_digits = 1
set bytea_output = 'hex'
set quote_all_identifiers = off
set lc_monetary from current
as $$
declare
    relation bigint;
    -- As stored, perhaps compressed: what takes less can't be too long as text, 1 GB being the limit.
    long constant integer := 1048576;
    -- The default of source.max_row.
    room bigint := 33554432;
    old_content text;
    old_omitted jsonb;
    new_content text;
    new_omitted jsonb;
begin
    if not walcast.outbox_has_room() then
        return null;
    end if;
    relation := walcast.outbox_relation(tg_relid);
    if tg_op = 'TRUNCATE' then
        insert into walcast.outbox (operation, relation) values ('T', relation);
    elsif coalesce(pg_column_size(old), 0) + coalesce(pg_column_size(new), 0) < long then
        insert into walcast.outbox (operation, relation, old_row, new_row)
        values (tg_op::"char", relation, old::text, new::text);
    else
        if tg_op <> 'INSERT' then
            select r.room, r.content, r.omitted into room, old_content, old_omitted
              from walcast.outbox_long_row(old, tg_relid, room) r;
        end if;
        if tg_op <> 'DELETE' then
            select r.content, r.omitted into new_content, new_omitted
              from walcast.outbox_long_row(new, tg_relid, room) r;
        end if;
        insert into walcast.outbox (operation, relation, old_row, new_row, omitted)
        values (tg_op::"char", relation, old_content, new_content, jsonb_build_array(old_omitted, new_omitted));
    end if;
    -- As walcast.wake does; a call less for every row.
    if current_setting('max_prepared_transactions') = '0' then
        perform pg_notify('walcast', '');
    end if;
    return null;
end
$$;

create or replace function walcast.record_event(content text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if (select source from walcast.meta) is distinct from 'outbox' then
        perform pg_logical_emit_message(true, 'walcast', convert_to(content, 'UTF8'));
    elsif walcast.outbox_has_room() then
        insert into walcast.outbox (operation, message) values ('M', content);
        perform walcast.wake();
    end if;
end
$$;

create or replace function walcast.write_canary(content text) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if walcast.outbox_has_room() then
        insert into walcast.outbox (operation, message) values ('C', left(content, 100));
        perform walcast.wake();
    end if;
end
$$;

-- Rows that went otherwise than by pruning: another history begins behind them.
create function walcast.outbox_emptied() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update walcast.outbox_state set history = gen_random_uuid(), floor = head, seen = null;
    return null;
end
$$;

create trigger emptied after truncate on walcast.outbox
for each statement execute function walcast.outbox_emptied();
create trigger deleted after delete on walcast.outbox
for each statement when (current_setting('walcast.pruning', true) is distinct from 'on')
execute function walcast.outbox_emptied();
alter table walcast.outbox enable always trigger emptied, enable always trigger deleted;

-- As in 0003_outbox.sql, and says that it prunes.
create or replace function walcast.prune_outbox(below bigint, most integer) returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    begins bigint;
begin
    perform pg_advisory_xact_lock(2002874371, 2);
    perform set_config('walcast.pruning', 'on', true);
    with gone as (
        delete from walcast.outbox_transactions t
         where t.position in (
             select position from walcast.outbox_transactions where position < below order by position limit most)
        returning t.xid
    )
    delete from walcast.outbox o using gone where o.xid = gone.xid;
    perform set_config('walcast.pruning', 'off', true);
    update walcast.outbox_state s
       set floor = greatest(s.floor, least(below, s.head, (select min(position) from walcast.outbox_transactions)))
     where s.floor < least(below, s.head)
    returning s.floor into begins;
    return coalesce(begins, (select floor from walcast.outbox_state));
end
$$;

-- Makes room after a gap where there is none, and begins another history once whoever found none has ended: whether it
-- did. What there was is worth nothing, since what comes between is missing.
create function walcast.close_outbox_gap() returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
-- Writers queue up behind who waits for the table.
set lock_timeout = '100ms'
as $$
declare
    counted bigint;
begin
    if pg_table_size('walcast.outbox') >= (select outbox_limit from walcast.meta) then
        begin
            truncate walcast.outbox, walcast.outbox_transactions;
        exception when lock_not_available then
            return false;
        end;
    end if;
    if not pg_try_advisory_xact_lock(2002874371, 3) then
        return false;
    end if;
    -- Nobody counts while this is held.
    counted := walcast.outbox_gap_count();
    -- Exact after a crash.
    perform setval('walcast.outbox_gaps', counted);
    update walcast.outbox_state set gaps = counted, history = gen_random_uuid(), floor = head;
    return true;
end
$$;

-- As in 0003_outbox.sql. Null while a gap can't be closed.
create or replace function walcast.open_outbox(processed bigint) returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    here bigint;
    state walcast.outbox_state;
begin
    perform pg_advisory_xact_lock(2002874371, 2);
    select system_identifier into strict here from pg_control_system();
    select * into strict state from walcast.outbox_state;
    if state.gaps <> walcast.outbox_gap_count() then
        if not walcast.close_outbox_gap() then
            return null;
        end if;
        select * into strict state from walcast.outbox_state;
    end if;
    if state.cluster <> here then
        delete from walcast.outbox o using walcast.outbox_transactions t
         where t.xid = o.xid and o.created_at <= t.numbered_at;
        delete from walcast.outbox_transactions;
        update walcast.outbox_state
           set cluster = here, history = gen_random_uuid(), floor = head, seen = null
        returning * into state;
    elsif state.head < processed then
        update walcast.outbox_state set history = gen_random_uuid() returning * into state;
    end if;
    return state.history;
end
$$;

-- Not PUBLIC alone: default privileges of this database may have granted to roles by name. The worker's role, where it
-- is another, counts what it missed.
do $$
declare
    made text;
    grantee text;
begin
    for made, grantee in
        select 'function ' || pg_proc.oid::regprocedure,
               case acl.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(acl.grantee)) end
          from pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) as acl
         where pronamespace = 'walcast'::regnamespace and acl.grantee <> proowner
           and proname in ('outbox_gap_count', 'outbox_has_room', 'outbox_emptied', 'close_outbox_gap')
         union all
        select 'sequence ' || pg_class.oid::regclass,
               case acl.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(acl.grantee)) end
          from pg_class, aclexplode(relacl) as acl
         where oid = 'walcast.outbox_gaps'::regclass and acl.grantee <> relowner
    loop
        execute format('revoke all on %s from %s', made, grantee);
    end loop;
    for grantee in
        select distinct quote_ident(pg_get_userbyid(acl.grantee))
          from pg_proc, aclexplode(proacl) as acl
         where pg_proc.oid = 'walcast.number_outbox()'::regprocedure and acl.grantee not in (0, proowner)
    loop
        execute format('grant execute on function walcast.outbox_gap_count() to %s', grantee);
    end loop;
end
$$;
