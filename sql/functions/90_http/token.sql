create or replace function outbox_http.token(t outbox.token)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
-- A token as the API shows it: #/components/schemas/Token.
select json_build_object('token_id', t.token_id, 'role', t.role, 'tenant_id', t.tenant_id, 'description', t.description,
    'created_by', t.created_by, 'created_at', t.created_at, 'last_used_at', t.last_used_at, 'expires_at', t.expires_at, 'revoked_at', t.revoked_at)
$$;
comment on function outbox_http.token is 'A token as the API shows it.';
