create or replace function outbox_relay.has_tokens()
returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
-- Whether there is a token that somebody could come with. The daemon asks before it listens beyond loopback.
select exists (select from outbox.token t where t.revoked_at is null and (t.expires_at is null or t.expires_at > now()))
$$;
comment on function outbox_relay.has_tokens is 'Whether there is a live token of the HTTP API.';
