-- walcast.emit into whichever source is set up. What it checks and signs is as before; see 0002_emit.sql.

-- An emitted event goes where the row changes of its transaction go.
create function walcast.record_event(content text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if (select source from walcast.meta) = 'outbox' then
        insert into walcast.outbox (operation, message) values ('M', content);
        perform walcast.wake();
    else
        perform pg_logical_emit_message(true, 'walcast', convert_to(content, 'UTF8'));
    end if;
end
$$;

create or replace function walcast.emit(
    organization_id text,
    type text,
    data jsonb,
    channel text default 'custom',
    tags jsonb default '{}',
    "only" jsonb default null
) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    names constant text := '^[A-Za-z0-9._:-]{1,100}$';
    own_types constant text[] := array[
        'connected', 'keepalive', 'heartbeat', 'ping', 'data.sync', 'stale', 'fresh',
        'token.expired', 'access.revoked', 'stream.evicted', 'presence_updated'
    ];
    offender text;
    secret bytea;
    event text;
    signature bytea;
begin
    channel := coalesce(channel, 'custom');
    tags := coalesce(tags, '{}');
    "only" := nullif("only", 'null');

    if organization_id is null or organization_id = '' then
        raise exception 'walcast.emit: organization_id is missing' using errcode = 'null_value_not_allowed';
    end if;
    if organization_id = '*' then
        raise exception 'walcast.emit: organization_id must be one organization, not *'
            using errcode = 'invalid_parameter_value',
                  hint = 'events for every organization come from a table whose catalog entry says organization = "*"';
    end if;
    if type is null then
        raise exception 'walcast.emit: type is missing' using errcode = 'null_value_not_allowed';
    end if;
    if type collate "C" !~ names then
        raise exception 'walcast.emit: type % must be 1 to 100 of A-Z a-z 0-9 . _ : -', quote_literal(left(type, 120))
            using errcode = 'invalid_parameter_value';
    end if;
    if type = any (own_types) then
        raise exception 'walcast.emit: type % is the worker''s own', quote_literal(type)
            using errcode = 'reserved_name', hint = 'choose another name';
    end if;
    if channel collate "C" !~ names then
        raise exception 'walcast.emit: channel % must be 1 to 100 of A-Z a-z 0-9 . _ : -',
            quote_literal(left(channel, 120)) using errcode = 'invalid_parameter_value';
    end if;
    if data is null then
        raise exception 'walcast.emit: data is missing'
            using errcode = 'null_value_not_allowed', hint = 'for a JSON null say ''null''::jsonb';
    end if;

    if jsonb_typeof(tags) <> 'object' then
        raise exception 'walcast.emit: tags must be an object, not %', jsonb_typeof(tags)
            using errcode = 'invalid_parameter_value';
    end if;
    select key into offender from jsonb_each(tags) where key collate "C" !~ names limit 1;
    if found then
        raise exception 'walcast.emit: tag name % must be 1 to 100 of A-Z a-z 0-9 . _ : -',
            quote_literal(left(offender, 120)) using errcode = 'invalid_parameter_value';
    end if;
    select key into offender from jsonb_each(tags) where jsonb_typeof(value) in ('object', 'array') limit 1;
    if found then
        raise exception 'walcast.emit: tag % must be a string, a number, a boolean or null', quote_literal(offender)
            using errcode = 'invalid_parameter_value';
    end if;

    -- A restriction that is not understood must not widen: everything but the two known forms is refused.
    if "only" is not null then
        if jsonb_typeof("only") <> 'object' or "only" = '{}' or "only" - 'roles' - 'user' <> '{}' then
            raise exception 'walcast.emit: only must be {"roles": [...]}, {"user": "..."} or both'
                using errcode = 'invalid_parameter_value';
        end if;
        if "only" ? 'user' and (jsonb_typeof("only" -> 'user') <> 'string' or "only" ->> 'user' = '') then
            raise exception 'walcast.emit: only.user must be a user''s id, a string'
                using errcode = 'invalid_parameter_value';
        end if;
        if "only" ? 'roles' and (
            jsonb_typeof("only" -> 'roles') <> 'array'
            or "only" -> 'roles' = '[]'
            or jsonb_path_exists("only" -> 'roles', 'strict $[*] ? (@.type() != "string" || @ == "")', '{}', true)
        ) then
            raise exception 'walcast.emit: only.roles must be a list of role names'
                using errcode = 'invalid_parameter_value';
        end if;
    end if;

    event := json_build_object(
        'organization_id', organization_id, 'type', type, 'channel', channel,
        'tags', tags, 'only', "only", 'data', data
    )::text;

    select value into strict secret from walcast.secret;
    -- The WAL carries the low 32 bits of a transaction's id.
    signature := sha256(secret || sha256(
        secret || convert_to((pg_current_xact_id()::text::numeric % 4294967296)::text || ':' || event, 'UTF8')
    ));
    perform walcast.record_event(encode(signature, 'hex') || ' ' || event);
end
$$;

do $$
declare
    grantee text;
begin
    for grantee in
        select distinct case acl.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(acl.grantee)) end
          from pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) as acl
         where pg_proc.oid = 'walcast.record_event(text)'::regprocedure and acl.grantee <> proowner
    loop
        execute format('revoke all on function walcast.record_event(text) from %s', grantee);
    end loop;
end
$$;
