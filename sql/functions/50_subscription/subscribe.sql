create or replace function outbox.subscribe(
    url text, event_types text[], tenant_id text default 'default', name text default null, secret text default null,
    filter text default null, headers jsonb default '{}', signature text default 'standard', envelope text default 'standard',
    retry_policy text default null, timeout interval default null, max_in_flight integer default null,
    rate_limit numeric default null, ordered boolean default false, description text default null, signature_header text default null,
    tls jsonb default null, secret_ref text default null)
returns outbox.new_subscription
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Creates an endpoint and returns its id and its secret, which is shown this once.
-- Called by operators and applications. Events committed before it are not sent; see outbox.replay_missing.
declare
    path    jsonpath;
    created outbox.new_subscription;
begin
    perform outbox_relay.require_tenant(coalesce(subscribe.tenant_id, 'default'));
    begin
        path := subscribe.filter::jsonpath;
    exception when others then
        raise exception using errcode = 'OB012', message = format('filter is not a valid jsonpath: %s', sqlerrm),
            hint = 'Write a predicate over the payload, as $.total > 100, or a path that finds something, as $.items[*] ? (@.qty > 5).';
    end;
    -- For a secret that arrives sealed the daemon took the id before.
    created.subscription_id := coalesce((select o.subscription_id from outbox_relay.offered_key o where o.xact = pg_current_xact_id()),
        nextval(pg_get_serial_sequence('outbox.subscription', 'subscription_id')));
    begin
        insert into outbox.subscription (subscription_id, tenant_id, name, url, event_types, filter, headers, signature, signature_header, envelope,
            retry_policy, timeout, max_in_flight, rate_limit, ordered, description, tls, created_by)
        overriding system value
        values (created.subscription_id, coalesce(subscribe.tenant_id, 'default'),
            coalesce(subscribe.name, 'subscription-' || created.subscription_id), subscribe.url, subscribe.event_types, path,
            coalesce(subscribe.headers, '{}'), coalesce(subscribe.signature, 'standard'), subscribe.signature_header, coalesce(subscribe.envelope, 'standard'),
            coalesce(subscribe.retry_policy, (select t.value from outbox.setting t where t.name = 'default_retry_policy')),
            subscribe.timeout, subscribe.max_in_flight, subscribe.rate_limit, coalesce(subscribe.ordered, false), subscribe.description, nullif(subscribe.tls, 'null'),
            (outbox_relay.actor()).actor);
    exception when unique_violation then
        raise exception using errcode = 'OB017',
            message = format('tenant %s has a subscription named %s already', quote_literal(subscribe.tenant_id), quote_literal(subscribe.name)),
            hint = 'Choose another name, or change the existing one.';
    end;
    select k.new_secret, k.new_key_id into created.secret, created.key_id
    from outbox_relay.add_key(created.subscription_id, coalesce(subscribe.signature, 'standard'), subscribe.secret, subscribe.secret_ref) k;
    return created;
end
$$;
comment on function outbox.subscribe is 'Creates an endpoint; returns its id, its secret (shown this once) and the key id.';
