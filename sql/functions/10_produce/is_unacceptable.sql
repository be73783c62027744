create or replace function outbox_relay.is_unacceptable(
    type text, tenant_id text, payload jsonb, occurred_at timestamptz, xact xid8, max_payload_bytes integer)
returns boolean
language plpgsql stable
as $$
-- Whether an event could not be delivered, or was given a transaction: the condition of the trigger event_acceptable.
--
-- A function, because each statement reads its triggers' conditions anew from the catalog: this one's call is 920
-- characters of nodes, the rules written out were 3,780. Plpgsql keeps the plan of an expression for the session.
-- Instructions of a prepared insert in a backend: 140,000 into the bare table, 308,000 with the rules written out,
-- 215,000 so. Rejected: a function in SQL, which is planned for each statement (405,000); a trigger without condition,
-- which reads each row back (196,000, but a payload of 16 KiB is unpacked again: a tenth of its insert); domains, whose
-- type drivers are told instead of text; CHECK constraints, which are read for each statement too, and by a restore.
--
-- It runs with the rights of whoever inserts. A fixed search_path is set and put back at each call, so each name
-- here carries its schema, and nothing a session sets may change a literal: no backslash, times with their zone.
--
-- #> '{}' is the payload itself, unpacked: a value copied from another table may arrive compressed, and would count as
-- less. The bounds of occurred_at are what RFC 3339 and the relay's clock can say, infinity is beyond them.
-- Only what would harm a delivery stands here; outbox.publish checks the rest.
-- Called by the trigger for each row; refuse_event, which says what is wrong, knows the same rules.
begin
    return is_unacceptable.type operator(pg_catalog.!~) '^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$'
        or is_unacceptable.tenant_id operator(pg_catalog.=) ''
        or pg_catalog.octet_length(is_unacceptable.type operator(pg_catalog.||) is_unacceptable.tenant_id) operator(pg_catalog.>) 256
        or pg_catalog.pg_column_size(is_unacceptable.payload operator(pg_catalog.#>) '{}') operator(pg_catalog.>) is_unacceptable.max_payload_bytes
        or is_unacceptable.occurred_at operator(pg_catalog.<) '0001-01-01 00:00:00+00'
        or is_unacceptable.occurred_at operator(pg_catalog.>) '9999-12-30 22:00:00+00'
        or is_unacceptable.xact operator(pg_catalog.<>) pg_catalog.pg_current_xact_id();
end
$$;
comment on function outbox_relay.is_unacceptable is 'Whether an event is to be refused: the condition of the trigger event_acceptable.';
