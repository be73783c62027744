create or replace function outbox_relay.bound_tenants(caller name default null)
returns text[]
language plpgsql stable parallel restricted security definer set search_path = pg_catalog, pg_temp
as $$
-- The tenants that whoever asks is confined to; null if to none. Never an array with a null in it.
--
-- Judged are the user of the session, the role it has set, and the caller, which is current_user in a policy and
-- nobody in a function with its owner's rights: if any of them is bound, or a member of a role that is, inherited or
-- not, all are. So SET ROLE to a group that the login is a member of frees nobody, nor does a wrapper of somebody
-- else's. If the caller is bound and whoever is behind it too, what both are bound to is left: a wrapper of another
-- tenant's is shown nothing of whoever calls it, and who calls this with somebody's name learns no tenant of theirs.
-- Superusers and the owner of the schema are not bound: they could unbind themselves. Nor is the relay, which works
-- for all; a request of the HTTP API is confined to its token's tenant by outbox_relay.enter in outbox.tenant, which is
-- believed from the relay alone.
-- Called once a statement by the policies, and by the functions that operators and producers call; never by the relay's.
declare
    tenants text[];
    callers text[];
    claimed text := nullif(current_setting('outbox.tenant', true), '');
    relay   oid;
begin
    -- Where nobody is bound that is all it costs.
    if exists (select from outbox_relay.role_tenant) then
        relay := (select r.oid from pg_roles r where r.rolname = 'outbox_relay');
        with recursive held (role, is_callers) as (
            select r.oid, w.is_callers
            from (values (session_user, false), (current_setting('role')::name, false), (bound_tenants.caller, true)) w (name, is_callers)
            join pg_roles r on r.rolname = w.name
            where not r.rolsuper
              and r.oid <> (select n.nspowner from pg_namespace n where n.nspname = 'outbox')
              and pg_has_role(r.oid, relay, 'member') is not true
            union
            select m.roleid, h.is_callers from held h join pg_auth_members m on m.member = h.role)
        select array_agg(distinct b.tenant_id) filter (where not h.is_callers), array_agg(distinct b.tenant_id) filter (where h.is_callers)
        into tenants, callers
        from held h join outbox_relay.role_tenant b on b.role = h.role;
        tenants := case when tenants is null then callers when callers is null then tenants
            else array(select unnest(tenants) intersect select unnest(callers)) end;
    end if;
    if claimed is not null
        and (select pg_has_role(session_user, r.oid, 'member') from pg_roles r where r.rolname = 'outbox_relay') then
        tenants := case when tenants is null or claimed = any (tenants) then array[claimed] else '{}' end;
    end if;
    return tenants;
end
$$;
comment on function outbox_relay.bound_tenants is 'The tenants that the caller is confined to; null if to none.';
