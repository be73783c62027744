create or replace function outbox_relay.queue_key(ordering_key text)
returns text
language sql immutable parallel safe
-- An ordering key as the queue keeps it: what is too long for an index is replaced by its hash, so that no
-- event that a producer could insert stops expand.
-- Kept free of SET so that the planner inlines it. Called by expand, replay, adopt.
return case when octet_length(ordering_key) <= 255 then ordering_key
    else 'sha256:' || encode(sha256(convert_to(ordering_key, 'UTF8')), 'hex') end;
comment on function outbox_relay.queue_key is 'An ordering key as the queue keeps it.';
