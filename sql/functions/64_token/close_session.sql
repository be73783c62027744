create or replace function outbox_relay.close_session(sha256 bytea)
returns boolean
language sql security definer set search_path = pg_catalog, pg_temp
as $$
-- Ends the session of the cookie with this SHA-256; false if there is none.
with ended as (delete from outbox_relay.session s where s.sha256 = close_session.sha256 returning 1)
select exists (select from ended);
$$;
comment on function outbox_relay.close_session is 'Ends a session of the console.';
