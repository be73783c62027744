create or replace function outbox_relay.charge(subscription_ids bigint[], probed_ids bigint[], leased_ids bigint[])
returns timestamptz
language sql set search_path = pg_catalog, pg_temp
as $$
-- Books what was leased (leased_ids has a subscription's id once for each delivery) for subscriptions that
-- outbox_relay.admit has let in: the rate is spent; of those that were given room for any delivery (probed_ids),
-- a circuit's probe is under way. Returns when the first of
-- them may have more. A probe that is never heard of again, because its relay died, is replaced after a minute.
-- Called by claim, in the transaction of admit.
with leased as (
    select l.subscription_id, count(*) as count from unnest(charge.leased_ids) l (subscription_id)
    where l.subscription_id = any (charge.subscription_ids) group by l.subscription_id),
probing as (
    update outbox.subscription_health h
    set circuit = 'half_open', circuit_until = now() + interval '1 minute'
    from leased l
    where h.subscription_id = l.subscription_id and h.subscription_id = any (charge.probed_ids) and h.circuit <> 'closed'),
paced as (
    update outbox_relay.pace p
    set spent_until = greatest(p.spent_until, now() - outbox_relay.burst(s.rate_limit)) + make_interval(secs => (l.count / s.rate_limit)::double precision)
    from leased l join outbox.subscription s on s.subscription_id = l.subscription_id
    where p.subscription_id = l.subscription_id and s.rate_limit is not null
    returning p.spent_until + make_interval(secs => greatest(0.05, 1 / s.rate_limit)::double precision) as next_at)
select min(next_at) from paced
$$;
comment on function outbox_relay.charge is 'Books leased deliveries against rate limit and circuit.';
