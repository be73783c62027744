create or replace function outbox_relay.payload_text(payload jsonb)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
-- A payload as it is sent, or null if that is beyond all bounds: a number such as 1e131071 takes ten bytes in jsonb
-- and 131072 as text, so that a small payload can be written into more than PostgreSQL lets a value be.
-- Called by expand and claim for what is not small. Eight times max_payload_bytes is more than an honest
-- payload reaches: the dearest of texts is \u0001 for one byte.
declare
    written text;
begin
    written := payload::text;
    return case when octet_length(written) <= 8 * outbox_relay.limit_of('max_payload_bytes')::bigint then written end;
exception when program_limit_exceeded or out_of_memory or internal_error then
    return null;
end
$$;
comment on function outbox_relay.payload_text is 'A payload as it is sent, or null if that is beyond all bounds.';
