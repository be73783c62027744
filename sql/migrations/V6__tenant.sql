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
