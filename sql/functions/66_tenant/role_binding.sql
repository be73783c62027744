-- Here and not in a migration, because it calls a function. Who is bound sees the bindings of its own tenants.
create or replace view outbox.role_binding with (security_barrier) as
select coalesce((select r.rolname from pg_catalog.pg_roles r where r.oid = t.role), t.role::oid::text::name) as role, t.tenant_id, t.bound_by, t.bound_at
from outbox_relay.role_tenant t
where coalesce(t.tenant_id = any ((select outbox_relay.bound_tenants(current_user))::text[]), true);
comment on view outbox.role_binding is 'Which database roles are bound to which tenants, see outbox.bind_role.';
comment on column outbox.role_binding.role is 'Its name; a number if the role was dropped.';
