create or replace function outbox.status()
returns table (
    log_head bigint, unexpanded_events bigint, pending bigint, leased bigint, failed bigint, dead_letters bigint,
    oldest_due timestamptz, lag interval, relays bigint, hold text, environment text)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off
as $$
-- How things stand, in one row. Reads what is outstanding and the index of dead letters, never history.
-- Who is bound to tenants has the figures of theirs, and no log_head; relays, hold and environment are everybody's.
--
-- lag: how long the oldest event that waits for expansion, or the oldest delivery that a relay could send
-- now, has waited; zero when nothing waits. What a pause, a circuit or a rate limit holds back does not count, nor
-- what waits behind others of its subscription that are under way: lag is about the relays, not about receivers.
with bound as materialized (select outbox_relay.bound_tenants() as tenants),
c as (select * from outbox_relay.cursor order by cursor_id desc limit 1),
unexpanded as (
    -- The first in the log stands for the oldest: there may be millions, and a time for each would cost more than all else.
    select count(*) as count, min(u.event_seq) as first_seq
    from c cross join lateral (
        select e.event_seq, e.tenant_id from outbox.event e
        where e.event_seq > c.seen_seq
          and not outbox_relay.expanded_before(e.xact, e.event_seq, c.seen, c.target, c.position, c.floor_seq)
        union all
        -- Compared as rows, and apart, so that it is a look-up in event_xact_idx: by the primary key it was a walk from
        -- floor_seq on whenever a transaction was open somewhere in the cluster.
        select l.event_seq, l.tenant_id from pg_snapshot_xip(c.seen) x
        cross join lateral (
            select e.xact, e.event_seq, e.tenant_id from outbox.event e
            where (e.xact, e.event_seq) > (x, c.floor_seq) and (e.xact, e.event_seq) <= (x, c.seen_seq) offset 0) l
        where not outbox_relay.expanded_before(l.xact, l.event_seq, c.seen, c.target, c.position, c.floor_seq)) u
    where coalesce(u.tenant_id = any ((select tenants from bound)::text[]), true)),
first as (
    select coalesce(outbox_relay.made_at(e.event_id), e.occurred_at) as inserted_at
    from outbox.event e where e.event_seq = (select u.first_seq from unexpanded u)),
queued as (
    select coalesce(sum(q.pending), 0)::bigint as pending, coalesce(sum(q.leased), 0)::bigint as leased, coalesce(sum(q.failed), 0)::bigint as failed,
           min(q.due) filter (where s.active and s.rate_limit is null
               and h.circuit is distinct from 'open' and h.circuit is distinct from 'half_open') as oldest_due,
           min(q.due) filter (where s.active and s.rate_limit is null and q.leased = 0
               and h.circuit is distinct from 'open' and h.circuit is distinct from 'half_open') as oldest_left
    from (
        select q.subscription_id, count(*) filter (where q.state = 'pending') as pending, count(*) filter (where q.state = 'leased') as leased,
               count(*) filter (where q.state = 'failed') as failed, min(q.next_attempt_at) filter (where q.next_attempt_at <= now()) as due
        from outbox_relay.queue q group by q.subscription_id) q
    join outbox.subscription s using (subscription_id)
    left join outbox.subscription_health h using (subscription_id)
    where coalesce(s.tenant_id = any ((select tenants from bound)::text[]), true)),
live as (
    select count(*) as relays, min(r.hold) as hold
    from outbox_relay.relay r where r.epoch in (select outbox_relay.live_epochs()))
select (select last_value - (not is_called)::integer from outbox.event_event_seq_seq, bound where bound.tenants is null),
       u.count, q.pending, q.leased, q.failed,
       (select count(*) from outbox_relay.finished f where f.state = 'dead_letter'
            and coalesce((select outbox_relay.bound_subscriptions()) @> f.subscription_id, true)),
       q.oldest_due,
       greatest(now() - least((select f.inserted_at from first f), q.oldest_left), interval '0'),
       l.relays,
       coalesce((select h.reason from outbox_relay.hold h order by h.hold_id limit 1), l.hold),
       (select s.value from outbox.setting s where s.name = 'environment')
from unexpanded u, queued q, live l
$$;
comment on function outbox.status is 'How things stand, in one row; cheap at any size of history.';
