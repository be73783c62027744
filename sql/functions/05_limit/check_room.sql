create or replace function outbox_relay.check_room(before outbox.subscription, s outbox.subscription, patterns text[])
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Refuses a subscription that its tenant has no room for: too many of them, too many that one event would be for,
-- or a filter so soon after others had to be taken out. before is null for a new one; patterns are its normal ones.
--
-- Fan-out is judged here and not where events are made: an event is never refused or lost because of who wants it.
-- The types that the new patterns want are judged by the worst case. A type is wanted by the subscriptions with one of
-- the patterns above it: itself, order.line.*, order.*, *. These lie in a row, so the worst of all types is found at
-- the patterns themselves: for each one that the new patterns cover, as many as have a pattern that covers it. No
-- subscription is counted twice, because none of its own patterns covers another (normal_patterns).
--
-- Two transactions at once must not both take the last place. They meet on the tenant's row, and what is counted is
-- counted after that. Rejected: an advisory lock, after which a repeatable read snapshot still does not see the other.
-- Called by version_subscription, when the routes are written. Writes tenant_room.
declare
    added    boolean := s.active and (before.subscription_id is null or not before.active or s.event_types is distinct from before.event_types);
    filtered boolean := s.active and s.filter is not null
        and (before.subscription_id is null or not before.active or s.filter::text is distinct from before.filter::text);
    most     integer := outbox_relay.limit_of('max_subscriptions_per_tenant');
    living   bigint;
    worst    record;
begin
    if filtered and (select count(*) >= 3 from outbox_relay.slow_filter f
                     where f.tenant_id = s.tenant_id and f.found_at > now() - interval '1 hour') then
        raise exception using errcode = 'OB072', message = format('three filters of tenant %s did not end in time within the last hour', quote_literal(s.tenant_id)),
            hint = 'Wait for an hour, or leave the filter out: it held up everybody''s events. See setting filter_timeout.';
    end if;
    if before.subscription_id is not null and not added then
        return;
    end if;
    -- One row version a transaction, however many subscriptions it makes.
    insert into outbox_relay.tenant_room as t (tenant_id) values (s.tenant_id)
    on conflict on constraint tenant_room_pkey do update set xact = pg_current_xact_id() where t.xact <> pg_current_xact_id();

    select count(*) into living from outbox.subscription t where t.tenant_id = s.tenant_id and t.unsubscribed_at is null;
    if before.subscription_id is null and living > most then
        raise exception using errcode = 'OB070',
            message = format('tenant %s has %s subscriptions, which is the limit (setting max_subscriptions_per_tenant)', quote_literal(s.tenant_id), most),
            hint = 'Unsubscribe what is no longer used, or raise the limit: select outbox.set(''max_subscriptions_per_tenant'', ''…'').';
    end if;
    most := outbox_relay.limit_of('max_fan_out');
    if not added or living <= most then
        return;
    end if;
    with counted as materialized (
        select r.pattern, count(*) as count from outbox_relay.route r where r.tenant_id = s.tenant_id group by r.pattern),
    covered as (
        select c.pattern from counted c
        where c.pattern = any (patterns) or '*' = any (patterns) and not starts_with(c.pattern, 'outbox.')
           or exists (select from unnest(patterns) p where right(p, 2) = '.*' and starts_with(c.pattern, left(p, -1)))),
    above as (
        select c.pattern, c.pattern as over from covered c
        union
        select c.pattern, '*' from covered c where not starts_with(c.pattern, 'outbox.')
        union
        select c.pattern, left(c.pattern, i) || '*' from covered c, generate_series(2, length(c.pattern) - 1) i where substr(c.pattern, i, 1) = '.')
    select a.pattern, sum(c.count) as count into worst
    from above a join counted c on c.pattern = a.over
    group by a.pattern order by sum(c.count) desc limit 1;
    if worst.count > most then
        raise exception using errcode = 'OB071',
            message = format('an event of type %s would be for %s active subscriptions of tenant %s, the limit is %s (setting max_fan_out)',
                worst.pattern, worst.count, quote_literal(s.tenant_id), most),
            hint = 'Pause or unsubscribe others, want fewer types, or raise the limit: select outbox.set(''max_fan_out'', ''…'').';
    end if;
end
$$;
comment on function outbox_relay.check_room is 'Refuses a subscription that its tenant has no room for.';
