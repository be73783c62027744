create or replace function outbox_relay.audit_retry_policy() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Notes what was done to a retry policy. After insert, update or delete on outbox.retry_policy.
begin
    perform outbox_relay.audit(case tg_op when 'INSERT' then 'define_retry_policy' when 'UPDATE' then 'change_retry_policy' else 'drop_retry_policy' end,
        detail => jsonb_build_object('name', coalesce(new.name, old.name), 'delays', new.delays::text, 'jitter', new.jitter, 'max_age', new.max_age::text));
    return null;
end
$$;
comment on function outbox_relay.audit_retry_policy is 'Trigger: notes what was done to a retry policy.';

create or replace trigger retry_policy_audit after insert or update or delete on outbox.retry_policy
for each row execute function outbox_relay.audit_retry_policy();
comment on trigger retry_policy_audit on outbox.retry_policy is 'Writes outbox.audit, whoever makes the change.';
