create or replace function outbox_http.list_deliveries(tenant text, request jsonb)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
select case when request ->> 'event_id' is null then outbox_http.deliveries(tenant, request) else outbox_http.deliveries_of_event(tenant, request) end
$$;
comment on function outbox_http.list_deliveries is 'GET /deliveries';
