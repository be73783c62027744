create or replace function outbox_relay.register(name text, version text, environment text)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Begins a life of a relay and returns its epoch. The calling session then holds the advisory lock of
-- that epoch: as long as it does, the relay is alive. Nobody can see the row before it is locked.
-- The first relay of a new database claims it for its environment. The first on a new timeline leaves a gap: the old
-- primary may have given out epochs that never reached this server, and whoever has one must not be taken for another.
-- Called by the relay on its one direct connection.
declare
    new_epoch integer;
    here      constant integer := outbox_relay.timeline();
begin
    update outbox.setting s set value = register.environment, updated_at = now()
    where s.name = 'environment' and s.value is null;
    if (select max(r.timeline) from outbox_relay.relay r) < here then
        perform setval('outbox_relay.relay_epoch_seq', nextval('outbox_relay.relay_epoch_seq') + 1000);
    end if;
    insert into outbox_relay.relay (name, version, environment, timeline)
    values (register.name, register.version, register.environment, here)
    returning epoch into new_epoch;
    perform pg_advisory_lock(1869968483, new_epoch);
    perform outbox_relay.judge_environment(new_epoch);
    return new_epoch;
end
$$;
comment on function outbox_relay.register is 'Begins a life of a relay; the session''s advisory lock keeps it alive.';
