create or replace function outbox_relay.normal_patterns(event_types text[])
returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
as $$
-- The patterns without those that another one covers: order.* covers order.created, * covers all but
-- outboxd's own types (outbox_relay.matches says why). So an event meets at most one pattern of a
-- subscription, and expand need not look for doubles.
select array_agg(distinct p order by p)
from unnest(event_types) p
where not exists (
    select from unnest(event_types) o
    where o <> p and ((o = '*' and not starts_with(p, 'outbox.')) or (right(o, 2) = '.*' and starts_with(p, left(o, -1)))))
$$;
comment on function outbox_relay.normal_patterns is 'Event type patterns without those that another covers.';
