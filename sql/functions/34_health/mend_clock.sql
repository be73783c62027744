create or replace function outbox_relay.mend_clock()
returns void
language sql set search_path = pg_catalog, pg_temp
as $$
-- The server's clock was set back, and what rates have spent and when circuits may be probed still counts by the old one:
-- it lies further ahead than it could by this one, and nobody would be sent to before then. It counts from now. The same
-- is done where circuit_max_interval was lowered.
-- Called by maintain, about once a minute.
with rates as (
    select p.subscription_id, p.spent_until from outbox_relay.pace p join outbox.subscription s using (subscription_id)
    where p.spent_until > clock_timestamp() + interval '1 minute' + coalesce(outbox_relay.burst(s.rate_limit), '0')
    for no key update of p skip locked),
paced as (
    update outbox_relay.pace p set spent_until = clock_timestamp() from rates r where p.subscription_id = r.subscription_id),
probes as (
    select h.subscription_id from outbox.subscription_health h
    where h.circuit <> 'closed' and h.circuit_until > clock_timestamp() + interval '1 minute'
        + 1.1 * (select greatest(value::interval, '1 minute') from outbox.setting where name = 'circuit_max_interval')
    for no key update of h skip locked)
update outbox.subscription_health h set circuit_until = clock_timestamp() from probes where h.subscription_id = probes.subscription_id
$$;
comment on function outbox_relay.mend_clock is 'Brings rates and circuits back to now after the clock was set back.';
