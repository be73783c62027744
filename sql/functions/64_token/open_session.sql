drop function if exists outbox_relay.open_session(bigint, bytea);
create or replace function outbox_relay.open_session(token_sha256 bytea, sha256 bytea)
returns boolean
language sql security definer set search_path = pg_catalog, pg_temp
as $$
-- A browser has signed in with a token: from now on the cookie with this SHA-256 stands for it. False if the token
-- is not good. It is known by its hash, which only who came with it has, not by its number, which can be guessed:
-- the relay's login alone must not become somebody.
with opened as (
    insert into outbox_relay.session (sha256, token_id)
    select open_session.sha256, t.token_id
    from outbox_relay.token_hash h join outbox.token t using (token_id)
    where h.sha256 = open_session.token_sha256 and t.revoked_at is null and (t.expires_at is null or t.expires_at > now())
    returning token_id),
noted as (
    select outbox_relay.audit('sign_in', t.tenant_id, detail => jsonb_build_object('token_id', t.token_id))
    from opened o join outbox.token t using (token_id))
select count(*) > 0 from noted;
$$;
comment on function outbox_relay.open_session is 'Begins a session of the console.';
