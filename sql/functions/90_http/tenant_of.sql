create or replace function outbox_http.tenant_of(bound text, asked text)
returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
-- The tenant a request is about: the token's, or of a token for all the one it names; null is all.
begin
    if tenant_of.bound <> tenant_of.asked then
        raise exception using errcode = 'OB022', message = 'tenant mismatch', hint = 'The token is bound to another tenant than the request names.';
    end if;
    return coalesce(tenant_of.bound, tenant_of.asked);
end
$$;
comment on function outbox_http.tenant_of is 'The tenant a request is about.';
