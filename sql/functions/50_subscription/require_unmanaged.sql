create or replace function outbox_relay.require_unmanaged(s outbox.subscription)
returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
-- Refuses to change by hand what the configuration manages, and would change back at the next start, unless the
-- session says that it means it. Called by check_subscription, rotate_secret and unsubscribe.
begin
    if s.managed_by is not null and coalesce(current_setting('outbox.override_managed', true), '') <> 'on' then
        raise exception using errcode = 'OB024', message = format('subscription %s is managed by the %s', s.subscription_id, s.managed_by),
            hint = 'Change it there. To change it by hand until the next start, set outbox.override_managed = on; pausing and replaying need no leave.';
    end if;
end
$$;
comment on function outbox_relay.require_unmanaged is 'Refuses to change by hand what the configuration manages.';
