-- Database roles that are for some tenants only. The rules that follow from a row here are the policies that
-- outbox_relay.confine() makes, and outbox_relay.require_… in the functions.

create table outbox_relay.role_tenant (
    role      regrole not null,
    tenant_id text not null,
    bound_by  text not null default session_user,
    bound_at  timestamptz not null default now(),
    primary key (role, tenant_id),
    constraint role_tenant_tenant_id check (tenant_id <> '')
);
comment on table outbox_relay.role_tenant is 'A role named here, and every member of it, sees and operates only its tenants. Written by outbox.bind_role and outbox.unbind_role.';
comment on column outbox_relay.role_tenant.role is 'By its id: a role that is renamed stays bound.';

create view outbox.role_binding as
select coalesce((select r.rolname from pg_roles r where r.oid = t.role), t.role::oid::text::name) as role, t.tenant_id, t.bound_by, t.bound_at
from outbox_relay.role_tenant t;
comment on view outbox.role_binding is 'Which database roles are bound to which tenants, see outbox.bind_role. Who is bound sees the bindings of its tenants.';
comment on column outbox.role_binding.role is 'Its name; a number if the role was dropped.';
