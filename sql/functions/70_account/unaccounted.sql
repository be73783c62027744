create or replace function outbox.unaccounted()
returns table (event_seq bigint, event_id uuid, subscription_id bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off
as $$
-- Events that should have a delivery and have none: always empty.
--
-- For every expanded event in the log the match is made again, against the subscriptions as they were when
-- it was expanded, and by other means than expand uses. Who is bound to tenants has theirs looked at. Reads the whole log: an audit, not a dashboard.
select e.event_seq, e.event_id, v.subscription_id
from (select * from outbox_relay.cursor order by cursor_id desc limit 1) c
cross join (select outbox_relay.bound_tenants() as tenants) b
cross join outbox.event e
cross join lateral (select outbox_relay.regime_of(e.xact, e.event_seq) as config offset 0) g
cross join lateral (
    select distinct on (v.subscription_id) v.subscription_id, v.active, v.patterns, v.filter
    from outbox_relay.subscription_version v
    where v.tenant_id = e.tenant_id and pg_visible_in_snapshot(v.xact, g.config)
    order by v.subscription_id, v.version desc) v
where outbox_relay.expanded_before(e.xact, e.event_seq, c.seen, c.target, c.position, c.floor_seq)
  and coalesce(e.tenant_id = any (b.tenants), true)
  -- CASE fixes the order: a filter that does not end is not evaluated where there is a delivery.
  and case
        when exists (select from outbox_relay.finished f where f.subscription_id = v.subscription_id and f.event_seq = e.event_seq)
            or exists (select from outbox_relay.queue q where q.subscription_id = v.subscription_id and q.event_seq = e.event_seq) then false
        when e.addressed_to is not null then v.subscription_id = e.addressed_to
        else v.active and outbox_relay.matches(e.type, e.payload, v.patterns, v.filter) end
order by e.event_seq, v.subscription_id
$$;
comment on function outbox.unaccounted is 'Always empty: committed events that are neither unexpanded nor have a delivery or a reason for none.';
