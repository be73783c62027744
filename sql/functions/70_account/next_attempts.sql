create or replace function outbox.next_attempts(subscription_id bigint, event_seq bigint)
returns setof timestamptz
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off
as $$
-- When a delivery will be attempted if every attempt fails, without jitter and the attempts' own time: first
-- when it is due, then as its retry policy says. Nothing if it has ended, is a test that was made, or waits for
-- an earlier event of its ordering key.
with q as (
    select coalesce(q.next_attempt_at, clock_timestamp()) as due, q.failures, q.state, q.cause, p.delays
    from outbox_relay.queue q
    join outbox.subscription s on s.subscription_id = q.subscription_id
    join outbox.retry_policy p on p.name = s.retry_policy
    where q.subscription_id = next_attempts.subscription_id and q.event_seq = next_attempts.event_seq
      and q.next_attempt_at is distinct from 'infinity'
      and coalesce(s.tenant_id = any ((select outbox_relay.bound_tenants())::text[]), true))
select q.due from q where q.state <> 'leased'
union all
select q.due + sum(d.delay) over (order by d.place)
from q cross join lateral unnest(q.delays) with ordinality d (delay, place)
where d.place > q.failures and q.cause <> 'test'
order by 1
$$;
comment on function outbox.next_attempts is 'When a delivery will be attempted if every attempt fails.';
