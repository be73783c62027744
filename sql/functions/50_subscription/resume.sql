create or replace function outbox.resume(subscription_id bigint, tenant_id text default null)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Lets a paused or disabled subscription go on, with what waited, and closes its circuit. Events of the
-- meantime were not created for it; see outbox.replay_missing.
begin
    if not (outbox_relay.require_subscription(resume.subscription_id, resume.tenant_id)).active then
        update outbox.subscription s set active = true, disabled_at = null, disabled_reason = null
        where s.subscription_id = resume.subscription_id;
    end if;
    perform outbox_relay.reset_circuit(resume.subscription_id);
    perform pg_notify('outbox_signal', 'due');
end
$$;
comment on function outbox.resume is 'Lets a paused or disabled subscription go on, and closes its circuit.';
