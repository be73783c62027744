create or replace function outbox_relay.unsealed(most integer)
returns table (subscription_id bigint, key_id text, secret text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
-- Secrets that are plain, of revoked keys too. Called by a relay that has a sealing key, when outbox_relay.tick says
-- that there are some, and by outboxd seal.
select x.subscription_id, x.key_id, x.secret
from outbox_relay.signing_secret x where x.secret is not null
order by x.subscription_id, x.key_id limit unsealed.most
$$;
comment on function outbox_relay.unsealed is 'Secrets that are plain.';
