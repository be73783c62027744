create or replace function outbox_http.get_event_type(tenant text, request jsonb)
returns json
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    t outbox.event_type;
begin
    select * into t from outbox.event_type e where e.type = request ->> 'type';
    if not found then
        raise exception using errcode = 'OB021', message = format('event type %s is not in the catalog', quote_nullable(request ->> 'type')),
            hint = 'GET /event-types lists it.';
    end if;
    return outbox_http.event_type(t);
end
$$;
comment on function outbox_http.get_event_type is 'GET /event-types/{type}';
