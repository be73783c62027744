create or replace function outbox_relay.check_headers(headers jsonb, signature_header text)
returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
-- Refuses static headers, and a name for the header of the signature, that would not do what their owner
-- means, or would do more. Values are not repeated in the error. Called by check_subscription.
declare
    token constant text := '^[A-Za-z0-9!#$%&''*+.^_`|~-]{1,100}$';        -- RFC 9110, 5.6.2
    -- As servers see it that make _ of - for an application.
    own   constant text := translate(lower(signature_header), '_', '-');
    h     record;
    bad   text;
    mend  text;
begin
    if jsonb_typeof(headers) <> 'object' then
        raise exception using errcode = 'OB016', message = 'headers is not a JSON object', hint = 'Use {"name": "value"}.';
    end if;
    for h in select e.key, e.value, n.name, count(*) over (partition by n.name) as times
             from jsonb_each(headers) e cross join translate(lower(e.key), '_', '-') n (name) loop
        bad := case
            when h.key !~ token then 'is no header name'
            when h.times > 1 then 'is there twice: names differ by more than case, _ and -'
            when jsonb_typeof(h.value) <> 'string' then format('is a JSON %s, not a string', jsonb_typeof(h.value))
            when length(h.value #>> '{}') > 1000 then 'has a value of more than 1000 characters'
            when (h.value #>> '{}') !~ '^([\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?)?$' then 'has a value that is not printable ASCII, or begins or ends with a space'
            when h.name in (own, own || '-also') then 'is the signature_header of this subscription'
            end;
        mend := 'Use names of letters, digits and -, and values of printable ASCII.';
        if bad is null then
            bad := 'is refused: ' || outbox_relay.header_refusal(h.name);
            mend := case when bad ~ 'secret' then 'Let the receiver verify the signature: it proves who sends, and nobody can read it off.'
                else 'Leave it out, or choose another name.' end;
        end if;
        if bad is not null then
            raise exception using errcode = 'OB016', message = format('header %s %s', quote_literal(left(h.key, 100)), bad), hint = mend;
        end if;
    end loop;

    if signature_header !~ token then
        bad := 'is no header name';
    elsif own in ('webhook-id', 'webhook-timestamp', 'x-webhook-id', 'x-webhook-timestamp', 'x-timestamp',
            'x-signature-key-id', 'x-github-event', 'x-github-delivery', 'accept', 'accept-encoding',
            'authorization', 'cookie', 'cookie2', 'set-cookie', 'set-cookie2') or own like '%-also' then
        bad := 'is refused: requests use it for something else';
    else
        -- A signature may well stand where signatures stand, and is no secret.
        bad := 'is refused: ' || nullif(nullif(outbox_relay.header_refusal(signature_header), 'it belongs to the signature profiles'),
            outbox_relay.header_refusal('token'));
    end if;
    if bad is not null then
        raise exception using errcode = 'OB016', message = format('signature_header %s %s', quote_literal(left(signature_header, 100)), bad),
            hint = 'Use a name of letters, digits and -, as X-Acme-Signature.';
    end if;
end
$$;
comment on function outbox_relay.check_headers is 'Refuses static headers and names of the signature''s header, with the reason.';
