create or replace function outbox_relay.latency_bounds_ms()
returns double precision[]
language sql immutable set search_path = pg_catalog, pg_temp
as $$
-- The upper bounds of the latency buckets, in milliseconds; what is longer is in one more bucket. The same as
-- LATENCY_BOUNDS_S in src/metrics.rs, which a test compares.
select '{0.5,1,2,3,5,7.5,10,15,20,30,50,75,100,150,200,300,500,750,1000,1500,2000,3000,5000,10000,15000,30000,60000,300000}'::double precision[]
$$;
comment on function outbox_relay.latency_bounds_ms is 'The upper bounds of the latency buckets of outbox_relay.sample.';
