create or replace function outbox.activity(minutes integer default 10)
returns table (
    at timestamptz, seconds double precision, delivered bigint, failed bigint, first_delivered bigint, first_failed bigint,
    attempt_p50_ms double precision, attempt_p95_ms double precision, attempt_p99_ms double precision,
    commit_p50_ms double precision, commit_p95_ms double precision, commit_p99_ms double precision)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off
as $$
-- What all relays did in the last minutes, in 60 equal steps, oldest first, and then the whole span in one row
-- whose at is null. Counts attempts; commit_… is the time from an event's insert to the first byte of the
-- answer to its first attempt. Kept for a day.
declare
    -- Those of another version of outboxd do not add up.
    buckets integer := cardinality(outbox_relay.latency_bounds_ms()) + 1;
    step interval := make_interval(secs => least(greatest(activity.minutes, 5), 1440));
    last timestamptz := date_bin(step, clock_timestamp(), 'epoch');
begin
    perform outbox_relay.require_all_tenants();
    return query
    with sampled as materialized (
        select date_bin(step, s.taken_at - interval '1 millisecond', 'epoch') as at, s.*
        from outbox_relay.sample s
        where s.taken_at > last - 60 * step and s.taken_at <= last),
    summed as (
        select g.at, sum(s.delivered)::bigint as delivered, sum(s.failed)::bigint as failed, sum(s.first_delivered)::bigint as first_delivered,
               sum(s.first_failed)::bigint as first_failed, outbox_relay.add_up(array_agg(s.attempt_counts) filter (where cardinality(s.attempt_counts) = buckets)) as attempts,
               outbox_relay.add_up(array_agg(s.commit_counts) filter (where cardinality(s.commit_counts) = buckets)) as commits, grouping(g.at) as whole
        from generate_series(last - 60 * step, last - step, step) g (at)
        left join sampled s on s.at = g.at
        group by grouping sets ((g.at), ()))
    select m.at, extract(epoch from step)::double precision * case m.whole when 1 then 60 else 1 end,
           coalesce(m.delivered, 0), coalesce(m.failed, 0), coalesce(m.first_delivered, 0), coalesce(m.first_failed, 0),
           outbox_relay.quantile_ms(m.attempts, 0.5), outbox_relay.quantile_ms(m.attempts, 0.95), outbox_relay.quantile_ms(m.attempts, 0.99),
           outbox_relay.quantile_ms(m.commits, 0.5), outbox_relay.quantile_ms(m.commits, 0.95), outbox_relay.quantile_ms(m.commits, 0.99)
    from summed m
    order by m.whole, m.at;
end
$$;
comment on function outbox.activity is 'What the relays did in the last minutes (5 to 1440), in 60 steps and in all.';
