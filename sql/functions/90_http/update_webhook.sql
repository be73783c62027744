create or replace function outbox_http.update_webhook(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- What the body does not name stays as it is; null resets what may be empty.
declare
    b    jsonb := request -> 'body';
    s    outbox.subscription := outbox_http.find_webhook(tenant, (request ->> 'subscription_id')::bigint);
    path jsonpath;
begin
    perform outbox_http.refuse_reference(tenant, b, s.tls ->> 'client');
    begin
        path := (b ->> 'filter')::jsonpath;
    exception when others then
        raise exception using errcode = 'OB012', message = format('filter is not a valid jsonpath: %s', sqlerrm),
            hint = 'Write a predicate over the payload, as $.total > 100, or a path that finds something, as $.items[*] ? (@.qty > 5).';
    end;
    begin
        update outbox.subscription t set
            url = case when b ? 'url' then b ->> 'url' else t.url end,
            event_types = case when b ? 'event_types' then array(select jsonb_array_elements_text(b -> 'event_types')) else t.event_types end,
            name = case when b ? 'name' then b ->> 'name' else t.name end,
            filter = case when b ? 'filter' then path else t.filter end,
            headers = case when b ? 'headers' then b -> 'headers' else t.headers end,
            signature = case when b ? 'signature' then b ->> 'signature' else t.signature end,
            signature_header = case when b ? 'signature_header' then b ->> 'signature_header' else t.signature_header end,
            envelope = case when b ? 'envelope' then b ->> 'envelope' else t.envelope end,
            retry_policy = case when b ? 'retry_policy' then b ->> 'retry_policy' else t.retry_policy end,
            timeout = case when b ? 'timeout' then (b ->> 'timeout')::interval else t.timeout end,
            max_in_flight = case when b ? 'max_in_flight' then (b ->> 'max_in_flight')::integer else t.max_in_flight end,
            rate_limit = case when b ? 'rate_limit' then (b ->> 'rate_limit')::numeric else t.rate_limit end,
            ordered = case when b ? 'ordered' then (b ->> 'ordered')::boolean else t.ordered end,
            description = case when b ? 'description' then b ->> 'description' else t.description end,
            tls = case when b ? 'tls' then nullif(b -> 'tls', 'null') else t.tls end
        where t.subscription_id = s.subscription_id;
    exception when unique_violation then
        raise exception using errcode = 'OB017', message = format('tenant %s has a subscription named %s already', quote_literal(s.tenant_id), quote_literal(b ->> 'name')),
            hint = 'Choose another name.';
    end;
    return outbox_http.webhook(outbox_http.find_webhook(tenant, s.subscription_id));
end
$$;
comment on function outbox_http.update_webhook is 'PATCH /webhooks/{subscription_id}';
