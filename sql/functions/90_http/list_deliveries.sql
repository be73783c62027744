create or replace function outbox_http.list_deliveries(tenant text, request jsonb)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
select case when request ->> 'event_id' is null then outbox_http.deliveries(tenant, request)
    else (select json_build_object('data', coalesce(json_agg(outbox_http.delivery(d.*::outbox.delivery) order by d.subscription_id desc), '[]'), 'next_cursor', null)
        from outbox.event e
        join outbox.subscription s on s.tenant_id = e.tenant_id
        cross join lateral (select v.* from outbox.delivery v where v.subscription_id = s.subscription_id and v.event_seq = e.event_seq) d
        where e.event_id = (request ->> 'event_id')::uuid
          and (outbox_http.tenant_of(tenant, request ->> 'tenant_id') is null or e.tenant_id = outbox_http.tenant_of(tenant, request ->> 'tenant_id'))
          and (request ->> 'subscription_id' is null or d.subscription_id = (request ->> 'subscription_id')::bigint)
          and (request ->> 'state' is null or d.state = request ->> 'state')) end
$$;
comment on function outbox_http.list_deliveries is 'GET /deliveries';
