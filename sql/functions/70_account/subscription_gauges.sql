create or replace function outbox_relay.subscription_gauges()
returns table (tenant_id text, subscription_id bigint, delivered bigint, failed bigint, outstanding bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off
as $$
-- What /metrics says of each subscription, where the configuration asks for it.
select s.tenant_id, s.subscription_id, coalesce(h.success_count, 0), coalesce(h.failure_count, 0), coalesce(q.count, 0)
from outbox.subscription s
left join outbox.subscription_health h using (subscription_id)
left join (select q.subscription_id, count(*) as count from outbox_relay.queue q group by 1) q using (subscription_id)
where s.unsubscribed_at is null
$$;
comment on function outbox_relay.subscription_gauges is 'What /metrics says of each subscription.';
