create or replace function outbox.adopt(environment text)
returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- This database belongs to that environment from now on. After a logical restore into another cluster it
-- also rebases the log, because transaction ids began again and the cursor's mean nothing here. Says what it did.
--
-- Rebase: what had not been expanded lies after seen_seq, or belongs to a transaction that was open in
-- seen; of those, whatever has a delivery already is left alone. So pending events are kept and nothing
-- that was sent is sent again wholesale. The rest is queued here, due now, and the cursor starts afresh.
declare
    c        outbox_relay.cursor;
    moved    boolean := false;
    kept     bigint := 0;
begin
    perform outbox_relay.require_all_tenants();
    if coalesce(adopt.environment, '') !~ '^[A-Za-z0-9_.-]{1,63}$' then
        raise exception using errcode = 'OB031', message = format('environment %s is not acceptable', quote_nullable(adopt.environment)),
            hint = 'Use letters, digits, _, . and -, as production.';
    end if;
    update outbox.setting s set value = adopt.environment, updated_at = now(), updated_by = (outbox_relay.actor()).actor where s.name = 'environment';

    -- The common case changes a name and waits for nobody.
    if outbox_relay.was_moved() then
        perform pg_advisory_xact_lock(1869968482, 3);
        moved := outbox_relay.was_moved();      -- or somebody else has settled it meanwhile
        select * into c from outbox_relay.cursor order by cursor_id desc limit 1;
    end if;
    if moved then
        -- Writers wait: the events counted here and the new cursor must be of one moment.
        lock table outbox.event in share row exclusive mode;
        with pending as (
            select e.* from outbox.event e
            where e.addressed_to is null
              and (e.event_seq > c.seen_seq or e.xact in (select pg_snapshot_xip(c.seen)))),
        wanted as (
            select p.event_seq, p.priority, p.deliver_at, v.subscription_id,
                   case when v.ordered then outbox_relay.queue_key(p.ordering_key) end as ordering_key
            from pending p
            join outbox.subscription v on v.tenant_id = p.tenant_id and v.active
                and outbox_relay.matches(p.type, p.payload, v.event_types, v.filter)
            where not exists (select from outbox_relay.queue q where q.subscription_id = v.subscription_id and q.event_seq = p.event_seq)
              and not exists (select from outbox_relay.finished f where f.subscription_id = v.subscription_id and f.event_seq = p.event_seq))
        insert into outbox_relay.queue (subscription_id, event_seq, priority, state, next_attempt_at, ordering_key)
        select subscription_id, event_seq, priority, 'pending', greatest(deliver_at, now()), ordering_key from wanted;
        get diagnostics kept = row_count;

        perform outbox_relay.fence_dead();

        -- Versions of the old cluster count as known; old events were settled above and are explained by
        -- their deliveries. 3 is the first ordinary transaction id, older than everything.
        update outbox_relay.subscription_version v set xact = '3';
        delete from outbox_relay.regime;
        insert into outbox_relay.regime (config, seen, floor_seq)
        select s, s, m from pg_current_snapshot() s, (select coalesce(max(event_seq), 0) as m from outbox.event) e;
        insert into outbox_relay.cursor (seen, seen_seq, floor_xact, floor_seq, next_xact, next_seq, head_xact, head_seq)
        select s, m, pg_snapshot_xmin(s), m, pg_snapshot_xmin(s), m, pg_snapshot_xmin(s), m
        from pg_current_snapshot() s, (select coalesce(max(event_seq), 0) as m from outbox.event) e;
        update outbox_relay.origin o set system_identifier = p.system_identifier from pg_control_system() p;
    end if;
    perform outbox_relay.audit('adopt', detail => jsonb_build_object('environment', adopt.environment, 'rebased', moved, 'pending', kept));
    perform pg_notify('outbox_signal', 'control');
    return case when moved then format('adopted as %s; the log was rebased, %s deliveries were pending', adopt.environment, kept)
                else format('adopted as %s', adopt.environment) end;
end
$$;
comment on function outbox.adopt is 'This database belongs to that environment from now on; after a restore into another cluster it also rebases the log.';
