-- walcast's own schema and the secret that signs what walcast.emit writes.

do $$
declare
    holder name;
begin
    -- Who owns the schema can replace what is in it, the secret too: a schema somebody else made is not safe to use.
    select pg_get_userbyid(nspowner) into holder from pg_namespace where nspname = 'walcast';
    if holder is null then
        create schema walcast;
    elsif holder <> current_user then
        raise exception 'schema walcast belongs to %, not to %', holder, current_user
            using hint = 'migrate as that role, or drop the schema';
    end if;
end
$$;

comment on schema walcast is 'walcast: committed rows as events on Server-Sent-Events streams';

create table walcast.secret (
    only_row boolean primary key default true check (only_row),
    value bytea not null check (octet_length(value) = 32)
);

comment on table walcast.secret is 'The key of walcast.emit''s signatures: for its owner and the worker''s role, nobody else.';

-- Four random uuids carry 488 random bits; pgcrypto would need an extension.
insert into walcast.secret (value)
select sha256(convert_to(string_agg(gen_random_uuid()::text, ''), 'UTF8'))
from generate_series(1, 4);

-- Not PUBLIC alone: default privileges of this database may have granted new tables to roles by name.
do $$
declare
    grantee text;
begin
    for grantee in
        select distinct case acl.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(acl.grantee)) end
        from pg_class, aclexplode(relacl) as acl
        where pg_class.oid = 'walcast.secret'::regclass and acl.grantee <> relowner
    loop
        execute format('revoke all on walcast.secret from %s', grantee);
    end loop;
end
$$;
