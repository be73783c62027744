create or replace function outbox_relay.audit_subscription() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Notes what was done to a subscription, whether by a function or by an update. After insert or update.
-- A rotation touches no column that is compared here; outbox.rotate_secret notes it.
declare
    was  jsonb := case when tg_op = 'UPDATE' then outbox_relay.auditable(old) end;
    now_ jsonb := outbox_relay.auditable(new);
    diff jsonb;
begin
    if tg_op = 'INSERT' then
        perform outbox_relay.audit('subscribe', new.tenant_id, new.subscription_id, detail => jsonb_strip_nulls(now_));
        return null;
    end if;
    select jsonb_object_agg(n.key, jsonb_build_object('from', was -> n.key, 'to', n.value)) into diff
    from jsonb_each(now_) n where n.value is distinct from was -> n.key;
    if diff is not null then
        perform outbox_relay.audit('change', new.tenant_id, new.subscription_id, detail => diff);
    end if;
    if new.unsubscribed_at is not null and old.unsubscribed_at is null then
        perform outbox_relay.audit('unsubscribe', new.tenant_id, new.subscription_id, detail => jsonb_build_object('name', new.name));
    elsif new.active <> old.active then
        perform outbox_relay.audit(case when new.active then 'resume' when (outbox_relay.actor()).actor = 'relay' then 'disable' else 'pause' end,
            new.tenant_id, new.subscription_id, detail => jsonb_build_object('reason', new.disabled_reason));
    end if;
    return null;
end
$$;
comment on function outbox_relay.audit_subscription is 'Trigger: notes what was done to a subscription.';

create or replace trigger subscription_audit after insert or update on outbox.subscription
for each row execute function outbox_relay.audit_subscription();
comment on trigger subscription_audit on outbox.subscription is 'Writes outbox.audit, whoever makes the change.';
