create or replace function outbox_relay.live_epochs()
returns setof integer
language sql stable set search_path = pg_catalog, pg_temp
as $$
-- The relays that live: those whose session holds the advisory lock of its epoch. Only looks, takes no lock.
-- Called by status and relays.
select r.epoch from outbox_relay.relay r
join pg_locks l on l.locktype = 'advisory' and l.classid = 1869968483 and l.objid = r.epoch::oid and l.objsubid = 2 and l.granted
    and l.database = (select d.oid from pg_database d where d.datname = current_database())
where r.fenced_at is null
$$;
comment on function outbox_relay.live_epochs is 'The relays that live.';
