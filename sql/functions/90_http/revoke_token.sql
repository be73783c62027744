create or replace function outbox_http.revoke_token(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Of another tenant there is none: not even that it exists is told.
declare
    id bigint := (request ->> 'token_id')::bigint;
begin
    if not exists (select from outbox.token t where t.token_id = id and (tenant is null or t.tenant_id = tenant)) then
        raise exception using errcode = 'OB020', message = format('there is no token %s', id), hint = 'GET /tokens lists those that this token may see.';
    end if;
    perform outbox.revoke_token(id, tenant_id => tenant);
    return (select outbox_http.token(t.*::outbox.token) from outbox.token t where t.token_id = id);
end
$$;
comment on function outbox_http.revoke_token is 'DELETE /tokens/{token_id}';
