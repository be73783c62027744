create or replace function outbox_relay.check_limits(before outbox.subscription, s outbox.subscription)
returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
-- Refuses what is larger than a setting allows. Only what changes is judged, column by column: a row from before
-- a limit was lowered goes on working, and may be changed in what is not too large. before is null for a new row.
-- Called by check_subscription.
declare
    header_count bigint := case when jsonb_typeof(s.headers) = 'object' then (select count(*) from jsonb_object_keys(s.headers)) else 0 end;
    r            record;
begin
    for r in
        select l.*, t.value::integer as most
        from (values
            ('url', 'OB010', 'bytes', 'max_url_bytes', octet_length(s.url)::bigint, s.url is distinct from before.url,
                'Use a shorter URL: what belongs to the event goes into its payload.'),
            ('event_types', 'OB011', 'entries', 'max_event_types', cardinality(s.event_types), s.event_types is distinct from before.event_types,
                'Name whole families, as order.*, or make several subscriptions.'),
            ('filter', 'OB012', 'bytes', 'max_filter_bytes', octet_length(s.filter::text), s.filter::text is distinct from before.filter::text,
                'Let the producer put what is asked for into the type or into one field of the payload.'),
            ('headers', 'OB016', 'entries', 'max_headers', header_count, s.headers is distinct from before.headers,
                'Many receivers refuse larger heads. Put what belongs to the event into its payload.'),
            ('headers', 'OB016', 'bytes', 'max_header_bytes', octet_length(s.headers::text), s.headers is distinct from before.headers,
                'Many receivers refuse larger heads. Put what belongs to the event into its payload.'))
            l (what, code, unit, setting, amount, changed, mend)
        join outbox.setting t on t.name = l.setting
        where l.changed and l.amount > t.value::integer
        limit 1
    loop
        raise exception using errcode = r.code,
            message = format('%s of %s %s is over the limit of %s (setting %s)', r.what, r.amount, r.unit, r.most, r.setting), hint = r.mend;
    end loop;
end
$$;
comment on function outbox_relay.check_limits is 'Refuses a subscription with a URL, event_types, filter or headers beyond the settings'' limits.';
