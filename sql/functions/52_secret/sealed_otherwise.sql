create or replace function outbox_relay.sealed_otherwise(current text, after_subscription_id bigint, after_key_id text, most integer)
returns table (subscription_id bigint, key_id text, sealed bytea, sealed_with text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
-- Secrets that are sealed with another key than the current one, behind the place given. By outboxd seal --rekey.
select x.subscription_id, x.key_id, x.sealed, x.sealed_with
from outbox_relay.signing_secret x
where (x.subscription_id, x.key_id) > (sealed_otherwise.after_subscription_id, sealed_otherwise.after_key_id)
  and x.sealed_with <> sealed_otherwise.current
order by x.subscription_id, x.key_id limit sealed_otherwise.most
$$;
comment on function outbox_relay.sealed_otherwise is 'Secrets that are sealed with another key than the current one.';
