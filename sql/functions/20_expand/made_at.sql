create or replace function outbox_relay.made_at(event_id uuid) returns timestamptz
language sql immutable parallel safe
-- When an event's row was made, to the millisecond, as its id tells if that is a version 7 UUID (RFC 9562, 5.7); else
-- null. occurred_at may be long ago, of an event told late.
-- Called by expand and status, for one event each.
return case when substr(event_id::text, 15, 1) = '7'
    then to_timestamp(('x' || lpad(left(replace(event_id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint / 1000.0) end;
comment on function outbox_relay.made_at is 'When an event''s row was made, as a version 7 UUID tells.';
