create or replace function outbox_relay.payload_text(payload jsonb)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
-- A payload as it is sent, or null if that is beyond all bounds: a number such as 1e131071 takes ten bytes in jsonb
-- and 131072 as text, so that a small payload can be written into more than PostgreSQL lets a value be, and
-- nothing interrupts it for seconds. Eight times max_payload_bytes is more than an honest payload reaches: the
-- dearest of texts is \u0001 for one byte. Of a payload that is larger than the limit of today, which was lowered
-- since, it is eight times its own size: it was accepted, and is sent.
--
-- What is larger than 2000 bytes is weighed before it is written: its parts one by one, and of a large part the
-- numbers that could be long (a walk, four times as dear as writing it). Small ones are written as they are.
-- Called by expand and claim for what is not small.
declare
    size    constant bigint := pg_column_size(payload #> '{}');
    most    constant bigint := 8 * greatest(outbox_relay.limit_of('max_payload_bytes'), size);
    weight  bigint := 0;
    part    jsonb;
    n       jsonb;
    written text;
begin
    if size > 2000 then
        for part in select e.value from jsonb_array_elements(case when jsonb_typeof(payload) = 'array' then payload else '[]' end) e
                    union all
                    select o.value from jsonb_each(case when jsonb_typeof(payload) = 'object' then payload else '{}' end) o loop
            if jsonb_typeof(part) = 'number' or jsonb_typeof(part) in ('array', 'object') and pg_column_size(part) <= 2000 then
                weight := weight + octet_length(part::text);
            elsif jsonb_typeof(part) in ('array', 'object') then
                for n in select jsonb_path_query(part, 'strict $.** ? (@ > 1e300 || @ < -1e300 || @ > -1e-300 && @ < 1e-300)', '{}', true) loop
                    weight := weight + octet_length(n::text);
                    exit when weight > most;
                end loop;
            end if;
            if weight > most then
                return null;
            end if;
        end loop;
    end if;
    written := payload::text;
    return case when octet_length(written) <= most then written end;
exception when program_limit_exceeded or statement_too_complex or out_of_memory or internal_error then
    return null;
end
$$;
comment on function outbox_relay.payload_text is 'A payload as it is sent, or null if that is beyond all bounds.';
