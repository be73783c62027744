create or replace function outbox_relay.fence_dead(but integer default 0)
returns bigint
language sql set search_path = pg_catalog, pg_temp
as $$
-- Fences every relay whose session is gone, and returns how many deliveries were handed back.
-- Dead is who does not hold the lock of its epoch, so getting the lock proves it. Called by tick, which
-- leaves its own epoch out, and by adopt.
select coalesce(sum(outbox_relay.fence(r.epoch)), 0)
from (select d.epoch from outbox_relay.relay d
      where d.fenced_at is null and d.epoch <> fence_dead.but and pg_try_advisory_xact_lock(1869968483, d.epoch)
      offset 0) r
$$;
comment on function outbox_relay.fence_dead is 'Fences every relay whose session is gone.';
