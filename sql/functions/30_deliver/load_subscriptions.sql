drop function if exists outbox_relay.load_subscriptions(bigint[]);
create or replace function outbox_relay.load_subscriptions(subscription_ids bigint[])
returns table (
    subscription_id bigint, version bigint, tenant_id text, url text, headers text, signature text, signature_header text, envelope text,
    tls text, timeout_ms integer, max_in_flight integer, key_ids text[], secrets text[], sealed bytea[], sealed_with text[], secret_refs text[], expire_ats timestamptz[])
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
-- What a relay must know of subscriptions to send for them, with their live secrets, oldest first, each in the
-- form in which it is stored.
-- Called by the relay when a lease names a version it does not hold.
select s.subscription_id, s.version, s.tenant_id, s.url, s.headers::text, s.signature, s.signature_header, s.envelope, s.tls::text,
       (extract(epoch from coalesce(s.timeout, (select value::interval from outbox.setting where name = 'default_timeout'))) * 1000)::integer, s.max_in_flight,
       coalesce(k.key_ids, '{}'), coalesce(k.secrets, '{}'), coalesce(k.sealed, '{}'), coalesce(k.sealed_with, '{}'), coalesce(k.secret_refs, '{}'), coalesce(k.expire_ats, '{}')
from outbox.subscription s
left join lateral (
    select array_agg(k.key_id order by k.created_at, k.key_id) as key_ids,
           array_agg(x.secret order by k.created_at, k.key_id) as secrets,
           array_agg(x.sealed order by k.created_at, k.key_id) as sealed,
           array_agg(x.sealed_with order by k.created_at, k.key_id) as sealed_with,
           array_agg(x.secret_ref order by k.created_at, k.key_id) as secret_refs,
           array_agg(k.expires_at order by k.created_at, k.key_id) as expire_ats
    from outbox.signing_key k
    join outbox_relay.signing_secret x using (subscription_id, key_id)
    where k.subscription_id = s.subscription_id and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())) k on true
where s.subscription_id = any (load_subscriptions.subscription_ids)
$$;
comment on function outbox_relay.load_subscriptions is 'Endpoints with their secrets, for the relay alone.';
