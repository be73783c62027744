create or replace function outbox_relay.refuse_bound() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Keeps whoever is bound to some tenants from changing what all of them use. Before a statement.
begin
    perform outbox_relay.require_all_tenants();
    return null;
end
$$;
comment on function outbox_relay.refuse_bound is 'Trigger: what all tenants use is not for one of them to change.';

create or replace trigger retry_policy_unbound before insert or update or delete on outbox.retry_policy
for each statement execute function outbox_relay.refuse_bound();
comment on trigger retry_policy_unbound on outbox.retry_policy is 'A role that is bound to tenants changes no retry policy: others use it.';
