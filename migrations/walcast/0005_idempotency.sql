-- Events that are emitted once however often they are asked for: what POST /api/realtime/events does with an
-- Idempotency-Key.
--
-- A key is written in the transaction of its event, so that there is never one without the other, and two requests at
-- the same time meet at the primary key: the second waits for the first, then finds what came of it.

create table walcast.idempotency (
    -- A hash over who asked, for which organization, and under what key.
    key bytea primary key check (octet_length(key) = 32),
    -- A hash over what was asked for.
    request bytea not null check (octet_length(request) = 32),
    -- The write-ahead log's end before the event was written: the event lies beyond.
    after_lsn pg_lsn not null,
    created_at timestamptz not null default now(),
    -- The order in which keys are forgotten.
    number bigint generated always as identity unique
)
-- Filled and emptied at the same pace: vacuumed by rows, not by a share of them.
with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

comment on table walcast.idempotency is 'Idempotency keys of the last 24 hours, a million at most.';

-- outcome: emitted now; repeated: it was emitted before, nothing happened; conflict: the key stands for another event.
create function walcast.emit_once(
    idempotency_key bytea,
    organization_id text,
    type text,
    data jsonb,
    channel text,
    tags jsonb,
    "only" jsonb,
    out outcome text,
    out after_lsn pg_lsn
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    lasts constant interval := '24 hours';
    most constant bigint := 1000000;
    digest constant bytea := sha256(convert_to(
        jsonb_build_array(emit_once.type, emit_once.channel, emit_once.tags, emit_once."only", emit_once.data)::text, 'UTF8'
    ));
    here constant pg_lsn := pg_current_wal_insert_lsn();
    own_number bigint;
begin
    insert into walcast.idempotency as known (key, request, after_lsn)
    values (idempotency_key, digest, here)
    on conflict on constraint idempotency_pkey do update
        set request = excluded.request, after_lsn = excluded.after_lsn, created_at = now(), number = default
        where known.created_at < now() - lasts
    returning known.number into own_number;

    if own_number is null then
        select case when known.request = digest then 'repeated' else 'conflict' end, known.after_lsn
        into strict outcome, after_lsn
        from walcast.idempotency known where known.key = idempotency_key;
        return;
    end if;

    perform walcast.emit(
        emit_once.organization_id, emit_once.type, emit_once.data, emit_once.channel, emit_once.tags, emit_once."only"
    );
    outcome := 'emitted';
    after_lsn := here;

    -- Each new key takes away more than one: what is left over never grows. Rows that another one is at are its.
    delete from walcast.idempotency where key in (
        select oldest.key from (
            select key, created_at, number from walcast.idempotency order by number limit 10 for update skip locked
        ) oldest
        where oldest.created_at < now() - lasts or oldest.number <= own_number - most
    );
end
$$;

comment on function walcast.emit_once(bytea, text, text, jsonb, text, jsonb, jsonb) is
    'walcast.emit, unless the same key was there before.';

-- Not PUBLIC alone: default privileges of this database may have granted to roles by name.
do $$
declare
    grantee text;
begin
    for grantee in
        select distinct case acl.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(acl.grantee)) end
        from pg_class, aclexplode(relacl) as acl
        where pg_class.oid = 'walcast.idempotency'::regclass and acl.grantee <> relowner
    loop
        execute format('revoke all on walcast.idempotency from %s', grantee);
    end loop;
    for grantee in
        select distinct case acl.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(acl.grantee)) end
        from pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) as acl
        where pg_proc.oid = 'walcast.emit_once(bytea,text,text,jsonb,text,jsonb,jsonb)'::regprocedure
          and acl.grantee <> proowner
    loop
        execute format(
            'revoke all on function walcast.emit_once(bytea, text, text, jsonb, text, jsonb, jsonb) from %s', grantee
        );
    end loop;
end
$$;
