create or replace function outbox.resume(subscription_id bigint, tenant_id text default null)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Lets a paused or disabled subscription go on, with what waited, and closes its circuit. Events of the
-- meantime were not created for it; see outbox.replay_missing.
declare
    s outbox.subscription := outbox_relay.require_subscription(resume.subscription_id, resume.tenant_id);
begin
    if not s.active then
        update outbox.subscription t set active = true, disabled_at = null, disabled_reason = null
        where t.subscription_id = resume.subscription_id;
    elsif exists (select from outbox.subscription_health h where h.subscription_id = s.subscription_id and h.circuit <> 'closed') then
        perform outbox_relay.audit('resume', s.tenant_id, s.subscription_id, detail => '{"circuit": "closed"}');
    end if;
    perform outbox_relay.reset_circuit(resume.subscription_id);
    perform pg_notify('outbox_signal', 'due');
end
$$;
comment on function outbox.resume is 'Lets a paused or disabled subscription go on, and closes its circuit.';
