-- The outbox: committed changes as rows of a table, for databases whose WAL can't be decoded.
--
--     triggers, walcast.emit ─► outbox ─► number_outbox() ─► outbox_transactions ─► the worker ─► prune_outbox()
--
-- Neither identities nor transaction ids are in the order of commits, so a transaction gets its place in history only
-- once it is seen committed. Places are bytes, as in the WAL: a transaction lies at `position` and ends where the next
-- one begins. Rows are written once and never updated; NOTIFY carries nothing and only wakes.

-- What `walcast setup` made the database ready for.
create table walcast.meta (
    only_row boolean primary key default true check (only_row),
    source text check (source in ('wal', 'outbox'))
);

insert into walcast.meta default values;

-- Tables as they were when rows of them were written. A table has a new entry whenever it was altered; of several
-- that are equal (made by transactions that did not see each other) any one will do, so that no writer waits.
create table walcast.outbox_relations (
    id bigint generated always as identity primary key,
    relation oid not null,
    -- Cheap to tell on every write; another one whenever the catalog's rows of the table were touched.
    version text not null,
    definition text not null
);

create index outbox_relations_relation on walcast.outbox_relations (relation);

create table walcast.outbox (
    id bigint generated always as identity primary key,
    xid xid8 not null default pg_current_xact_id(),
    -- As TG_OP: I, U, D, T; M is a message of walcast.emit, C a canary of the worker's.
    operation "char" not null,
    relation bigint,
    -- A record's own text output, in the session format of the functions below.
    old_row text,
    new_row text,
    -- Of rows too long to be kept whole: the columns that read as null there, by their places from 0 on, each with
    -- the length and the digest of its value. [old, new]
    omitted jsonb,
    message text,
    created_at timestamptz not null default clock_timestamp()
)
-- Filled and emptied all the time: a vacuum every so many rows keeps it at the size of the window.
with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

create index outbox_xid on walcast.outbox (xid, id);

create table walcast.outbox_transactions (
    position bigint primary key,
    ends bigint not null check (ends > position),
    xid xid8 not null unique,
    numbered_at timestamptz not null
)
with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

create table walcast.outbox_state (
    only_row boolean primary key default true check (only_row),
    -- Positions mean nothing beyond the history and the cluster that they were given in.
    history uuid not null default gen_random_uuid(),
    cluster bigint not null,
    -- What lies below was pruned.
    floor bigint not null default 1,
    -- Where the next transaction will lie.
    head bigint not null default 1,
    -- Every transaction that it sees has a position, or wrote nothing.
    seen pg_snapshot
);

insert into walcast.outbox_state (cluster) select system_identifier from pg_control_system();

comment on table walcast.meta is 'The source that walcast setup made the database ready for.';
comment on table walcast.outbox is 'Changes of catalogued tables, whole rows: for its owner and the worker''s role.';

-- The entry that describes a table as it is now. Columns are told as the row has them; of a partition each with its
-- place in the root, under whose name it is published.
create function walcast.outbox_relation(relation oid) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    root regclass := coalesce(pg_partition_root(relation), relation);
    version text;
    described text;
    known bigint;
begin
    -- With ctid: two alterations in one transaction leave the same xmin. Names come qualified.
    select root::text || coalesce(string_agg(a.xmin::text || a.ctid::text, '' order by a.attrelid, a.attnum), '')
      into strict version
      from pg_attribute a where a.attrelid = any (array[relation, root::oid]) and a.attnum > 0;
    select r.id into known from walcast.outbox_relations r
     where r.relation = relation and r.version = version
     order by r.id limit 1;
    if known is not null then
        return known;
    end if;
    select json_build_object(
               'oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname,
               'columns', (
                   select json_agg(json_build_object(
                              'name', a.attname, 'type_oid', a.atttypid::bigint, 'type_modifier', a.atttypmod,
                              'generated', a.attgenerated <> '',
                              'place', case when root = relation then a.attnum else (
                                  select p.attnum from pg_attribute p
                                   where p.attrelid = root and p.attname = a.attname) end
                          ) order by a.attnum)
                     from pg_attribute a
                    where a.attrelid = relation and a.attnum > 0 and not a.attisdropped))::text
      into strict described
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
     where c.oid = root;
    insert into walcast.outbox_relations (relation, version, definition) values (relation, version, described)
    returning outbox_relations.id into known;
    return known;
end
$$;

-- Wakes the worker. A transaction that has notified can't be prepared: where that may be asked of one, the worker
-- polls more often instead.
create function walcast.wake() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('max_prepared_transactions') = '0' then
        perform pg_notify('walcast', '');
    end if;
end
$$;

-- A row that is too long to be kept, or even to be printed, whole: without the values that do not fit, of which the
-- length and a digest are told. Short ones are always kept; what is kept of both rows of an update is `room` at most.
create function walcast.outbox_long_row(
    written record, relation oid, inout room bigint, out content text, out omitted jsonb
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    short constant bigint := 8192;
    kept text[] := '{}';
    spot text;
    found_column record;
    bytes bigint;
    digest text;
begin
    omitted := '[]';
    for found_column in
        select a.attname, a.atttypid from pg_attribute a
         where a.attrelid = relation and a.attnum > 0 and not a.attisdropped order by a.attnum
    loop
        spot := format('($1::%s).%I', relation::regclass, found_column.attname);
        begin
            execute format('select octet_length(%s::text)', spot) into bytes using written;
            if bytes > short and bytes > room then
                execute format('select sha256(convert_to(%s::text, ''UTF8''))::text', spot) into digest using written;
            end if;
        exception when program_limit_exceeded or out_of_memory or internal_error then
            -- Longer than any text can be.
            bytes := 1073741824;
            execute format('select to_hex(hash_record_extended(row(%s), 0))', spot) into digest using written;
        end;
        if coalesce(bytes, 0) <= short or bytes <= room then
            kept := kept || spot;
            if bytes > short then
                room := room - bytes;
            end if;
        else
            omitted := omitted || jsonb_build_array(
                jsonb_build_array(cardinality(kept), bytes, left(lpad(ltrim(digest, '\x'), 16, '0'), 16)));
            kept := kept || 'null'::text;
        end if;
    end loop;
    execute format('select row(%s)::text', array_to_string(kept, ', ')) into content using written;
end
$$;

-- The format is that of the worker's own sessions: a value reads the same out of either source, whatever the
-- application's session has set. Whoever writes to the table has no rights here, hence SECURITY DEFINER.
create function walcast.outbox_change() returns trigger
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
    relation constant bigint := walcast.outbox_relation(tg_relid);
    -- As stored, perhaps compressed: what takes less can't be too long as text, 1 GB being the limit.
    long constant integer := 1048576;
    -- The default of source.max_row.
    room bigint := 33554432;
    old_content text;
    old_omitted jsonb;
    new_content text;
    new_omitted jsonb;
begin
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

-- The worker's heartbeat, the way that rows go.
create function walcast.write_canary(content text) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into walcast.outbox (operation, message) values ('C', left(content, 100));
    perform walcast.wake();
end
$$;

-- The history that positions belong to. In another cluster (out of a dump) transaction ids begin again, so that what
-- was seen there says nothing here: what was numbered goes, and a new history begins. So it does where less is there
-- than the worker has seen already: an older state was restored.
create function walcast.open_outbox(processed bigint) returns uuid
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

-- Gives every transaction that is newly seen committed its position, in the order of their last identities, and
-- returns where the next one will lie: above everything that had committed when this was called.
--
-- Complete: a transaction has ended before `seen` and was visible to the insert of that call, or it was in progress
-- then (pg_snapshot_xip), or it began later (from pg_snapshot_xmax on). The last two are looked at. Once each: the lock
-- is held to the end of the caller's transaction, and what has a position is passed over.
create function walcast.number_outbox() returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- The index finds the few rows since `seen`; statistics of a table that is filled and emptied all the time mislead.
set enable_seqscan = off
as $$
declare
    state walcast.outbox_state;
    now_seen pg_snapshot;
    since xid8;
    in_progress xid8[];
    reached bigint;
begin
    perform pg_advisory_xact_lock(2002874371, 2);
    select * into strict state from walcast.outbox_state;
    -- Before the insert's own snapshot: what is seen now, the insert sees.
    now_seen := pg_current_snapshot();
    since := coalesce(pg_snapshot_xmax(state.seen), '0'::xid8);
    in_progress := array(select pg_snapshot_xip(state.seen));
    with fresh as (
        select o.xid, max(o.id) as last,
               sum(64 + coalesce(octet_length(o.old_row), 0) + coalesce(octet_length(o.new_row), 0)
                   + coalesce(octet_length(o.message), 0))::bigint as bytes
          from walcast.outbox o
         where (o.xid >= since or o.xid = any (in_progress))
           and not exists (select from walcast.outbox_transactions t where t.xid = o.xid)
         group by o.xid
    ), placed as (
        select xid, bytes, state.head + sum(bytes) over (order by last)::bigint as ends from fresh
    ), written as (
        insert into walcast.outbox_transactions (position, ends, xid, numbered_at)
        select ends - bytes, ends, xid, clock_timestamp() from placed order by ends
        returning ends
    )
    select max(ends) into reached from written;
    if reached is null then
        return state.head;
    end if;
    update walcast.outbox_state set head = reached, seen = now_seen;
    return reached;
end
$$;

-- Forgets at most so many transactions that lie below; returns where history begins now.
create function walcast.prune_outbox(below bigint, most integer) returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    begins bigint;
begin
    perform pg_advisory_xact_lock(2002874371, 2);
    with gone as (
        delete from walcast.outbox_transactions t
         where t.position in (
             select position from walcast.outbox_transactions where position < below order by position limit most)
        returning t.xid
    )
    delete from walcast.outbox o using gone where o.xid = gone.xid;
    update walcast.outbox_state s
       set floor = greatest(s.floor, least(below, s.head, (select min(position) from walcast.outbox_transactions)))
     where s.floor < least(below, s.head)
    returning s.floor into begins;
    return coalesce(begins, (select floor from walcast.outbox_state));
end
$$;

-- Forgets everything. What was read so far belongs to another history.
create function walcast.clear_outbox() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(2002874371, 2);
    truncate walcast.outbox, walcast.outbox_transactions;
    update walcast.outbox_state set history = gen_random_uuid(), floor = head, seen = null;
end
$$;

-- For whoever gives the outbox up: by the owner of the tables.
create function walcast.close_outbox() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    removal text;
begin
    for removal in
        select format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass) from pg_trigger t
         where t.tgfoid = 'walcast.outbox_change()'::regprocedure and t.tgparentid = 0
    loop
        execute removal;
    end loop;
    update walcast.meta set source = null;
    perform walcast.clear_outbox();
end
$$;

-- Not PUBLIC alone: default privileges of this database may have granted to roles by name.
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
           and proname in ('outbox_relation', 'wake', 'outbox_long_row', 'outbox_change', 'write_canary', 'open_outbox',
                           'number_outbox', 'prune_outbox', 'clear_outbox', 'close_outbox')
         union all
        select 'table ' || pg_class.oid::regclass,
               case acl.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(acl.grantee)) end
          from pg_class, aclexplode(relacl) as acl
         where relnamespace = 'walcast'::regnamespace and acl.grantee <> relowner
           and relname in ('meta', 'outbox', 'outbox_relations', 'outbox_transactions', 'outbox_state')
    loop
        execute format('revoke all on %s from %s', made, grantee);
    end loop;
end
$$;

-- Which source it is is no secret.
grant select on walcast.meta to public;
