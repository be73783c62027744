create or replace function outbox_relay.quantile_ms(counts bigint[], share double precision)
returns double precision
language sql immutable set search_path = pg_catalog, pg_temp
as $$
-- The time within which this share (0.99) of what was counted lies: within its bucket, evenly spread, as
-- Prometheus' histogram_quantile has it. Null if nothing was counted.
with bounds as (
    select outbox_relay.latency_bounds_ms() as upto),
cumulative as (
    select c.place, c.count, sum(c.count) over (order by c.place) as upto, sum(c.count) over () * quantile_ms.share as wanted
    from unnest(quantile_ms.counts) with ordinality c (count, place))
select case when c.place > cardinality(b.upto) then b.upto[cardinality(b.upto)]
            else coalesce(b.upto[c.place - 1], 0) + (b.upto[c.place] - coalesce(b.upto[c.place - 1], 0)) * (c.wanted - (c.upto - c.count)) / c.count end
from cumulative c, bounds b
where c.count > 0 and c.upto >= c.wanted
order by c.place limit 1
$$;
comment on function outbox_relay.quantile_ms is 'A quantile of bucket counts, in milliseconds.';
