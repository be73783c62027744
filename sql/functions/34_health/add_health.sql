create or replace function outbox_relay.add_health(
    subscription_ids bigint[], success_counts bigint[], failure_counts bigint[], trailing_failures bigint[],
    success_ats timestamptz[], failure_ats timestamptz[])
returns setof bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Adds what a relay counted since it last called (about a second ago, or as soon as a circuit may have to
-- open) to the health of subscriptions, moves their circuits, and returns those it could write. One that
-- somebody has locked is left for the next call: a delivery never waits for an operator's open transaction.
-- trailing_failures counts the failures after the last success of the span.
--
--   closed      opens when circuit_failures attempts in a row have failed
--   open        closes with any success; failures are those of attempts that were under way, and change nothing
--   half_open   closes with the probe's success; its failure opens the circuit again, for twice as long
declare
    threshold bigint;
    shortest  interval;
    longest   interval;
    r         record;
    closed    boolean := false;
begin
    select value::bigint into threshold from outbox.setting where name = 'circuit_failures';
    select value::interval into shortest from outbox.setting where name = 'circuit_interval';
    select value::interval into longest from outbox.setting where name = 'circuit_max_interval';
    insert into outbox.subscription_health as h (subscription_id)
    select id from unnest(add_health.subscription_ids) id
    where not exists (select from outbox.subscription_health e where e.subscription_id = id)
      and exists (select from outbox.subscription s where s.subscription_id = id)
    order by id
    on conflict do nothing;
    for r in
        with delta as (
            select * from unnest(add_health.subscription_ids, add_health.success_counts, add_health.failure_counts,
                add_health.trailing_failures, add_health.success_ats, add_health.failure_ats)
                d (subscription_id, successes, failures, tail, success_at, failure_at)),
        free as materialized (
            select h.subscription_id, h.circuit, h.circuit_trips, h.to_recover,
                   case when d.successes > 0 then 0 else h.consecutive_failures end + d.tail as consecutive
            from outbox.subscription_health h join delta d using (subscription_id)
            for no key update of h skip locked),
        moved as materialized (
            select f.*, case
                when threshold = 0 then 'closed'
                when f.consecutive < threshold then case when d.successes > 0 then 'closed' else f.circuit end
                when d.tail = 0 then f.circuit
                else 'open' end as now_circuit
            from free f join delta d using (subscription_id)),
        written as (
            update outbox.subscription_health h
            set success_count = h.success_count + d.successes,
                failure_count = h.failure_count + d.failures,
                consecutive_failures = m.consecutive,
                last_success_at = greatest(h.last_success_at, d.success_at),
                last_failure_at = greatest(h.last_failure_at, d.failure_at),
                failing_since = case when m.consecutive = 0 then null when d.successes > 0 then d.failure_at
                    else coalesce(h.failing_since, d.failure_at) end,
                to_recover = h.to_recover and d.successes = 0,
                circuit = m.now_circuit,
                circuit_trips = case when m.now_circuit = 'closed' then 0 when m.circuit = 'half_open' and m.now_circuit = 'open' then h.circuit_trips + 1
                    else h.circuit_trips end,
                circuit_until = case when m.now_circuit = 'closed' then null when m.now_circuit = m.circuit then h.circuit_until
                    -- Spread by a tenth, so that what failed together is not probed together.
                    else clock_timestamp() + least(longest, shortest * power(2, least(h.circuit_trips + (m.circuit = 'half_open')::integer, 30)))
                        * (1 + 0.1 * random()) end
            from moved m join delta d using (subscription_id)
            where h.subscription_id = m.subscription_id
            returning h.subscription_id)
        select m.*, d.successes, s.tenant_id, s.name
        from written w join moved m using (subscription_id) join delta d using (subscription_id) join outbox.subscription s using (subscription_id)
    loop
        closed := closed or (r.now_circuit = 'closed' and r.circuit <> 'closed');
        if r.to_recover and r.successes > 0 then
            perform outbox_relay.tell(r.tenant_id, 'outbox.subscription.recovered', jsonb_build_object(
                'subscription_id', r.subscription_id, 'subscription', r.name, 'tenant_id', r.tenant_id));
        end if;
        return next r.subscription_id;
    end loop;
    if closed then
        perform pg_notify('outbox_signal', 'due');
    end if;
end
$$;
comment on function outbox_relay.add_health is 'Adds a span''s counts to the health of subscriptions, and moves their circuits.';
