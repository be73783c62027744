create or replace function outbox_relay.version_subscription() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Appends what decides a match to the history and rewrites the routes, in the transaction of the change,
-- so that expand sees all three alike. After insert or update on outbox.subscription.
declare
    patterns text[] := outbox_relay.normal_patterns(new.event_types);
begin
    insert into outbox_relay.subscription_version (version, subscription_id, tenant_id, active, patterns, filter)
    values (new.version, new.subscription_id, new.tenant_id, new.active, patterns, new.filter);
    delete from outbox_relay.route r where r.subscription_id = new.subscription_id;
    if new.active then
        insert into outbox_relay.route (tenant_id, pattern, subscription_id, version, filter, max_in_flight, ordered, paced)
        select new.tenant_id, p, new.subscription_id, new.version, new.filter, new.max_in_flight, new.ordered, new.rate_limit is not null
        from unnest(patterns) p;
    end if;
    perform outbox_relay.check_room(old, new, patterns);
    if new.rate_limit is not null then
        insert into outbox_relay.pace (subscription_id, spent_until) values (new.subscription_id, '-infinity') on conflict do nothing;
    end if;
    return null;
end
$$;
comment on function outbox_relay.version_subscription is 'Trigger: keeps history and routes in step with a subscription.';

create or replace trigger subscription_version after insert or update on outbox.subscription
for each row execute function outbox_relay.version_subscription();
comment on trigger subscription_version on outbox.subscription is 'Keeps outbox_relay.subscription_version and outbox_relay.route in step.';
