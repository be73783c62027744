create or replace function outbox_relay.add_up(counts bigint[])
returns bigint[]
language sql immutable set search_path = pg_catalog, pg_temp
as $$
-- The sum of the rows of a matrix: bucket by bucket.
select array_agg(b.total order by b.bucket)
from (select ((c.place - 1) % array_length(add_up.counts, 2)) as bucket, sum(c.count)::bigint as total
      from unnest(add_up.counts) with ordinality c (count, place) group by 1) b
$$;
comment on function outbox_relay.add_up is 'The sum of rows of bucket counts, bucket by bucket.';
