create or replace function outbox.bind_role(role name, tenant_id text)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- From now on this role, and every member of it, sees and operates only this tenant, and those it is bound to
-- besides. What it may do there is what outbox_producer, outbox_viewer or outbox_operator may, as it is a member of them.
--
-- The first binding of all switches row level security of outbox.event on. That takes the table for a moment, and
-- gives up after two seconds of waiting for it; from then on COPY into it is refused to everybody but its owner.
-- Called by the owner of the schema or a superuser, with whose rights it runs: it is granted to nobody.
declare
    before_lock text := current_setting('lock_timeout');
    owner       oid := (select n.nspowner from pg_namespace n where n.nspname = 'outbox');
    groups      constant name[] := '{outbox_producer,outbox_viewer,outbox_operator,outbox_relay}';
    r           pg_roles;
    bad         text;
begin
    select * into r from pg_roles v where v.rolname = bind_role.role;
    bad := case
        when r.oid is null then 'does not exist'
        when r.rolname = any (groups) then 'is a group of outboxd: all that are in it would be bound'
        when r.rolsuper then 'is a superuser, whom nothing confines'
        when r.rolbypassrls then 'has BYPASSRLS, so no policy confines it'
        when pg_has_role(r.oid, owner, 'member') then 'is a member of the owner of the schema, whom nothing confines'
        when exists (select from pg_roles g where g.rolname = 'outbox_relay' and pg_has_role(r.oid, g.oid, 'member'))
            then 'is a member of outbox_relay, which works for all tenants'
        when exists (select from pg_roles g where g.rolname = any (groups) and pg_has_role(g.oid, r.oid, 'member'))
            then 'has a group of outboxd as its member: all that are in that group would be bound'
        end;
    if bad is not null then
        raise exception using errcode = 'OB081', message = format('role %s %s', quote_nullable(bind_role.role), bad),
            hint = 'Make a role of its own for the tenant, grant it outbox_producer, outbox_viewer or outbox_operator, and bind that one.';
    elsif bind_role.tenant_id is null or octet_length(bind_role.tenant_id) not between 1 and 128 or bind_role.tenant_id ~ '[[:cntrl:]]' then
        raise exception using errcode = 'OB002', message = 'tenant_id is empty, longer than 128 bytes, or has control characters',
            hint = 'Use the tenant_id that events carry.';
    elsif current_setting('server_version_num')::integer < 150000 then
        raise exception using errcode = 'OB081', message = 'roles cannot be bound to tenants in PostgreSQL 14, whose views run with the rights of their owner',
            hint = 'Upgrade to PostgreSQL 15 or later, or give the tenant a token: outbox.create_token(role, tenant_id => …).';
    end if;

    begin
        perform set_config('lock_timeout', '2s', true);
        -- One binding at a time: the first and the last do more than the others.
        lock table outbox_relay.role_tenant in share row exclusive mode;
        perform outbox_relay.confine();
        if not (select c.relrowsecurity from pg_class c where c.oid = 'outbox.event'::regclass) then
            alter table outbox.event enable row level security;
            raise notice 'COPY into outbox.event is refused from now on, as into every table with row level security'
                using hint = 'Use insert into outbox.event or outbox.publish.';
        end if;
        perform set_config('lock_timeout', before_lock, true);
    exception when lock_not_available then
        raise exception using errcode = 'OB040', message = 'a transaction that reads or writes events is open for too long',
            hint = 'The first binding needs a moment without any. Try again.';
    end;
    insert into outbox_relay.role_tenant as t (role, tenant_id, bound_by)
    values (r.oid, bind_role.tenant_id, (outbox_relay.actor()).actor)
    on conflict on constraint role_tenant_pkey do nothing;
    if found then
        perform outbox_relay.audit('bind_role', bind_role.tenant_id, detail => jsonb_build_object('role', bind_role.role));
    end if;
end
$$;
comment on function outbox.bind_role is 'Confines a database role to a tenant; bound to several it has them all. For the owner of the schema alone.';
