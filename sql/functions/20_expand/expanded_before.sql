create or replace function outbox_relay.expanded_before(xact xid8, event_seq bigint, seen pg_snapshot, target pg_snapshot, "position" bigint, floor_seq bigint)
returns boolean
language sql immutable parallel safe
-- Whether an event had been expanded at a point of the cursor's way. Up to floor_seq everything had: no
-- transaction that was open in seen lies there.
-- Kept free of SET so that the planner inlines it. Called by explain, unaccounted, replay, maintain.
return event_seq <= floor_seq or pg_visible_in_snapshot(xact, seen)
    or (target is not null and event_seq <= "position" and pg_visible_in_snapshot(xact, target));
comment on function outbox_relay.expanded_before is 'Whether an event lies before a point of the cursor''s way.';
