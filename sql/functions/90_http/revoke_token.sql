create or replace function outbox_http.revoke_token(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    id bigint := (request ->> 'token_id')::bigint;
begin
    perform outbox.revoke_token(id, tenant_id => tenant);
    return (select outbox_http.token(t.*::outbox.token) from outbox.token t where t.token_id = id);
end
$$;
comment on function outbox_http.revoke_token is 'DELETE /tokens/{token_id}';
