create or replace function outbox.retry_schedule(name text default null)
returns table (policy text, attempt integer, wait interval, longest_wait interval, earliest interval, latest interval)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
-- The schedule of a retry policy, or of all, attempt by attempt: how long it waits after the one before, how
-- long at most with jitter, and when it is made after the first attempt at the earliest and at the latest.
-- The attempts' own time, max_age and a receiver's Retry-After come on top.
select p.name, a.attempt::integer, w.wait, w.wait * (1 + p.jitter),
       sum(w.wait) over run, sum(w.wait * (1 + p.jitter)) over run
from outbox.retry_policy p
cross join lateral generate_series(1, cardinality(p.delays) + 1) a (attempt)
cross join lateral (select case when a.attempt = 1 then interval '0' else p.delays[a.attempt - 1] end as wait) w
where retry_schedule.name is null or p.name = retry_schedule.name
window run as (partition by p.name order by a.attempt)
order by p.name, a.attempt
$$;
comment on function outbox.retry_schedule is 'The schedule of a retry policy, attempt by attempt.';
