create or replace function outbox_relay.open_session(token_id bigint, sha256 bytea)
returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$
-- A browser has signed in with a token: from now on the cookie with this SHA-256 stands for it.
insert into outbox_relay.session (sha256, token_id) values (open_session.sha256, open_session.token_id);
select outbox_relay.audit('sign_in', t.tenant_id, detail => jsonb_build_object('token_id', t.token_id))
from outbox.token t where t.token_id = open_session.token_id;
$$;
comment on function outbox_relay.open_session is 'Begins a session of the console.';
