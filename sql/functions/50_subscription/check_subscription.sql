create or replace function outbox_relay.check_subscription() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Refuses what could not be delivered, as early as SQL can know, and gives each change a new version.
-- Before insert or update on outbox.subscription, whoever makes the change.
declare
    insecure boolean := (select value::boolean from outbox.setting where name = 'allow_insecure_http');
    bad      text;
    path     text;
begin
    if tg_op = 'UPDATE' then
        if new.tenant_id <> old.tenant_id then
            raise exception using errcode = 'OB022', message = 'a subscription cannot move to another tenant',
                hint = 'Unsubscribe it and subscribe anew for the other tenant.';
        elsif old.unsubscribed_at is not null then
            raise exception using errcode = 'OB023', message = format('subscription %s was unsubscribed', old.subscription_id),
                hint = 'Make a new one with outbox.subscribe.';
        end if;
        new.version := nextval('outbox_relay.subscription_version_seq');
        new.updated_at := now();
        -- Only what changes is judged: a rule that came later must not keep anybody from pausing.
        if (new.url, new.name, new.event_types, new.filter::text, new.headers, new.signature, new.signature_header, new.envelope, new.retry_policy, new.timeout,
                new.max_in_flight, new.rate_limit, new.ordered, new.tls)
            is not distinct from (old.url, old.name, old.event_types, old.filter::text, old.headers, old.signature, old.signature_header, old.envelope,
                old.retry_policy, old.timeout, old.max_in_flight, old.rate_limit, old.ordered, old.tls) then
            return new;
        end if;
        if new.managed_by is not distinct from old.managed_by then
            perform outbox_relay.require_unmanaged(old);
        end if;
    end if;

    if octet_length(new.tenant_id) not between 1 and 128 or new.tenant_id ~ '[[:cntrl:]]' then
        raise exception using errcode = 'OB002', message = 'tenant_id is empty, longer than 128 bytes, or has control characters',
            hint = 'Use the tenant_id that events carry.';
    end if;
    if octet_length(new.name) not between 1 and 255 or new.name ~ '[[:cntrl:]]' then
        raise exception using errcode = 'OB018', message = 'name is empty, longer than 255 bytes, or has control characters',
            hint = 'Use a short printable name.';
    end if;

    perform outbox_relay.check_limits(old, new);

    -- The relay judges the URL again, and the address whenever it dials.
    bad := outbox_relay.url_refusal(new.url, insecure);
    if bad is not null then
        -- The query may hold a token: it is not repeated.
        raise exception using errcode = 'OB010', message = format('url %s %s', quote_nullable(left(split_part(new.url, '?', 1), 200)), bad),
            hint = case when bad = 'is not https:'
                then 'Use https:, or in a closed network select outbox.set(''allow_insecure_http'', ''true'').'
                else 'Use an absolute https: URL of a public host, as https://hooks.example.com/in.' end;
    end if;

    if coalesce(cardinality(new.event_types), 0) < 1 or array_ndims(new.event_types) <> 1 then
        raise exception using errcode = 'OB011', message = 'event_types is empty',
            hint = 'Name types as order.created, order.* for everything below order, or * for all.';
    end if;
    select p into bad from unnest(new.event_types) p
    where p is null or p !~ '^([A-Za-z0-9_-]+\.)*([A-Za-z0-9_-]+|\*)$' or octet_length(p) > 130 limit 1;
    if found then
        raise exception using errcode = 'OB011', message = format('event type pattern %s is not acceptable', quote_nullable(bad)),
            hint = 'Name types as order.created, order.* for everything below order, or * for all.';
    end if;

    -- What can raise an error even where errors are silenced, or visit a payload many times over, is refused:
    -- expand evaluates filters for all tenants. Literals are blanked first, so that only syntax is looked at.
    path := regexp_replace(new.filter::text, '"([^"\\]|\\.)*"', '""', 'g');
    bad := case
        when path ~ '\$""' then 'uses a variable'
        when path ~ '\.(datetime|date|time|time_tz|timestamp|timestamp_tz)\(' then 'uses a date or time method'
        when path ~ '\*\*' then 'uses **'
        when path ~ '\?.*\?' then 'has more than one ?'
        when path ~ '\?.*\$' then 'refers to $ behind ?'
        -- Two lists are compared pair by pair, and nothing can interrupt that. Strict paths find one value each.
        when path ~ '(==|!=|<>|<=|>=|<|>) *[(-]* *[$@]' and (path !~ '^strict' or path ~ '\*| to |keyvalue')
            then 'compares two paths: write strict $.old == $.new, with no list on either side, or put the literal on the right'
        end;
    if bad is not null then
        raise exception using errcode = 'OB012', message = format('filter %s', bad),
            hint = 'Write a predicate over the payload, as $.total > 100, or a path that finds something, as $.items[*] ? (@.qty > 5).';
    end if;

    if new.signature not in ('standard', 'standard-ed25519', 'x-signature', 'x-webhook', 'github', 'stripe') then
        raise exception using errcode = 'OB013', message = format('unknown signature profile %s', quote_literal(new.signature)),
            hint = 'Use standard, standard-ed25519, x-signature, x-webhook, github or stripe.';
    elsif new.envelope not in ('standard', 'event', 'resource', 'cloudevents', 'payload') then
        raise exception using errcode = 'OB013', message = format('unknown envelope %s', quote_literal(new.envelope)),
            hint = 'Use standard, event, resource, cloudevents or payload.';
    elsif not exists (select from outbox.retry_policy p where p.name = new.retry_policy) then
        raise exception using errcode = 'OB014', message = format('unknown retry policy %s', quote_nullable(new.retry_policy)),
            hint = format('Use one of %s, or insert your own into outbox.retry_policy.',
                (select string_agg(name, ', ' order by name) from outbox.retry_policy));
    elsif new.timeout not between '100 milliseconds' and '5 minutes' then
        raise exception using errcode = 'OB018', message = format('timeout %s is out of range', new.timeout),
            hint = 'Use 100 milliseconds to 5 minutes.';
    elsif new.max_in_flight not between 1 and 10000 then
        raise exception using errcode = 'OB018', message = format('max_in_flight %s is out of range', new.max_in_flight),
            hint = 'Use 1 to 10000.';
    elsif new.rate_limit not between 0.001 and 100000 then
        raise exception using errcode = 'OB018', message = format('rate_limit %s is out of range', new.rate_limit),
            hint = 'Use 0.001 to 100000 attempts a second, or null for no limit.';
    end if;
    perform outbox_relay.check_headers(new.headers, new.signature_header);
    perform outbox_relay.check_tls(new.tls, new.url);
    if new.tls ? 'client' and (tg_op = 'INSERT' or new.tls ->> 'client' is distinct from old.tls ->> 'client') then
        perform outbox_relay.refuse_reference('tls.client');
    end if;
    if tg_op = 'UPDATE' and new.signature <> old.signature then
        -- What signs now must fit the new profile.
        perform outbox_relay.check_stored(new.signature, x.secret, x.form)
        from outbox.signing_key k join outbox_relay.signing_secret x using (subscription_id, key_id)
        where k.subscription_id = new.subscription_id and k.revoked_at is null and (k.expires_at is null or k.expires_at > now());
    end if;
    return new;
end
$$;
comment on function outbox_relay.check_subscription is 'Trigger: refuses a subscription that could not be delivered to.';

create or replace trigger subscription_check before insert or update on outbox.subscription
for each row execute function outbox_relay.check_subscription();
comment on trigger subscription_check on outbox.subscription is 'Whoever changes a subscription, the same rules hold.';
