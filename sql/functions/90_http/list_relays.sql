create or replace function outbox_http.list_relays(tenant text, request jsonb)
returns json
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    perform outbox_http.require_unbound(tenant);
    return (select json_build_object('data', coalesce(json_agg(r order by r.epoch desc), '[]')) from outbox.relays() r);
end
$$;
comment on function outbox_http.list_relays is 'GET /relays';
