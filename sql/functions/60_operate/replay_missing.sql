create or replace function outbox.replay_missing(
    subscription_id bigint, since timestamptz default null, until timestamptz default null, dry_run boolean default false, tenant_id text default null)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Delivers the matching events of the window (occurred_at) that never got a delivery: the subscription was
-- made later, or was paused, or wanted other types then. Returns how many, with dry_run how many it would.
declare
    s        outbox.subscription := outbox_relay.require_subscription(replay_missing.subscription_id, replay_missing.tenant_id);
    replayed bigint;
begin
    perform outbox_relay.check_window(replay_missing.since, replay_missing.until);
    select count(case when replay_missing.dry_run then '' else outbox_relay.replay_one(s.subscription_id, m.event_seq) end) into replayed
    from (select e.event_seq
          from outbox.event e, lateral (select * from outbox_relay.cursor order by cursor_id desc limit 1) c
          where e.tenant_id = s.tenant_id and e.addressed_to is null
            and (replay_missing.since is null or e.occurred_at >= replay_missing.since)
            and (replay_missing.until is null or e.occurred_at < replay_missing.until)
            and outbox_relay.expanded_before(e.xact, e.event_seq, c.seen, c.target, c.position, c.floor_seq)
            and outbox_relay.matches(e.type, e.payload, s.event_types, s.filter)
            and not exists (select from outbox_relay.queue q where q.subscription_id = s.subscription_id and q.event_seq = e.event_seq)
            and not exists (select from outbox_relay.finished f where f.subscription_id = s.subscription_id and f.event_seq = e.event_seq)
          order by e.event_seq) m;
    if not replay_missing.dry_run and replayed > 0 then
        perform outbox_relay.audit('replay_missing', s.tenant_id, s.subscription_id,
            detail => jsonb_build_object('since', replay_missing.since, 'until', replay_missing.until, 'count', replayed));
    end if;
    return replayed;
end
$$;
comment on function outbox.replay_missing is 'Delivers matching events of a window that never got a delivery; dry_run only counts them.';
