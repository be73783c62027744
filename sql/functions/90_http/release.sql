create or replace function outbox_http.release(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    perform outbox_http.require_unbound(tenant);
    perform outbox.release();
    return outbox_http.get_status(tenant, request);
end
$$;
comment on function outbox_http.release is 'DELETE /hold';
