create or replace function outbox_relay.compact_samples()
returns void
language sql set search_path = pg_catalog, pg_temp
as $$
-- Samples older than an hour become one a minute and relay, and after a day they go: a chart of a day reads a
-- few thousand rows, whatever the relays do. Called by maintain, one at a time.
delete from outbox_relay.sample s where s.taken_at < now() - interval '25 hours';
with fine as (
    delete from outbox_relay.sample s
    where s.seconds < 59 and s.taken_at < date_bin('1 minute', now() - interval '70 minutes', 'epoch') returning s.*),
coarse as (
    select date_bin('1 minute', f.taken_at, 'epoch') + interval '59.5 seconds' as taken_at, f.epoch, sum(f.delivered) as delivered,
           sum(f.failed) as failed, sum(f.first_delivered) as first_delivered, sum(f.first_failed) as first_failed,
           array_agg(f.attempt_counts) as attempts, array_agg(f.commit_counts) as commits
    from fine f
    where cardinality(f.attempt_counts) = cardinality(outbox_relay.latency_bounds_ms()) + 1 and cardinality(f.commit_counts) = cardinality(f.attempt_counts)
    group by 1, 2)
insert into outbox_relay.sample (taken_at, epoch, seconds, delivered, failed, first_delivered, first_failed, attempt_counts, commit_counts)
select c.taken_at, c.epoch, 60, c.delivered, c.failed, c.first_delivered, c.first_failed,
       outbox_relay.add_up(c.attempts), outbox_relay.add_up(c.commits)
from coarse c;
$$;
comment on function outbox_relay.compact_samples is 'Makes old samples few.';
