create or replace function outbox.relays()
returns table (epoch integer, name text, version text, environment text, hold text, alive boolean, leased bigint, started_at timestamptz, ended_at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off
as $$
-- The relays that live, and those that ended within a day.
begin
    perform outbox_relay.require_all_tenants();
    return query
    select r.epoch, r.name, r.version, r.environment, r.hold,
           r.epoch in (select outbox_relay.live_epochs()),
           (select count(*) from outbox_relay.queue q where q.state = 'leased' and q.epoch = r.epoch), r.started_at, r.fenced_at
    from outbox_relay.relay r
    where r.fenced_at is null or r.fenced_at > now() - interval '1 day'
    order by r.epoch desc
    limit 1000;
end
$$;
comment on function outbox.relays is 'The relays that live, and those that ended within a day.';
