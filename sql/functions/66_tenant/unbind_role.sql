create or replace function outbox.unbind_role(role name, tenant_id text default null)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Takes one binding of a role back, or all of them. A role without any is confined to nothing: it has what the groups
-- it is in have. Of a role that was dropped, role is the number that outbox.role_binding shows.
-- With the last binding of all, COPY into outbox.event is possible again.
-- Called by the owner of the schema or a superuser, with whose rights it runs: it is granted to nobody.
declare
    before_lock text := current_setting('lock_timeout');
    gone        text[];
begin
    begin
        perform set_config('lock_timeout', '2s', true);
        lock table outbox_relay.role_tenant in share row exclusive mode;
        with ended as (
            delete from outbox_relay.role_tenant t
            where (t.role = (select r.oid from pg_roles r where r.rolname = unbind_role.role)
                    or t.role::oid::text = unbind_role.role and not exists (select from pg_roles r where r.oid = t.role))
              and (unbind_role.tenant_id is null or t.tenant_id = unbind_role.tenant_id)
            returning t.tenant_id)
        select array_agg(e.tenant_id) into gone from ended e;
        if gone is not null and not exists (select from outbox_relay.role_tenant) then
            alter table outbox.event disable row level security;
        end if;
        perform set_config('lock_timeout', before_lock, true);
    exception when lock_not_available then
        raise exception using errcode = 'OB040', message = 'a transaction that reads or writes events is open for too long',
            hint = 'Taking the last binding back needs a moment without any. Try again.';
    end;
    if gone is null then
        raise exception using errcode = 'OB081', message = format('role %s is not bound%s', quote_nullable(unbind_role.role),
                coalesce(format(' to %s', quote_literal(unbind_role.tenant_id)), '')),
            hint = 'See select * from outbox.role_binding.';
    end if;
    perform outbox_relay.audit('unbind_role', g.tenant_id, detail => jsonb_build_object('role', unbind_role.role))
    from unnest(gone) g (tenant_id);
end
$$;
comment on function outbox.unbind_role is 'Takes the bindings of a database role back, or one of them. For the owner of the schema alone.';
