create or replace function outbox_http.live_keys(subscription_id bigint)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
-- The keys that sign for a subscription, oldest first.
select coalesce(json_agg(json_build_object('key_id', k.key_id, 'algorithm', k.algorithm, 'public_key', k.public_key,
    'created_at', k.created_at, 'expires_at', k.expires_at) order by k.created_at, k.key_id), '[]')
from outbox.signing_key k
where k.subscription_id = live_keys.subscription_id and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())
$$;
comment on function outbox_http.live_keys is 'The keys that sign for a subscription.';
