create or replace function outbox_http.require_unbound(bound text)
returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
-- Refuses what is about all tenants to a token that is bound to one.
begin
    if require_unbound.bound is not null then
        raise exception using errcode = 'OB022', message = 'this is about all tenants, and the token is bound to one',
            hint = 'Use a token that outbox.create_token made without tenant_id.';
    end if;
end
$$;
comment on function outbox_http.require_unbound is 'Refuses what is about all tenants to a token that is bound to one.';
