create or replace function outbox_relay.uncharge(unmade_ids bigint[], probe_ids bigint[])
returns void
language sql set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off
as $$
-- Takes back what charge has booked for leases that were never begun (unmade_ids has a subscription's id once for each
-- lease): the rate is there again, and a circuit that waits for its probe may have another at once if the probe may be
-- among them (probe_ids). (circuit <> 'closed' is what its index is for.)
-- Waits for no lock: what a claim is about to book stays booked, and a probe that is never heard of is replaced after a
-- minute. What lies further back than the burst, charge does not count.
-- Called by hand_back, which has rows of the queue locked.
with unmade as (
    select u.subscription_id, count(*) as count from unnest(uncharge.unmade_ids) u (subscription_id) group by u.subscription_id),
half_open as (
    select h.subscription_id from outbox.subscription_health h
    where h.subscription_id = any (uncharge.probe_ids) and h.circuit <> 'closed' and h.circuit = 'half_open' for no key update of h skip locked),
reopened as (
    update outbox.subscription_health h set circuit = 'open', circuit_until = now()
    from half_open o where h.subscription_id = o.subscription_id),
paced as (
    select p.subscription_id, u.count / s.rate_limit as seconds
    from unmade u join outbox_relay.pace p using (subscription_id) join outbox.subscription s using (subscription_id)
    where s.rate_limit is not null for no key update of p skip locked)
update outbox_relay.pace p set spent_until = p.spent_until - make_interval(secs => paced.seconds::double precision)
from paced where p.subscription_id = paced.subscription_id
$$;
comment on function outbox_relay.uncharge is 'Takes back what was booked for leases that were never begun.';
