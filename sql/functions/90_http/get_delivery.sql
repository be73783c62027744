create or replace function outbox_http.get_delivery(tenant text, request jsonb)
returns json
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    d outbox.delivery := outbox_http.find_delivery(tenant, request ->> 'delivery_id');
begin
    return (outbox_http.delivery(d)::jsonb || jsonb_build_object(
        'attempt_log', (select coalesce(jsonb_agg(to_jsonb(a) - '{subscription_id,event_seq}'::text[] order by a.attempt), '[]')
            from (select * from outbox.attempt t where t.subscription_id = d.subscription_id and t.event_seq = d.event_seq
                  order by t.attempt desc limit 200) a),
        'schedule', (select coalesce(jsonb_agg(n order by n), '[]') from outbox.next_attempts(d.subscription_id, d.event_seq) n)))::json;
end
$$;
comment on function outbox_http.get_delivery is 'GET /deliveries/{delivery_id}';
