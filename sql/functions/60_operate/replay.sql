create or replace function outbox.replay(subscription_id bigint, event_seq bigint, tenant_id text default null)
returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Sends one event to one subscription again, now, with a full schedule; returns the delivery's state. What
-- becomes of it is in outbox_relay.replay_one.
declare
    state text := outbox_relay.replay_one(replay.subscription_id, replay.event_seq, replay.tenant_id);
begin
    perform outbox_relay.audit('replay', s.tenant_id, s.subscription_id, replay.event_seq)
    from outbox.subscription s where s.subscription_id = replay.subscription_id;
    return state;
end
$$;
comment on function outbox.replay(bigint, bigint, text) is 'Sends an event to a subscription again, now; the attempt log keeps both runs. Made to compose with a query over outbox.delivery.';

create or replace function outbox.replay(event_id uuid, subscription_id bigint default null, tenant_id text default null)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Sends an event again to every subscription that has a delivery of it, or to the one named; returns how many.
declare
    replayed bigint;
    bound    constant text[] := outbox_relay.bound_tenants();
begin
    if not exists (select from outbox.event e where e.event_id = replay.event_id and coalesce(e.tenant_id = any (bound), true)) then
        raise exception using errcode = 'OB021', message = format('there is no event %s', coalesce(replay.event_id::text, 'null')),
            hint = 'Its segment may have been dropped, see the setting retention.';
    elsif replay.tenant_id is not null
        and not exists (select from outbox.event e where e.event_id = replay.event_id and e.tenant_id = replay.tenant_id
            and coalesce(e.tenant_id = any (bound), true)) then
        raise exception using errcode = 'OB022', message = 'tenant mismatch',
            hint = 'The event does not belong to the tenant named in the call.';
    end if;
    select count(outbox_relay.replay_one(d.subscription_id, e.event_seq, e.tenant_id)) into replayed
    from outbox.event e
    cross join lateral (
        select replay.subscription_id where replay.subscription_id is not null
        union all
        select v.subscription_id from outbox.delivery v
        join outbox.subscription s on s.subscription_id = v.subscription_id and s.unsubscribed_at is null
        where replay.subscription_id is null and v.event_seq = e.event_seq) d
    where e.event_id = replay.event_id and e.tenant_id = coalesce(replay.tenant_id, e.tenant_id) and coalesce(e.tenant_id = any (bound), true);
    perform outbox_relay.audit('replay', e.tenant_id, replay.subscription_id, e.event_seq,
        jsonb_build_object('event_id', replay.event_id, 'count', replayed))
    from outbox.event e
    where e.event_id = replay.event_id and e.tenant_id = coalesce(replay.tenant_id, e.tenant_id) and coalesce(e.tenant_id = any (bound), true);
    return replayed;
end
$$;
comment on function outbox.replay(uuid, bigint, text) is 'Sends an event again to the subscription named, or to all that had it.';
