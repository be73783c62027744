create or replace function outbox_relay.regime_of(xact xid8, event_seq bigint)
returns pg_snapshot
language sql stable set search_path = pg_catalog, pg_temp
as $$
-- The snapshot of the subscriptions' versions under which an expanded event was matched; null for an event
-- older than the history of regimes (before an adoption).
select r.config from outbox_relay.regime r
where not outbox_relay.expanded_before(regime_of.xact, regime_of.event_seq, r.seen, r.target, r.position, r.floor_seq)
order by r.regime_id desc limit 1
$$;
comment on function outbox_relay.regime_of is 'The subscriptions as they were when an event was expanded, as a snapshot.';
