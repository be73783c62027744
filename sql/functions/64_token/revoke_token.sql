create or replace function outbox.revoke_token(token_id bigint, tenant_id text default null)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Refuses a token, and the console's sessions that began with it, from now on.
declare
    t     outbox.token;
    bound constant text[] := outbox_relay.bound_tenants();
begin
    select * into t from outbox.token k
    where k.token_id = revoke_token.token_id and coalesce(coalesce(k.tenant_id, '') = any (bound), true) for no key update;
    if not found then
        raise exception using errcode = 'OB020', message = format('there is no token %s', coalesce(revoke_token.token_id::text, 'null')),
            hint = 'See select * from outbox.token.';
    elsif t.tenant_id is distinct from revoke_token.tenant_id and revoke_token.tenant_id is not null then
        raise exception using errcode = 'OB022', message = 'tenant mismatch', hint = format('Token %s is not of the tenant named in the call.', t.token_id);
    end if;
    if t.revoked_at is null then
        update outbox.token k set revoked_at = now() where k.token_id = t.token_id;
        perform outbox_relay.audit('revoke_token', t.tenant_id, detail => jsonb_build_object('token_id', t.token_id, 'description', t.description));
    end if;
    delete from outbox_relay.session s where s.token_id = t.token_id;
end
$$;
comment on function outbox.revoke_token is 'Refuses a token of the HTTP API from now on.';
