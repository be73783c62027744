create or replace function outbox.replay_failed(
    subscription_id bigint, since timestamptz default null, until timestamptz default null, dry_run boolean default false, tenant_id text default null)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Replays the dead letters that ended in the window (finished_at); returns how many, with dry_run how many it would.
declare
    s        outbox.subscription := outbox_relay.require_subscription(replay_failed.subscription_id, replay_failed.tenant_id);
    replayed bigint;
begin
    perform outbox_relay.check_window(replay_failed.since, replay_failed.until);
    select count(case when replay_failed.dry_run then '' else outbox_relay.replay_one(f.subscription_id, f.event_seq) end) into replayed
    from (select f.subscription_id, f.event_seq from outbox_relay.finished f
          where f.subscription_id = replay_failed.subscription_id and f.state = 'dead_letter'
            and (replay_failed.since is null or f.finished_at >= replay_failed.since)
            and (replay_failed.until is null or f.finished_at < replay_failed.until)
          order by f.event_seq) f;
    if not replay_failed.dry_run and replayed > 0 then
        perform outbox_relay.audit('replay_failed', s.tenant_id, s.subscription_id,
            detail => jsonb_build_object('since', replay_failed.since, 'until', replay_failed.until, 'count', replayed));
    end if;
    return replayed;
end
$$;
comment on function outbox.replay_failed is 'Replays all dead letters of a window; dry_run only counts them.';
