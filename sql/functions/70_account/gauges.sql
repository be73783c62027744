create or replace function outbox_relay.gauges()
returns table (
    log_head bigint, unexpanded_events bigint, pending bigint, leased bigint, failed bigint, dead_letters bigint, relays bigint,
    on_hold boolean, lag_s double precision, oldest_due_s double precision, segments bigint, closed_segments bigint,
    stopped_keys bigint, circuits_open bigint, circuits_half_open bigint, disabled bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off
as $$
-- What /metrics says of the whole fleet, and /readyz judges by. Called by the daemon at most once a second.
select s.log_head, s.unexpanded_events, s.pending, s.leased, s.failed, s.dead_letters, s.relays, s.hold is not null,
       extract(epoch from s.lag)::double precision,
       coalesce(extract(epoch from greatest(now() - s.oldest_due, interval '0')), 0)::double precision,
       (select count(*) from outbox_relay.segment g where g.closed_at is null),
       (select count(*) from outbox_relay.segment g where g.closed_at is not null),
       (select count(*) from outbox.stopped_key),
       (select count(*) from outbox.subscription_health h where h.circuit <> 'closed' and h.circuit = 'open'),
       (select count(*) from outbox.subscription_health h where h.circuit <> 'closed' and h.circuit = 'half_open'),
       (select count(*) from outbox.subscription s where not s.active and s.unsubscribed_at is null)
from outbox.status() s
$$;
comment on function outbox_relay.gauges is 'What /metrics says of the whole fleet.';
