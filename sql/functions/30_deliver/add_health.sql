create or replace function outbox_relay.add_health(
    subscription_ids bigint[], success_counts bigint[], failure_counts bigint[], trailing_failures bigint[],
    success_ats timestamptz[], failure_ats timestamptz[])
returns setof bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Adds what a relay counted since it last called (about a second ago) to the health of subscriptions,
-- and returns those it could write. One that somebody has locked is left for the next call: a delivery
-- never waits for an operator's open transaction.
-- trailing_failures counts the failures after the last success of the span.
begin
    insert into outbox.subscription_health as h (subscription_id)
    select id from unnest(add_health.subscription_ids) id
    where not exists (select from outbox.subscription_health e where e.subscription_id = id)
      and exists (select from outbox.subscription s where s.subscription_id = id)
    order by id
    on conflict do nothing;
    return query
    with delta as (
        select * from unnest(add_health.subscription_ids, add_health.success_counts, add_health.failure_counts,
            add_health.trailing_failures, add_health.success_ats, add_health.failure_ats)
            d (subscription_id, successes, failures, tail, success_at, failure_at)),
    free as materialized (
        select h.subscription_id from outbox.subscription_health h
        where h.subscription_id = any (add_health.subscription_ids) for update skip locked)
    update outbox.subscription_health h
    set success_count = h.success_count + d.successes,
        failure_count = h.failure_count + d.failures,
        consecutive_failures = case when d.successes > 0 then 0 else h.consecutive_failures end + d.tail,
        last_success_at = greatest(h.last_success_at, d.success_at),
        last_failure_at = greatest(h.last_failure_at, d.failure_at)
    from free f join delta d using (subscription_id)
    where h.subscription_id = f.subscription_id
    returning h.subscription_id;
end
$$;
comment on function outbox_relay.add_health is 'Adds a span''s counts to the health of subscriptions.';
