create or replace function outbox_relay.secret_counts()
returns table (form text, detail text, count bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
-- How many secrets that sign stand in which form: plain, sealed (detail: the sealing key), reference (detail: which,
-- the first thousand). By outboxd check.
(select case when x.secret is null then 'sealed' else 'plain' end, x.sealed_with, count(*)
 from outbox_relay.signing_secret x where x.secret_ref is null group by 1, 2)
union all
(select 'reference', x.secret_ref, count(*)
 from outbox_relay.signing_secret x join outbox.signing_key k using (subscription_id, key_id)
 where x.secret_ref is not null and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())
 group by 2 order by 2 limit 1000)
$$;
comment on function outbox_relay.secret_counts is 'How many secrets stand in which form.';
