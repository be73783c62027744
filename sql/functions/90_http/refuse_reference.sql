create or replace function outbox_http.refuse_reference(bound text, body jsonb, is_named_before text default null)
returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
-- Refuses a name of something on the relays' hosts to a token that is bound to a tenant, see
-- outbox_relay.refuse_reference; that one judges the database role as well. is_named_before: tls.client as it stands.
declare
    what text := case
        when body ->> 'secret_ref' is not null then 'secret_ref'
        when body #> '{tls,client}' is not null and body #>> '{tls,client}' is distinct from is_named_before then 'tls.client' end;
begin
    if bound is not null and what is not null then
        raise exception using errcode = 'OB080', message = format('%s names what stands on the relays'' hosts, for all tenants, and the token is bound to one', what),
            hint = 'Pass the secret itself, or leave it out and one is made; or ask somebody whose token is for all tenants to set the reference.';
    end if;
end
$$;
comment on function outbox_http.refuse_reference is 'Refuses a reference to the relays'' hosts to a token that is bound to a tenant.';
