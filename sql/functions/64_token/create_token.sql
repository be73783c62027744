create or replace function outbox.create_token(
    role text, tenant_id text default null, description text default null, expires_in interval default null)
returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Makes a token of the HTTP API and returns it; the only time it is shown, for only its hash is kept.
-- With a tenant it sees and does what is that tenant's, and nothing that is for all.
declare
    -- 256 bits, made as outbox_relay.add_key makes them.
    token text := 'outboxd_' || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'hex');
    id    bigint;
begin
    if coalesce(create_token.role, '') not in ('operator', 'viewer', 'producer') then
        raise exception using errcode = 'OB018', message = format('there is no role %s for tokens', quote_nullable(create_token.role)),
            hint = 'Use operator, viewer or producer.';
    elsif octet_length(create_token.tenant_id) not between 1 and 128 or create_token.tenant_id ~ '[[:cntrl:]]' then
        raise exception using errcode = 'OB002', message = 'tenant_id is empty, longer than 128 bytes, or has control characters',
            hint = 'Name the tenant, or leave it out for a token that is for all.';
    elsif length(create_token.description) > 200 or create_token.description ~ '[[:cntrl:]]' then
        raise exception using errcode = 'OB018', message = 'the description is longer than 200 characters, or has control characters',
            hint = 'Say in a few words who uses it.';
    elsif create_token.expires_in <= interval '0' then
        raise exception using errcode = 'OB018', message = 'expires_in is not positive', hint = 'Pass how long it is to be good, or leave it out.';
    end if;
    perform outbox_relay.require_tenant(create_token.tenant_id);
    insert into outbox.token (role, tenant_id, description, created_by, expires_at)
    values (create_token.role, create_token.tenant_id, create_token.description, (outbox_relay.actor()).actor, now() + create_token.expires_in)
    returning token_id into id;
    insert into outbox_relay.token_hash (sha256, token_id) values (sha256(convert_to(token, 'UTF8')), id);
    perform outbox_relay.audit('create_token', create_token.tenant_id,
        detail => jsonb_build_object('token_id', id, 'role', create_token.role, 'description', create_token.description));
    return token;
end
$$;
comment on function outbox.create_token is 'A token of the HTTP API, shown this once: role operator, viewer or producer, of one tenant or all.';
